//! Each worker's own copies of what it answers most, in front of the cache that all share.
//!
//! ```text
//!   question ──► asked in this second? ──yes──► by this caller? ──yes──► the reply, as it is
//!                      │ no                          │ no
//!                      ▼                             ▼
//!   key ──► copy of this second? ──yes──► prepared, judged for the caller, replied
//!                      │ no
//!                      ▼
//!   shared cache ──► is it the copy's version, or sealed? ──► copy …
//! ```
//!
//! Reading a slot means two calls of the host, a copy of the manifest, the SHA-256 of all of it for
//! the seal, and finding out under which key it is: together more than Envoy needs for the rest of
//! the request. So a worker keeps the entries that it read ([`Copies`]), and what it made of
//! them ([`Hot`]): what is the same for everybody who asks in the same words, and the reply to each.
//!
//! The shared entry may be replaced meanwhile, so both are used until the next tick of the worker's
//! timer, a second at most. Then what was made of them is dropped, and entries compared with the shared ones
//! again. Nobody looks at a clock for it: an entry whose time could be over by the next tick is not
//! kept at all.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Content, Entry, Key};
use crate::Seconds;
use crate::distribution::MediaType;
use crate::exchange::{Prepared, Reply, Request};

/// How often [`Hot::tick`] is to be called, in seconds.
pub const TICK: Seconds = 1;
/// A copy is made in the course of a second, used until the next tick, and the tick may be late.
const LONGEST_USE: Seconds = 1 + TICK + 1;

/// What a client asks, in its own spelling: all that the edge reads of its request, but for who asks
/// and under which conditions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question(String);

impl Question {
    /// The question of a request; none for methods that are not answered from a cache.
    pub fn of(request: &Request<'_>) -> Option<Self> {
        // Every field is named: one that is added and changes answers has to be added here.
        let Request {
            method,
            path,
            accept,
            if_none_match: _,
            caller: _,
        } = request;
        if !matches!(*method, "GET" | "HEAD") {
            return None;
        }
        let media_type = MediaType::negotiate(accept.iter().copied());
        // No method, media type or path has a space in it, so no two questions have one text.
        Some(Self([method, media_type.as_str(), path].join(" ")))
    }
}

/// What was asked in this second.
struct Asked {
    prepared: Rc<Prepared>,
    /// By the caller ([`Caller::text`](crate::exchange::Caller::text)).
    replies: BTreeMap<String, Rc<Reply>>,
}

/// A worker's answers of the present second. Bodies are those of the entries, so they take no room
/// here: an entry that was used in this second stays as long as what was made of it.
pub struct Hot {
    asked: BTreeMap<Question, Asked>,
    max_bytes: usize,
    bytes: usize,
}

impl Hot {
    /// No answers yet, and never more than `max_bytes` of them.
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            asked: BTreeMap::new(),
            max_bytes,
            bytes: 0,
        }
    }

    /// The reply that this caller had since the last tick, under no condition.
    pub fn get(&self, question: &Question, caller: &str) -> Option<Rc<Reply>> {
        let replies = &self.asked.get(question)?.replies;
        replies.get(caller).map(Rc::clone)
    }

    /// What anybody had since the last tick, before it was judged for somebody.
    pub fn prepared(&self, question: &Question) -> Option<Rc<Prepared>> {
        let asked = self.asked.get(question)?;
        Some(Rc::clone(&asked.prepared))
    }

    /// Keeps what all get who ask this question, until the next tick. Without room it is not kept.
    pub fn prepare(&mut self, question: &Question, prepared: Rc<Prepared>) {
        let bytes = prepared.bytes_of_its_own();
        if !self.asked.contains_key(question) && self.takes(question.0.len(), bytes) {
            let asked = Asked {
                prepared,
                replies: BTreeMap::new(),
            };
            self.asked.insert(question.clone(), asked);
        }
    }

    /// Keeps the reply to a caller who asked under no condition, until the next tick. Without room
    /// it is not kept, nor for a question that is not prepared.
    pub fn insert(&mut self, question: &Question, caller: String, reply: Rc<Reply>) {
        if self.asked.contains_key(question) && self.takes(caller.len(), reply.bytes_of_its_own()) {
            let asked = self.asked.get_mut(question);
            asked.map(|asked| asked.replies.insert(caller, reply));
        }
    }

    /// Whether there is room for so many bytes, which are taken then.
    const fn takes(&mut self, key: usize, value: usize) -> bool {
        let total = self.bytes.saturating_add(key).saturating_add(value);
        if total > self.max_bytes {
            return false;
        }
        self.bytes = total;
        true
    }

    /// A second is over.
    pub fn tick(&mut self) {
        self.asked.clear();
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
        self.learnt <= now && self.expires > now.saturating_add(LONGEST_USE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::exchange::{Begin, Caller, Exchange, Next};

    fn request<'a>(method: &'a str, path: &'a str, accept: &'a str, by: &'a Caller) -> Request<'a> {
        Request {
            method,
            path,
            accept: vec![accept],
            if_none_match: Vec::new(),
            caller: by,
        }
    }

    fn ask(method: &str, path: &str, accept: &str) -> Option<Question> {
        Question::of(&request(method, path, accept, &Caller::default()))
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
    }

    /// A question with what is known of it, and the reply to it.
    fn asked(path: &str) -> (Question, Rc<Prepared>, Rc<Reply>) {
        let config = br#"{"builder": {"cluster": "b", "token_env": "T"}}"#;
        let config = Config::parse(config, |_| Some("s".to_owned())).unwrap();
        let caller = Caller::default();
        let request = request("GET", path, "*/*", &caller);
        let Begin::Ask(mut exchange) = Exchange::begin(&config, &request, NOW) else {
            panic!("{path} is to be looked up");
        };
        let prepared = exchange.prepare(&config, &redirect("one")).unwrap();
        let Next::Reply(reply) = exchange.looked_up(&config, Some(redirect("one")), NOW) else {
            panic!("the cache has it");
        };
        let question = Question::of(&request).unwrap();
        (question, Rc::new(prepared), Rc::new(reply))
    }

    #[test]
    fn answers_are_of_one_caller_and_last_until_the_next_tick() {
        let mut hot = Hot::new(10_000);
        let (question, prepared, reply) = asked("/v2/git/manifests/latest");
        let (other, ..) = asked("/v2/htop/manifests/latest");
        hot.insert(&question, "alice".to_owned(), Rc::clone(&reply));
        assert_eq!(hot.get(&question, "alice"), None, "it is not prepared");
        hot.prepare(&question, Rc::clone(&prepared));
        hot.insert(&question, "alice".to_owned(), Rc::clone(&reply));
        assert_eq!(hot.get(&question, "alice"), Some(Rc::clone(&reply)));
        assert_eq!(hot.get(&question, "bob"), None);
        assert_eq!(hot.get(&other, "alice"), None);
        assert!(hot.prepared(&question).is_some());
        assert!(hot.prepared(&other).is_none());
        hot.tick();
        assert_eq!(hot.get(&question, "alice"), None);
        assert!(hot.prepared(&question).is_none());
        assert_eq!(hot.bytes, 0);
    }

    #[test]
    fn answers_keep_their_bound() {
        let (question, prepared, reply) = asked("/v2/git/manifests/latest");
        let one = question.0.len() + prepared.bytes_of_its_own();
        let mut hot = Hot::new(one + 2 * (1 + reply.bytes_of_its_own()));
        // What is there already takes no more room.
        for _ in 0..3 {
            hot.prepare(&question, Rc::clone(&prepared));
        }
        for caller in ["a", "b", "c"] {
            hot.insert(&question, caller.to_owned(), Rc::clone(&reply));
        }
        let has = ["a", "b", "c"].map(|caller| hot.get(&question, caller).is_some());
        assert_eq!(has, [true, true, false]);
        let (other, prepared, _) = asked("/v2/htop/manifests/latest");
        hot.prepare(&other, prepared);
        assert!(hot.prepared(&other).is_none());
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
            learnt: 0,
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
            learnt: 0,
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
        // Learnt before the clock was set back.
        let learnt = Entry {
            learnt: now + 1,
            ..entry(2000, redirect())
        };
        assert_eq!(learnt.copied_bytes(now), None);
    }
}
