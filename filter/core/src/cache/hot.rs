//! Each worker's own copies of the answers that it gives most, in front of the cache that all share.
//!
//! ```text
//!   request ──► question ──► copy of this second? ──yes──► the reply, as it is
//!                                  │ no
//!                                  ▼
//!               key ──► shared cache ──► is it unchanged, or sound? ──► copy, reply
//! ```
//!
//! Reading a slot means two calls of the host, a copy of the manifest, and finding out under which
//! key it is: together more than Envoy needs for the rest of the request. A copy is found by what
//! the client wrote, and replied as it is.
//!
//! The shared entry may be replaced meanwhile, so a copy is used until the next tick of the
//! worker's timer, a second at most, and then compared with the shared one again. Nobody looks at
//! a clock for it: an entry whose time could be over by the next tick is not copied at all.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Content, Entry};
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

struct Copy<A> {
    answer: Rc<A>,
    /// Of the shared entry: another number is another entry.
    version: u32,
    bytes: usize,
    /// The tick at which it was last compared with the shared entry.
    compared: u64,
}

/// A worker's copies.
pub struct Hot<A> {
    copies: BTreeMap<Question, Copy<A>>,
    max_bytes: usize,
    bytes: usize,
    ticks: u64,
}

impl<A> Hot<A> {
    /// No copies yet, and never more than `max_bytes` of them.
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            copies: BTreeMap::new(),
            max_bytes,
            bytes: 0,
            ticks: 0,
        }
    }

    /// The answer to a question, if it was looked up since the last tick.
    pub fn get(&self, question: &Question) -> Option<Rc<A>> {
        let copy = self.copies.get(question)?;
        (copy.compared == self.ticks).then(|| Rc::clone(&copy.answer))
    }

    /// Whether the copy, however old, is of this version of the shared entry.
    pub fn is_of(&self, question: &Question, version: u32) -> bool {
        let copy = self.copies.get(question);
        copy.is_some_and(|copy| copy.version == version)
    }

    /// Keeps the answer that an entry of `bytes` bytes gave, until the next tick. Copies that were
    /// not used since the last tick make room for it; without room it is not kept.
    pub fn insert(&mut self, question: Question, answer: Rc<A>, version: u32, bytes: usize) {
        self.remove(&question);
        let bytes = bytes.saturating_add(question.0.len());
        if self.bytes.saturating_add(bytes) > self.max_bytes {
            let ticks = self.ticks;
            self.copies.retain(|_, copy| copy.compared == ticks);
            self.bytes = self.copies.values().map(|copy| copy.bytes).sum();
        }
        let total = self.bytes.saturating_add(bytes);
        if total > self.max_bytes {
            return;
        }
        self.bytes = total;
        let copy = Copy {
            answer,
            version,
            bytes,
            compared: self.ticks,
        };
        self.copies.insert(question, copy);
    }

    fn remove(&mut self, question: &Question) {
        if let Some(copy) = self.copies.remove(question) {
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
    pub fn copied_bytes(&self, now: Seconds) -> Option<usize> {
        if self.expires <= now.saturating_add(LONGEST_USE) {
            return None;
        }
        match &self.content {
            Content::Document { body, .. } => Some(body.len()),
            Content::Redirect { location } => Some(location.len()),
            Content::Stream | Content::Refusal { .. } => None,
        }
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
    fn a_copy_is_used_until_the_next_tick_and_compared_after_it() {
        let mut hot = Hot::new(1000);
        let git = question("/git");
        assert_eq!(hot.get(&git), None);
        hot.insert(git.clone(), Rc::new("one"), 7, 3);
        assert_eq!(hot.get(&git).as_deref(), Some(&"one"));
        hot.tick();
        assert_eq!(hot.get(&git), None);
        assert!(hot.is_of(&git, 7) && !hot.is_of(&git, 8));
        hot.insert(git.clone(), Rc::new("two"), 8, 3);
        assert_eq!(hot.get(&git).as_deref(), Some(&"two"));
    }

    #[test]
    fn copies_keep_their_bound_and_the_unused_make_room() {
        let mut hot = Hot::new(300);
        let ask = |number: usize| question(&format!("/{number}"));
        let room = |question: &Question| 100 - question.0.len();
        for number in 0..4 {
            hot.insert(ask(number), Rc::new(number), 1, room(&ask(number)));
        }
        assert_eq!(hot.get(&ask(2)).as_deref(), Some(&2));
        assert_eq!(hot.get(&ask(3)), None, "three are all that fit");
        hot.tick();
        hot.insert(ask(1), Rc::new(1), 1, room(&ask(1)));
        hot.insert(ask(4), Rc::new(4), 1, room(&ask(4)));
        assert_eq!(hot.get(&ask(1)).as_deref(), Some(&1));
        assert_eq!(hot.get(&ask(4)).as_deref(), Some(&4));
        assert_eq!((hot.copies.len(), hot.bytes), (2, 200));
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
    }
}
