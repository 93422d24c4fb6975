//! Each worker's own copies of what it answers most, in front of the cache that all share.
//!
//! ```text
//!   request ──► question, caller ──► answered in this second? ──yes──► the reply, as it is
//!                                          │ no
//!                                          ▼
//!               key ─────────────► copy of this second? ──yes──► judged for the caller, replied
//!                                          │ no
//!                                          ▼
//!               shared cache ────► is it the copy's version, or sealed? ──► copy, judged, replied
//! ```
//!
//! Reading a slot means two calls of the host, a copy of the manifest, the SHA-256 of all of it for
//! the seal, and finding out under which key it is: together more than Envoy needs for the rest of
//! the request. So a worker keeps the entries that it read ([`Copies`]), for whoever asks, and the
//! replies that it made of them ([`Hot`]), each for one caller. A reply is found by what the client
//! wrote, and repeated as it is.
//!
//! The shared entry may be replaced meanwhile, so both are used until the next tick of the worker's
//! timer, a second at most. Then replies are dropped, and entries compared with the shared ones
//! again. Nobody looks at a clock for it: an entry whose time could be over by the next tick is not
//! kept at all.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Content, Entry, Key};
use crate::Seconds;
use crate::distribution::MediaType;
use crate::exchange::Request;

/// How often [`Hot::tick`] is to be called, in seconds.
pub const TICK: Seconds = 1;
/// A copy is made in the course of a second, used until the next tick, and the tick may be late.
const LONGEST_USE: Seconds = 1 + TICK + 1;

/// What a client asks, in its own spelling: all that the edge reads of its request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question(String);

impl Question {
    /// The question of a request; none for methods that are not answered from a cache, and for
    /// conditions, which clients seldom set.
    pub fn of(request: &Request<'_>) -> Option<Self> {
        // Every field is named: one that is added and changes answers has to be added here.
        let Request {
            method,
            path,
            accept,
            if_none_match,
            caller,
        } = request;
        if !matches!(*method, "GET" | "HEAD") || !if_none_match.is_empty() {
            return None;
        }
        let media_type = MediaType::negotiate(accept.iter().copied());
        // No method, media type or path has a space in it, so no two questions have one text.
        let mut text = [method, media_type.as_str(), path].join(" ");
        caller.write_to(&mut text);
        Some(Self(text))
    }
}

/// A worker's replies of the present second. Bodies are those of the entries, so they take no room
/// here: an entry that was used in this second stays as long as its replies.
pub struct Hot<A> {
    answers: BTreeMap<Question, Rc<A>>,
    max_bytes: usize,
    bytes: usize,
}

impl<A> Hot<A> {
    /// No replies yet, and never more than `max_bytes` of them.
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            answers: BTreeMap::new(),
            max_bytes,
            bytes: 0,
        }
    }

    /// The answer to a question, if there was one since the last tick.
    pub fn get(&self, question: &Question) -> Option<Rc<A>> {
        self.answers.get(question).map(Rc::clone)
    }

    /// Keeps an answer, which takes `bytes` bytes, until the next tick. Without room it is not kept.
    pub fn insert(&mut self, question: Question, answer: Rc<A>, bytes: usize) {
        let bytes = bytes.saturating_add(question.0.len());
        let total = self.bytes.saturating_add(bytes);
        if total <= self.max_bytes && !self.answers.contains_key(&question) {
            self.bytes = total;
            self.answers.insert(question, answer);
        }
    }

    /// A second is over.
    pub fn tick(&mut self) {
        self.answers.clear();
        self.bytes = 0;
    }
}

struct Copy {
    entry: Entry,
    /// Of the shared entry: another number is another entry.
    version: u32,
    bytes: usize,
    /// The tick at which it was last compared with the shared entry.
    compared: u64,
}

/// A worker's copies of entries.
pub struct Copies {
    copies: BTreeMap<Key, Copy>,
    max_bytes: usize,
    bytes: usize,
    ticks: u64,
    /// The tick at which those that were not used had to go last.
    swept: Option<u64>,
}

impl Copies {
    /// No copies yet, and never more than `max_bytes` of them.
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            copies: BTreeMap::new(),
            max_bytes,
            bytes: 0,
            ticks: 0,
            swept: None,
        }
    }

    /// The entry of a key, if it was compared with the shared one since the last tick.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        let copy = self.copies.get(key)?;
        (copy.compared == self.ticks).then_some(&copy.entry)
    }

    /// The entry of a key, however old, if the shared one is still of its version: then it need not
    /// be read. From now on it is good for another tick, if it lives that long.
    pub fn compare(&mut self, key: &Key, version: u32, now: Seconds) -> Option<&Entry> {
        let copy = self.copies.get_mut(key)?;
        if copy.version != version {
            return None;
        }
        if copy.entry.outlives_copies(now) {
            copy.compared = self.ticks;
        }
        Some(&copy.entry)
    }

    /// Copies the shared entry of a key, if it is one to be copied. Copies that were not used since
    /// the last tick make room for it; without room it is not copied.
    pub fn insert(&mut self, key: &Key, entry: &Entry, version: u32, now: Seconds) {
        self.remove(key);
        let Some(bytes) = entry.copied_bytes(now) else {
            return;
        };
        let bytes = bytes.saturating_add(key.as_bytes().len());
        // Those that were used in this tick stay, so that one look for others is enough.
        let is_full = self.bytes.saturating_add(bytes) > self.max_bytes;
        if is_full && self.swept != Some(self.ticks) {
            let ticks = self.ticks;
            self.copies.retain(|_, copy| copy.compared == ticks);
            self.bytes = self.copies.values().map(|copy| copy.bytes).sum();
            self.swept = Some(ticks);
        }
        let total = self.bytes.saturating_add(bytes);
        if total > self.max_bytes {
            return;
        }
        self.bytes = total;
        let copy = Copy {
            entry: entry.clone(),
            version,
            bytes,
            compared: self.ticks,
        };
        self.copies.insert(key.clone(), copy);
    }

    /// Forgets the entry of a key, which has another now.
    pub fn remove(&mut self, key: &Key) {
        if let Some(copy) = self.copies.remove(key) {
            self.bytes = self.bytes.saturating_sub(copy.bytes);
        }
    }

    /// A second is over: every copy is to be compared before it is used again.
    pub const fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
    }
}

impl Entry {
    /// How many bytes a copy of it takes; none when it is not to be copied: because its time may
    /// be over before the copy's, because it is a refusal, which is logged each time, or because
    /// the client's request is needed whole.
    fn copied_bytes(&self, now: Seconds) -> Option<usize> {
        if !self.outlives_copies(now) {
            return None;
        }
        let content = match &self.content {
            Content::Document { body, .. } => body.len(),
            Content::Redirect { location } => location.len(),
            Content::Stream | Content::Refusal { .. } => return None,
        };
        Some(content.saturating_add(self.facts.len()))
    }

    const fn outlives_copies(&self, now: Seconds) -> bool {
        self.expires > now.saturating_add(LONGEST_USE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Caller;

    fn ask(method: &str, path: &str, accept: &str) -> Option<Question> {
        Question::of(&Request {
            method,
            path,
            accept: vec![accept],
            if_none_match: Vec::new(),
            caller: &Caller::default(),
        })
    }

    fn question(path: &str) -> Question {
        ask("GET", path, "*/*").unwrap()
    }

    #[test]
    fn what_changes_the_answer_changes_the_question() {
        let (docker, oci) = (MediaType::Docker.as_str(), MediaType::Oci.as_str());
        let first = ask("GET", "/v2/git/tags/list", "*/*");
        assert_eq!(first, ask("GET", "/v2/git/tags/list", oci));
        for other in [
            ask("HEAD", "/v2/git/tags/list", "*/*"),
            ask("GET", "/v2/htop/tags/list", "*/*"),
            ask("GET", "/v2/git/tags/list?n=1", "*/*"),
            ask("GET", "/v2/git/tags/list", docker),
        ] {
            assert_ne!(first, other);
        }
        assert_eq!(ask("PUT", "/v2/git/tags/list", "*/*"), None);
        let conditional = Request {
            method: "GET",
            path: "/v2/git/manifests/latest",
            accept: Vec::new(),
            if_none_match: vec!["*"],
            caller: &Caller::default(),
        };
        assert_eq!(Question::of(&conditional), None);
    }

    #[test]
    fn replies_last_until_the_next_tick_and_keep_their_bound() {
        let mut hot = Hot::new(300);
        let ask = |number: usize| question(&format!("/{number}"));
        let room = |question: &Question| 100 - question.0.len();
        for number in 0..4 {
            hot.insert(ask(number), Rc::new(number), room(&ask(number)));
            // What is there already takes no more room.
            hot.insert(ask(number), Rc::new(number), room(&ask(number)));
        }
        assert_eq!(hot.get(&ask(2)).as_deref(), Some(&2));
        assert_eq!(hot.get(&ask(3)), None, "three are all that fit");
        hot.tick();
        assert_eq!((hot.get(&ask(2)), hot.bytes), (None, 0));
        hot.insert(ask(3), Rc::new(3), room(&ask(3)));
        assert_eq!(hot.get(&ask(3)).as_deref(), Some(&3));
    }

    const NOW: Seconds = 1000;

    fn key(number: usize) -> Key {
        Key::catalog(&number.to_string())
    }

    /// An entry that lives long enough, and takes 100 bytes with its key.
    fn redirect(name: &str) -> Entry {
        let mut location = name.to_owned();
        location.extend(vec!['x'; 100 - key(0).as_bytes().len() - name.len()]);
        Entry {
            expires: NOW + 100,
            content: Content::Redirect { location },
            facts: String::new(),
        }
    }

    #[test]
    fn a_copy_is_used_until_the_next_tick_and_compared_after_it() {
        let mut copies = Copies::new(1000);
        let (one, two) = (redirect("one"), redirect("two"));
        assert_eq!(copies.get(&key(0)), None);
        copies.insert(&key(0), &one, 7, NOW);
        assert_eq!(copies.get(&key(0)), Some(&one));
        copies.tick();
        assert_eq!(copies.get(&key(0)), None);
        assert_eq!(copies.compare(&key(0), 8, NOW), None);
        assert_eq!(copies.get(&key(0)), None, "it is of another version");
        assert_eq!(copies.compare(&key(0), 7, NOW), Some(&one));
        assert_eq!(copies.get(&key(0)), Some(&one));
        copies.tick();
        copies.insert(&key(0), &two, 8, NOW);
        assert_eq!(copies.get(&key(0)), Some(&two));
        copies.tick();
        let late = NOW + 100 - LONGEST_USE;
        assert_eq!(copies.compare(&key(0), 8, late), Some(&two));
        assert_eq!(copies.get(&key(0)), None, "it may be over before the tick");
        copies.remove(&key(0));
        assert_eq!(copies.compare(&key(0), 8, NOW), None);
        assert_eq!(copies.bytes, 0);
    }

    #[test]
    fn copies_keep_their_bound_and_the_unused_make_room() {
        let mut copies = Copies::new(300);
        let entry = redirect("r");
        for number in 0..4 {
            copies.insert(&key(number), &entry, 1, NOW);
        }
        assert_eq!(copies.get(&key(2)), Some(&entry));
        assert_eq!(copies.get(&key(3)), None, "three are all that fit");
        copies.tick();
        copies.insert(&key(1), &entry, 1, NOW);
        copies.insert(&key(4), &entry, 1, NOW);
        assert_eq!(copies.get(&key(1)), Some(&entry));
        assert_eq!(copies.get(&key(4)), Some(&entry));
        assert_eq!((copies.copies.len(), copies.bytes), (2, 200));
    }

    #[test]
    fn an_entry_is_copied_only_when_it_outlives_the_copy() {
        let entry = |expires, content| Entry {
            expires,
            content,
            facts: String::new(),
        };
        let redirect = || Content::Redirect {
            location: "https://s3".to_owned(),
        };
        let now = 1000;
        assert_eq!(entry(now + LONGEST_USE, redirect()).copied_bytes(now), None);
        assert_eq!(
            entry(now + LONGEST_USE + 1, redirect()).copied_bytes(now),
            Some(10)
        );
        assert_eq!(entry(2000, Content::Stream).copied_bytes(now), None);
    }
}
