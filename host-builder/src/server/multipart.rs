//! Several parts of a blob in one body: `multipart/byteranges` (RFC 9110, 14.6).
//!
//! ```text
//!   --<boundary>                                  the blob's own digest, which no blob can contain
//!   Content-Type: application/octet-stream
//!   Content-Range: bytes 0-9/1000
//!
//!   <10 bytes>
//!   --<boundary>
//!   …
//!   --<boundary>--
//! ```

use std::ops::Range;

use nixgate_core::distribution::Digest;

/// The media type of every blob here; the manifest knows the true one.
pub(super) const BYTES: &str = "application/octet-stream";

/// The parts of one response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Multipart {
    boundary: String,
    size: u64,
    ranges: Vec<Range<u64>>,
}

impl Multipart {
    /// `ranges` of a blob of `size` bytes. None of them may be empty.
    pub(super) fn new(digest: &Digest, size: u64, ranges: Vec<Range<u64>>) -> Self {
        Self {
            boundary: digest.hex(),
            size,
            ranges,
        }
    }

    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    #[cfg(test)]
    pub(super) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Each part with the text before it.
    pub(super) fn parts(self) -> impl Iterator<Item = (String, Range<u64>)> {
        let parts = self.ranges.into_iter().enumerate();
        parts.map(move |(place, range)| {
            let (start, boundary) = (if place == 0 { "" } else { "\r\n" }, &self.boundary);
            let content = content_range(&range, self.size);
            let head = format!(
                "{start}--{boundary}\r\nContent-Type: {BYTES}\r\nContent-Range: {content}\r\n\r\n"
            );
            (head, range)
        })
    }

    /// The text after the last part.
    pub(super) fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }

    /// The length of the whole body, in bytes.
    pub(super) fn length(&self) -> u64 {
        let parts = self.clone().parts();
        let lengths = parts.map(|(head, range)| head.len() as u64 + (range.end - range.start));
        lengths.sum::<u64>() + self.end().len() as u64
    }
}

/// `Content-Range` of a part that is not empty.
pub(super) fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_the_rfc_says_and_as_long_as_is_said() {
        let content: String = ('a'..='z').cycle().take(1000).collect();
        let digest = Digest::of(content.as_bytes());
        let parts = Multipart::new(&digest, 1000, vec![26..29, 998..1000]);
        let mut body = String::new();
        for (head, range) in parts.clone().parts() {
            body.push_str(&head);
            body.push_str(&content[range.start as usize..range.end as usize]);
        }
        body.push_str(&parts.end());
        assert_eq!(parts.length(), body.len() as u64);
        let boundary = digest.hex();
        let expected = format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes 26-28/1000\r\n\r\nabc\r\n\
             --{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes 998-999/1000\r\n\r\nkl\r\n--{boundary}--\r\n"
        );
        assert_eq!(body, expected);
        // RFC 2046, 5.1.1.
        assert!(boundary.len() <= 70);
    }
}
