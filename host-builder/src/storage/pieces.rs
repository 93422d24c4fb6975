//! A file as a stream of large pieces.
//!
//! object_store's own stream of a local file has pieces of 8 KiB, and each of them goes through
//! the pool of threads that may block and becomes a write to the socket. Pieces of 256 KiB need a
//! thirty-second of both, and keep a slow client's memory small.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use futures::stream::{self, Stream};
use tokio::task::spawn_blocking;

use super::StorageError;

const PIECE: u64 = 256 << 10;

/// The file's bytes from `start` up to but not including `end`. It is an error when the file ends
/// before.
pub(super) fn of(
    file: File,
    start: u64,
    end: u64,
) -> impl Stream<Item = Result<Bytes, StorageError>> {
    stream::try_unfold((file, start), move |(file, from)| async move {
        let size = end.saturating_sub(from).min(PIECE);
        if size == 0 {
            return Ok(None);
        }
        let read = spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            file.read_exact_at(&mut piece, from)?;
            Ok::<_, io::Error>((file, piece))
        });
        let (file, piece) = read.await.map_err(io::Error::other)??;
        Ok(Some((Bytes::from(piece), (file, from + size))))
    })
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
    async fn pieces_make_up_what_was_asked_for() {
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
