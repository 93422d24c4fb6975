//! Each worker's answers of the last second, in front of its copies of entries.
//!
//! ```text
//!   question ──► asked in this second? ──yes──► by this caller? ──yes──► the same reply again
//!                      │ no                          │ no
//!                      ▼                             ▼
//!   copies, shared cache (`copies`)          prepared, judged for the caller, replied
//! ```
//!
//! For the entries that a worker has copied ([`Copies`](crate::cache::Copies)), it also keeps the prepared
//! answer to each question and the reply to each caller. The next tick of the worker's timer, at most a
//! second later, drops them.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Prepared, Reply, Request};
use crate::distribution::{MediaType, split_query};

/// Everything that the edge reads of a request, in the client's spelling, except the caller and the
/// conditions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question(String);

impl Question {
    /// The question of a request; none if its answer does not fit others.
    pub fn of(request: &Request<'_>) -> Option<Self> {
        // Without `..`, so that a new field that changes answers is added here.
        let Request {
            method,
            path,
            accept,
            if_none_match: _,
            several_ranges,
            caller: _,
        } = request;
        // Several ranges are rare, and their answer differs.
        if !matches!(*method, "GET" | "HEAD") || *several_ranges {
            return None;
        }
        let media_type = MediaType::negotiate(accept.iter().copied());
        // The query only matters for pages of a list.
        let (route, _) = split_query(path);
        let path = if route.ends_with("/tags/list") {
            path
        } else {
            route
        };
        // No method, media type or path has a space, so different questions have different texts.
        Some(Self([method, media_type.as_str(), path].join(" ")))
    }
}

/// The answers to a question.
struct Asked {
    prepared: Rc<Prepared>,
    /// By [`Caller::key`](super::Caller::key).
    replies: BTreeMap<Vec<u8>, Rc<Reply>>,
}

/// A worker's answers of the last second. Bodies other than pages of lists are shared with the copied
/// entries, which live as long, so they don't count here.
pub struct RecentReplies {
    asked: BTreeMap<Question, Asked>,
    max_bytes: usize,
    bytes: usize,
    /// Whether an answer did not fit since the last tick.
    is_full: bool,
}

impl RecentReplies {
    /// No answers yet, and at most `max_bytes` of them.
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            asked: BTreeMap::new(),
            max_bytes,
            bytes: 0,
            is_full: false,
        }
    }

    /// The reply that this caller got since the last tick, for a request without conditions.
    pub fn get(&self, question: &Question, caller: &[u8]) -> Option<Rc<Reply>> {
        let replies = &self.asked.get(question)?.replies;
        replies.get(caller).map(Rc::clone)
    }

    /// The prepared answer that any caller got since the last tick.
    pub fn prepared(&self, question: &Question) -> Option<Rc<Prepared>> {
        let asked = self.asked.get(question)?;
        Some(Rc::clone(&asked.prepared))
    }

    /// Keeps the prepared answer to a question until the next tick, if there is room.
    pub fn prepare(&mut self, question: &Question, prepared: Rc<Prepared>) {
        let bytes = prepared.bytes_of_its_own();
        if !self.asked.contains_key(question) && self.reserve(question.0.len(), bytes) {
            let asked = Asked {
                prepared,
                replies: BTreeMap::new(),
            };
            self.asked.insert(question.clone(), asked);
        }
    }

    /// Keeps the reply to a caller without conditions until the next tick, if there is room and the question
    /// is prepared.
    pub fn insert(&mut self, question: &Question, caller: Vec<u8>, reply: Rc<Reply>) {
        if self.asked.contains_key(question) && self.reserve(caller.len(), reply.bytes_of_its_own())
        {
            let asked = self.asked.get_mut(question);
            asked.map(|asked| asked.replies.insert(caller, reply));
        }
    }

    /// Whether there may be room for another answer.
    pub const fn has_room(&self) -> bool {
        !self.is_full
    }

    /// Reserves bytes; false without room.
    const fn reserve(&mut self, key: usize, value: usize) -> bool {
        let total = self.bytes.saturating_add(key).saturating_add(value);
        if total > self.max_bytes {
            self.is_full = true;
            return false;
        }
        self.bytes = total;
        true
    }

    /// Ends a second.
    pub fn tick(&mut self) {
        self.asked.clear();
        self.bytes = 0;
        self.is_full = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Begin, Caller, Exchange, Next};
    use super::*;
    use crate::Seconds;
    use crate::cache::{Content, Entry};
    use crate::config::Config;

    fn request<'a>(method: &'a str, path: &'a str, accept: &'a str, by: &'a Caller) -> Request<'a> {
        Request {
            method,
            path,
            accept: vec![accept],
            if_none_match: Vec::new(),
            several_ranges: false,
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
        // What is not read changes nothing.
        let manifest = ask("GET", "/v2/git/manifests/latest", oci);
        assert_eq!(manifest, ask("GET", "/v2/git/manifests/latest?n=1", oci));
        assert_eq!(ask("PUT", "/v2/git/tags/list", "*/*"), None);
        let caller = Caller::default();
        let several = Request {
            several_ranges: true,
            ..request("GET", "/v2/git/tags/list", "*/*", &caller)
        };
        assert_eq!(Question::of(&several), None);
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
        let prepared = exchange.prepare(&config, &redirect()).unwrap();
        let Next::Reply(reply) = exchange.looked_up(&config, Some(redirect()), NOW) else {
            panic!("the cache has it");
        };
        let question = Question::of(&request).unwrap();
        (question, Rc::new(prepared), Rc::new(reply))
    }

    #[test]
    fn answers_are_of_one_caller_and_last_until_the_next_tick() {
        let mut replies = RecentReplies::new(10_000);
        let (question, prepared, reply) = asked("/v2/git/manifests/latest");
        let (other, ..) = asked("/v2/htop/manifests/latest");
        replies.insert(&question, b"alice".to_vec(), Rc::clone(&reply));
        assert_eq!(replies.get(&question, b"alice"), None, "it is not prepared");
        replies.prepare(&question, Rc::clone(&prepared));
        replies.insert(&question, b"alice".to_vec(), Rc::clone(&reply));
        assert_eq!(replies.get(&question, b"alice"), Some(Rc::clone(&reply)));
        assert_eq!(replies.get(&question, b"bob"), None);
        assert_eq!(replies.get(&other, b"alice"), None);
        assert!(replies.prepared(&question).is_some());
        assert!(replies.prepared(&other).is_none());
        replies.tick();
        assert_eq!(replies.get(&question, b"alice"), None);
        assert!(replies.prepared(&question).is_none());
        assert_eq!(replies.bytes, 0);
    }

    #[test]
    fn answers_keep_their_bound() {
        let (question, prepared, reply) = asked("/v2/git/manifests/latest");
        let one = question.0.len() + prepared.bytes_of_its_own();
        let mut replies = RecentReplies::new(one + 2 * (1 + reply.bytes_of_its_own()));
        // What is there already takes no more room.
        for _ in 0..3 {
            replies.prepare(&question, Rc::clone(&prepared));
        }
        for caller in [b"a", b"b", b"c"] {
            replies.insert(&question, caller.to_vec(), Rc::clone(&reply));
        }
        let has = [b"a", b"b", b"c"].map(|caller| replies.get(&question, caller).is_some());
        assert_eq!(has, [true, true, false]);
        let (other, prepared, _) = asked("/v2/htop/manifests/latest");
        replies.prepare(&other, prepared);
        assert!(replies.prepared(&other).is_none());
        assert!(!replies.has_room());
        replies.tick();
        assert!(replies.has_room());
    }

    const NOW: Seconds = 1000;

    /// An entry that lives long enough.
    fn redirect() -> Entry {
        Entry {
            learnt: 0,
            expires: NOW + 100,
            content: Content::Redirect {
                location: "https://s3".to_owned(),
            },
            facts: String::new(),
        }
    }
}
