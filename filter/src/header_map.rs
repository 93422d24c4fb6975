//! The encoding in which proxy-wasm hosts pass header maps (ABI 0.2.1, "serialized map").
//!
//! ```text
//!   count │ name length, value length │ … │ name \0 value \0 │ …        lengths: u32, little endian
//! ```

use std::borrow::Cow;

/// Headers in the order of the wire; a name may occur several times.
pub(crate) type Headers = Vec<(String, String)>;

/// Encodes headers for the host.
pub(crate) fn encode<'a>(
    headers: impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone,
) -> Vec<u8> {
    // The host reads 32-bit lengths; on wasm32 no length is longer.
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let texts: usize = headers
        .clone()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    // Grown piece by piece it would be moved half a dozen times.
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

/// Headers as the host encoded them, read where they lie: every request has a dozen that nobody
/// asks for.
pub(crate) struct HeaderMap(Vec<u8>);

impl HeaderMap {
    pub(crate) const fn new(encoded: Vec<u8>) -> Self {
        Self(encoded)
    }

    /// All values of a header, as far as the map is whole.
    ///
    /// HTTP allows any byte above 0x7f in a value, so those that are not UTF-8 are replaced by
    /// U+FFFD. Nothing that the core reads may hold that character, so it refuses such a value
    /// with an error for the client where dropping the header could let a request pass for another.
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

    /// The lengths, and the texts behind them.
    fn split(&self) -> Option<(&[u8], &[u8])> {
        let (count, rest) = self.0.split_first_chunk()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        rest.split_at_checked(count.checked_mul(8)?)
    }
}
