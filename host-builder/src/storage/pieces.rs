//! A file as a stream of pieces.
//!
//! object_store's own stream of a local file reads each 8 KiB on a blocking thread. Popular blobs are
//! in the page cache, from which copying is faster than waking a thread. So a piece is read directly if
//! that needs no disk, else on a blocking thread:
//!
//! ```text
//!   piece ──► preadv2(RWF_NOWAIT) ──► all of it
//!                    │ some of it, or none: not in memory
//!                    └──► a blocking thread: pread
//! ```

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream};
use rustix::io::ReadWriteFlags;
use tokio::task::spawn_blocking;

use super::StorageError;

/// Fits into the processor's cache, and is small enough for the allocator to reuse.
const PIECE: u64 = 64 << 10;

/// Streams a file's bytes from `start` up to but not including `end`. Fails if the file is shorter.
pub(super) fn of(
    file: File,
    start: u64,
    end: u64,
) -> impl Stream<Item = Result<Bytes, StorageError>> {
    let file = Arc::new(file);
    stream::try_unfold(start, move |from| {
        let file = Arc::clone(&file);
        async move {
            let size = end.saturating_sub(from).min(PIECE);
            if size == 0 {
                return Ok(None);
            }
            let mut piece = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            let read = in_memory(&file, &mut piece, from);
            if read < piece.len() {
                let rest = from + read as u64;
                let reading = spawn_blocking(move || {
                    file.read_exact_at(piece.get_mut(read..).unwrap_or_default(), rest)?;
                    Ok::<_, io::Error>(piece)
                });
                piece = reading.await.map_err(io::Error::other)??;
            }
            Ok(Some((Bytes::from(piece), from + size)))
        }
    })
}

/// Reads as much of a piece as needs no disk; returns its length. That is 0 on file systems without
/// support.
fn in_memory(file: &File, piece: &mut [u8], from: u64) -> usize {
    let into = &mut [IoSliceMut::new(piece)];
    rustix::io::preadv2(file, into, from, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use futures::stream::TryStreamExt;

    use super::*;

    async fn read(content: &[u8], start: u64, end: u64) -> Result<Vec<Bytes>, StorageError> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), content)?;
        of(file.reopen()?, start, end).try_collect().await
    }

    #[tokio::test]
    async fn the_pieces_make_up_the_range() {
        let content: Vec<u8> = (0..3 * PIECE / 2).map(|byte| (byte % 251) as u8).collect();
        let size = content.len() as u64;
        for (start, end, count) in [(0, size, 2), (5, size - 7, 2), (5, 5, 0), (9, 10, 1)] {
            let pieces = read(&content, start, end).await.unwrap();
            assert_eq!(pieces.len(), count);
            let part = &content[start as usize..end as usize];
            assert_eq!(pieces.concat(), part, "{start}..{end}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_shorter_is_an_error() {
        assert!(read(b"short", 0, 6).await.is_err());
    }
}
