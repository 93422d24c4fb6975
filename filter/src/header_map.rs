//! The encoding of header maps in proxy-wasm (ABI 0.2.1, "serialized map").
//!
//! ```text
//!   count │ name length, value length │ … │ name \0 value \0 │ …        lengths: u32, little endian
//! ```

use std::borrow::Cow;

/// Headers in the order of the wire; names may repeat.
pub(crate) type Headers = Vec<(String, String)>;

/// Encodes headers for the host.
pub(crate) fn encode<'a>(
    headers: impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone,
) -> Vec<u8> {
    // On wasm32 every length has 32 bits.
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let texts: usize = headers
        .clone()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    // In one allocation.
    let mut bytes = Vec::with_capacity(4 + 10 * headers.len() + texts);
    bytes.extend_from_slice(&length(headers.len()));
    for (name, value) in headers.clone() {
        bytes.extend_from_slice(&length(name.len()));
        bytes.extend_from_slice(&length(value.len()));
    }
    for (name, value) in headers {
        for text in [name, value] {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
    }
    bytes
}

/// Encoded headers, parsed on demand: most headers of a request are never read.
pub(crate) struct HeaderMap(Vec<u8>);

impl HeaderMap {
    pub(crate) const fn new(encoded: Vec<u8>) -> Self {
        Self(encoded)
    }

    /// All values of a header, up to the first malformed one.
    ///
    /// HTTP allows any byte above 0x7f in a value. Bytes that are not UTF-8 become U+FFFD, which the core
    /// refuses with an error for the client. To drop the header instead could change the request.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        self.iter()
            .filter(move |(header, _)| *header == name.as_bytes())
            .map(|(_, value)| String::from_utf8_lossy(value))
    }

    /// All headers, copied; values as in [`HeaderMap::all`].
    pub(crate) fn to_headers(&self) -> Headers {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        self.iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (lengths, mut texts) = self.split().unwrap_or_default();
        let mut next = move |length: &[u8; 4]| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (text, rest) = texts.split_at_checked(length)?;
            texts = rest.get(1..)?;
            Some(text)
        };
        let (lengths, _) = lengths.as_chunks::<4>();
        let (pairs, _) = lengths.as_chunks::<2>();
        pairs
            .iter()
            .map_while(move |[name, value]| Some((next(name)?, next(value)?)))
    }

    /// The lengths and the texts.
    fn split(&self) -> Option<(&[u8], &[u8])> {
        let (count, rest) = self.0.split_first_chunk()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        rest.split_at_checked(count.checked_mul(8)?)
    }
}
