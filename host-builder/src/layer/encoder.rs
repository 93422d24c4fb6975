//! Compression, and all that a manifest needs to know of a layer, in one pass.
//!
//! ```text
//!   tar ──▶ sha256, size ──▶ gzip ──▶ sha256, size ──▶ out
//!              │                         │
//!              ▼                         ▼
//!           diff_id                    digest
//!        (image config)              (manifest)
//! ```
//!
//! Compressed bytes are part of a layer's identity, so compression has to be repeatable: no time
//! or file name in gzip's header, a fixed level, and zlib-rs, a pure Rust deflate that does not
//! choose its matches by what the processor can do. It does choose them by how much it is given at
//! a time, so it is always given the same.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

use nixgate_core::distribution::Digest;

/// Says how the same archive becomes the same layer: codec, level, version. Part of cache keys.
///
/// The version goes up whenever the bytes change, be it by a new zlib-rs or by what [the archive
/// format](super::TarWriter) does. The tests pin the bytes, so that it isn't forgotten.
pub(crate) const ENCODER_ID: &str = "gzip-6-v2";

/// Higher levels take twice the time for layers that are 2 % smaller.
const LEVEL: u32 = 6;

/// Bytes that deflate is given at a time; at the end, what is left.
const CHUNK: usize = 64 * 1024;

/// "Unknown" in gzip's list of file systems (RFC 1952, 2.3.1).
const UNKNOWN_OS: u8 = 255;

/// What manifest and config say of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub(crate) diff_size: u64,
    /// Digest of the compressed archive: the layer's blob.
    pub(crate) digest: Digest,
    /// Bytes of the compressed archive.
    pub(crate) size: u64,
}

/// A writer of uncompressed bytes in front of a writer of compressed ones, measuring both.
pub(crate) struct Encoder<W: Write> {
    uncompressed: Measured<GzEncoder<Measured<W>>>,
    /// Less than [`CHUNK`] bytes that wait for more.
    pending: Vec<u8>,
}

impl<W: Write> Encoder<W> {
    /// Starts a layer that goes to `out`.
    pub(crate) fn new(out: W) -> Encoder<W> {
        let gzip = GzBuilder::new()
            .mtime(0)
            .operating_system(UNKNOWN_OS)
            .write(Measured::new(out), Compression::new(LEVEL));
        Encoder {
            uncompressed: Measured::new(gzip),
            pending: Vec::with_capacity(CHUNK),
        }
    }

    /// Ends the layer, and flushes `out`.
    ///
    /// # Errors
    ///
    /// When `out` fails.
    pub(crate) fn finish(mut self) -> io::Result<Packed> {
        self.uncompressed.write_all(&self.pending)?;
        let (gzip, diff_id, diff_size) = self.uncompressed.finish();
        let (mut out, digest, size) = gzip.finish()?.finish();
        out.flush()?;
        Ok(Packed {
            diff_id,
            diff_size,
            digest,
            size,
        })
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == CHUNK {
            self.uncompressed.write_all(&self.pending)?;
            self.pending.clear();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush amid the stream would change the compressed bytes: they would depend on who
        // flushed when. `finish` flushes.
        Ok(())
    }
}

/// Hashes and counts what goes through.
pub(super) struct Measured<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Measured<W> {
    pub(super) fn new(inner: W) -> Measured<W> {
        Measured {
            inner,
            hash: Sha256::new(),
            size: 0,
        }
    }

    /// The writer, the digest of what it was given, and its size in bytes.
    pub(super) fn finish(self) -> (W, Digest, u64) {
        (
            self.inner,
            Digest::from_bytes(self.hash.finalize().into()),
            self.size,
        )
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use proptest::prelude::*;
    use std::io::Read;

    fn encoded(chunks: &[&[u8]]) -> (Packed, Vec<u8>) {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out);
        for chunk in chunks {
            encoder.write_all(chunk).unwrap();
            encoder.flush().unwrap();
        }
        (encoder.finish().unwrap(), out)
    }

    /// A megabyte that compresses about as well as programs do.
    fn sample() -> Vec<u8> {
        let mut state = 1_u32;
        (0..1_000_000_u32)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if state >> 30 == 0 {
                    (state >> 20) as u8
                } else {
                    (i / 7) as u8
                }
            })
            .collect()
    }

    /// When this fails, layers are no longer what they were: [`ENCODER_ID`] needs a new version.
    #[test]
    fn the_bytes_of_this_version_are_pinned() {
        let (packed, _) = encoded(&[&sample()]);
        expect_test::expect![[r#"
            (
                "gzip-6-v2",
                Packed {
                    diff_id: sha256:11156f7eba006c4a235d34650cde855966102427cec35ceef590599481e5fe58,
                    diff_size: 1000000,
                    digest: sha256:08670570d68ac52a4d6bbd07c897f43f3ed89a1f5080346bbd2ca0636bf7f45d,
                    size: 675179,
                },
            )
        "#]].assert_debug_eq(&(ENCODER_ID, packed));
    }

    #[test]
    fn the_header_holds_neither_time_nor_system() {
        let (_, bytes) = encoded(&[]);
        assert_eq!(bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    }

    #[test]
    fn digests_and_sizes_are_those_of_both_sides() {
        let (packed, bytes) = encoded(&[b"hello ", b"layer"]);
        assert_eq!(packed.diff_id, Digest::of(b"hello layer"));
        assert_eq!(packed.diff_size, 11);
        assert_eq!(packed.digest, Digest::of(&bytes));
        assert_eq!(packed.size, bytes.len() as u64);
        let mut text = String::new();
        GzDecoder::new(&bytes[..])
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "hello layer");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn how_the_bytes_arrive_is_of_no_matter(
            mut cuts in prop::collection::vec(0..1_000_000_usize, 0..50)
        ) {
            let sample = sample();
            cuts.extend([0, sample.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &sample[cut[0]..cut[1]]).collect();
            prop_assert!(encoded(&chunks) == encoded(&[&sample]));
        }
    }
}
