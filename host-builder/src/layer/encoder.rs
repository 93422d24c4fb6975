//! Compresses a layer, and hashes and measures both sides in one pass.
//!
//! ```text
//!   tar ──▶ sha256, size ──▶ gzip ──▶ sha256, size ──▶ out
//!              │                         │
//!              ▼                         ▼
//!           diff_id                    digest
//!        (image config)              (manifest)
//! ```
//!
//! A layer's digest is that of the compressed bytes, so compression has to be reproducible: no time or
//! file name in gzip's header, a fixed level, and zlib-rs, whose matches do not depend on the processor.
//! They do depend on how many bytes it gets at a time, so it always gets the same number.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use nixgate_core::distribution::Digest;

/// Codec, level and version; part of storage keys.
///
/// The version must go up whenever the bytes change, by a new zlib-rs or by
/// [`TarWriter`](super::TarWriter). Tests pin the bytes.
pub(crate) const ENCODER_ID: &str = "gzip-6-v2";

/// Higher levels take twice the time and save 2 %.
const LEVEL: u32 = 6;

/// Bytes that deflate gets at a time.
const CHUNK: usize = 64 * 1024;

/// "Unknown" in gzip's list of file systems (RFC 1952, 2.3.1).
const UNKNOWN_OS: u8 = 255;

/// A packed layer. As JSON, it is the record of the layer in storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Packed {
    /// Of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// Of the compressed archive, which is the blob.
    pub(crate) digest: Digest,
    /// Bytes of the blob.
    pub(crate) size: u64,
}

/// Takes the uncompressed archive, and writes the compressed one.
pub(crate) struct Encoder<W: Write> {
    uncompressed: HashingWriter<GzEncoder<HashingWriter<W>>>,
    /// Less than [`CHUNK`] bytes.
    pending: Vec<u8>,
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(out: W) -> Encoder<W> {
        let gzip = GzBuilder::new()
            .mtime(0)
            .operating_system(UNKNOWN_OS)
            .write(HashingWriter::new(out), Compression::new(LEVEL));
        Encoder {
            uncompressed: HashingWriter::new(gzip),
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
        let (gzip, diff_id, _) = self.uncompressed.finish();
        let (mut out, digest, size) = gzip.finish()?.finish();
        out.flush()?;
        Ok(Packed {
            diff_id,
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
        // A flush would change the compressed bytes. `finish` flushes.
        Ok(())
    }
}

/// Hashes and counts the bytes that it passes on.
pub(super) struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            size: 0,
        }
    }

    /// The inner writer, the digest of the bytes, and their number.
    pub(super) fn finish(self) -> (W, Digest, u64) {
        (
            self.inner,
            Digest::from_bytes(self.hash.finalize().into()),
            self.size,
        )
    }
}

impl<W: Write> Write for HashingWriter<W> {
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

    /// When this fails, [`ENCODER_ID`] needs a new version.
    #[test]
    fn the_bytes_of_this_version_are_pinned() {
        let (packed, _) = encoded(&[&sample()]);
        expect_test::expect![[r#"
            (
                "gzip-6-v2",
                Packed {
                    diff_id: sha256:11156f7eba006c4a235d34650cde855966102427cec35ceef590599481e5fe58,
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
    fn digests_are_those_of_both_sides() {
        let (packed, bytes) = encoded(&[b"hello ", b"layer"]);
        assert_eq!(packed.diff_id, Digest::of(b"hello layer"));
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
        fn chunks_of_any_size_give_the_same_bytes(
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
