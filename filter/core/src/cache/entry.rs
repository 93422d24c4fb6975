//! Cache entries, and their encoding in a slot.

use std::rc::Rc;

use super::Key;
use crate::Seconds;

/// An answer that may be cached. Bodies are shared, not copied: one answer serves many requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A document: a manifest or a list of tags.
    Document {
        /// Its `Content-Type`.
        media_type: String,
        /// Its `Docker-Content-Digest`; a list of tags has none.
        digest: Option<String>,
        /// For a manifest by tag: its package set ([`SOURCE`](crate::wire::SOURCE)).
        source: Option<String>,
        /// Its bytes.
        body: Rc<[u8]>,
    },
    /// A blob that storage serves.
    Redirect {
        /// An absolute URL.
        location: String,
    },
    /// A blob that the builder streams.
    Stream,
    /// A refusal that the builder allows to cache.
    Refusal {
        /// Its HTTP status.
        status: u16,
        /// Its error body.
        body: Rc<[u8]>,
    },
}

/// A content and its lifetime.
///
/// A clock that is set forward ends lifetimes early, which costs a callout. A clock that is set back
/// would prolong them, so an entry that was learnt in the future counts as expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was learnt.
    pub learnt: Seconds,
    /// The first second at which it is no longer fresh.
    pub expires: Seconds,
    /// The answer.
    pub content: Content,
    /// The header [`FACTS`](crate::wire::FACTS) as it came; may be empty.
    pub facts: String,
}

/// How long after its expiry a stale document may be served, in seconds: a day to repair the builder.
const STALE_FOR: Seconds = 24 * 60 * 60;

impl Entry {
    /// Whether it may be served.
    pub const fn is_fresh(&self, now: Seconds) -> bool {
        self.learnt <= now && now < self.expires
    }

    /// Whether it may be served, fresh or stale.
    pub const fn is_usable(&self, now: Seconds) -> bool {
        self.learnt <= now && now < self.usable_until()
    }

    /// The first second at which the entry is useless. Until then, a document may be served if the
    /// builder fails (RFC 5861, `stale-if-error`).
    pub const fn usable_until(&self) -> Seconds {
        match self.content {
            Content::Document { .. } => self.expires.saturating_add(STALE_FOR),
            // A refusal may no longer hold, and the signature of an address expires.
            Content::Redirect { .. } | Content::Stream | Content::Refusal { .. } => self.expires,
        }
    }

    /// Encodes the slot: the whole key, the times, the facts, the content.
    pub fn encode(&self, key: &Key) -> Vec<u8> {
        let mut writer = Writer(Vec::with_capacity(256));
        writer.bytes(key.as_bytes());
        for time in [self.learnt, self.expires] {
            writer.0.extend_from_slice(&time.to_be_bytes());
        }
        writer.bytes(self.facts.as_bytes());
        match &self.content {
            Content::Document {
                media_type,
                digest,
                source,
                body,
            } => {
                writer.0.push(1);
                writer.bytes(media_type.as_bytes());
                for text in [digest, source] {
                    writer.bytes(text.as_deref().unwrap_or_default().as_bytes());
                }
                writer.bytes(body);
            }
            Content::Redirect { location } => {
                writer.0.push(2);
                writer.bytes(location.as_bytes());
            }
            Content::Stream => writer.0.push(3),
            Content::Refusal { status, body } => {
                writer.0.push(4);
                writer.0.extend_from_slice(&status.to_be_bytes());
                writer.bytes(body);
            }
        }
        writer.0
    }

    /// Decodes a slot; none if it has another key or is damaged.
    pub fn decode(slot: &[u8], key: &Key) -> Option<Self> {
        let mut reader = Reader(slot);
        if reader.bytes()? != key.as_bytes() {
            return None;
        }
        let learnt = Seconds::from_be_bytes(reader.array()?);
        let expires = Seconds::from_be_bytes(reader.array()?);
        let facts = reader.text()?;
        let [tag] = reader.array()?;
        let content = match tag {
            1 => Content::Document {
                media_type: reader.text()?,
                digest: reader.optional_text()?,
                source: reader.optional_text()?,
                body: reader.bytes()?.into(),
            },
            2 => Content::Redirect {
                location: reader.text()?,
            },
            3 => Content::Stream,
            4 => Content::Refusal {
                status: u16::from_be_bytes(reader.array()?),
                body: reader.bytes()?.into(),
            },
            _ => return None,
        };
        reader.0.is_empty().then_some(Self {
            learnt,
            expires,
            content,
            facts,
        })
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_be_bytes(self.array()?);
        let (head, tail) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = tail;
        Some(head)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    /// A text; empty means none.
    fn optional_text(&mut self) -> Option<Option<String>> {
        Some(Some(self.text()?).filter(|text| !text.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PackageSet;
    use crate::distribution::Repository;

    fn key(name: &str) -> Key {
        let packages = PackageSet::of(&Repository::parse(name).unwrap())
            .unwrap()
            .into();
        Key::tags("builder", &packages)
    }

    fn contents() -> impl Strategy<Value = Content> {
        let body = || prop::collection::vec(any::<u8>(), 0..64).prop_map(Rc::from);
        let text = || prop::option::of(".+");
        prop_oneof![
            (".*", text(), text(), body()).prop_map(|(media_type, digest, source, body)| {
                Content::Document {
                    media_type,
                    digest,
                    source,
                    body,
                }
            }),
            ".*".prop_map(|location| Content::Redirect { location }),
            Just(Content::Stream),
            (any::<u16>(), body()).prop_map(|(status, body)| Content::Refusal { status, body }),
        ]
    }

    #[test]
    fn an_entry_lives_as_long_as_it_may_whatever_becomes_of_the_clock() {
        const YEAR: Seconds = 365 * 24 * 60 * 60;
        let learnt = 50 * YEAR;
        let document = Entry {
            learnt,
            expires: learnt + 300,
            content: Content::Document {
                media_type: String::new(),
                digest: None,
                source: None,
                body: Rc::default(),
            },
            facts: String::new(),
        };
        let refusal = Entry {
            content: Content::Refusal {
                status: 404,
                body: Rc::default(),
            },
            ..document.clone()
        };
        for (now, fresh, stale) in [
            (learnt, true, true),
            (learnt + 299, true, true),
            (learnt + 300, false, true),
            (learnt + 300 + STALE_FOR, false, false),
            (learnt + YEAR, false, false),
            (learnt - 1, false, false),
            (learnt - YEAR, false, false),
            (0, false, false),
            (Seconds::MAX, false, false),
        ] {
            assert_eq!(document.is_fresh(now), fresh, "{now}");
            assert_eq!(document.is_usable(now), stale, "{now}");
            assert_eq!(refusal.is_fresh(now), fresh, "{now}");
            assert_eq!(refusal.is_usable(now), fresh, "{now}");
        }
    }

    proptest! {
        #[test]
        fn an_entry_survives_its_slot(
            learnt: u64, expires: u64, facts: String, content in contents()
        ) {
            let entry = Entry { learnt, expires, content, facts };
            prop_assert_eq!(Entry::decode(&entry.encode(&key("a")), &key("a")), Some(entry));
        }

        #[test]
        fn another_keys_entry_is_a_miss(content in contents()) {
            let entry = Entry { learnt: 0, expires: 1, content, facts: String::new() };
            prop_assert_eq!(Entry::decode(&entry.encode(&key("a")), &key("b")), None);
        }

        #[test]
        fn a_damaged_slot_is_a_miss(content in contents(), cut in 1_usize..40) {
            let slot = Entry { learnt: 0, expires: 1, content, facts: String::new() }.encode(&key("a"));
            let cut = slot.len().saturating_sub(cut);
            prop_assert_eq!(Entry::decode(&slot[..cut], &key("a")), None);
        }

        #[test]
        fn garbage_is_a_miss(slot in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert_eq!(Entry::decode(&slot, &key("a")), None);
        }
    }
}
