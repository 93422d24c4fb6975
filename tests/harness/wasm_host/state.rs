//! What the host remembers: of the world, of each VM, of each stream.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// Headers as they are on the wire: a value may be any bytes.
pub type Headers = Vec<(String, Vec<u8>)>;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// As the ABI numbers levels: 2 is info, 5 critical.
    pub level: u32,
    /// What was said.
    pub message: String,
}

/// A local reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u32,
    /// All headers.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first header of that name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
}

/// What has become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits.
    Paused,
    /// It went on, with these headers.
    Continued(Headers),
    /// The filter answered it.
    Replied(Reply),
}

/// A request that the filter sent.
#[derive(Clone, Debug)]
pub struct Callout {
    pub(super) vm: usize,
    pub(super) context: u32,
    pub(super) token: u32,
    /// To which cluster.
    pub cluster: String,
    /// With which headers.
    pub headers: Headers,
    /// After how many milliseconds the host gives up.
    pub timeout_ms: u32,
}

impl Callout {
    /// The first header of that name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
}

/// The response to a callout.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// All headers, `:status` among them; none when the connection broke.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

fn first<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().find(|(header, _)| header == name)?;
    std::str::from_utf8(value).ok()
}

struct Queue {
    name: Vec<u8>,
    vm: usize,
    root: u32,
    messages: VecDeque<Vec<u8>>,
}

/// What all VMs share.
pub(super) struct World {
    /// Seconds since the epoch.
    pub(super) now: u64,
    /// Roots to be woken: VM, context, queue.
    pub(super) wakes: VecDeque<(usize, u32, u32)>,
    data: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_cas: u32,
    queues: Vec<Queue>,
    random: u8,
}

impl World {
    pub(super) const fn new(now: u64) -> Self {
        Self {
            now,
            wakes: VecDeque::new(),
            data: BTreeMap::new(),
            last_cas: 0,
            queues: Vec::new(),
            random: 0,
        }
    }

    pub(super) fn shared_bytes(&self) -> usize {
        self.data.values().map(|(value, _)| value.len()).sum()
    }

    pub(super) fn shared_data(&self, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        self.data.get(key).cloned()
    }

    /// Whether the value was set.
    pub(super) fn set_shared_data(&mut self, key: Vec<u8>, value: Vec<u8>, cas: u32) -> bool {
        if let Some((_, current)) = self.data.get(&key)
            && cas != 0
            && cas != *current
        {
            return false;
        }
        self.last_cas += 1;
        self.data.insert(key, (value, self.last_cas));
        true
    }

    /// Registers a queue, or takes over the one of that name, as Envoy has it.
    pub(super) fn register_queue(&mut self, name: Vec<u8>, vm: usize, root: u32) -> u32 {
        let known = self.queues.iter().position(|queue| queue.name == name);
        let number = known.unwrap_or(self.queues.len());
        let queue = Queue {
            name,
            vm,
            root,
            messages: VecDeque::new(),
        };
        match known {
            Some(number) => self.queues[number] = queue,
            None => self.queues.push(queue),
        }
        u32::try_from(number + 1).expect("a few queues")
    }

    fn queue(&mut self, number: u32) -> Option<&mut Queue> {
        self.queues
            .get_mut(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Whether there is such a queue.
    pub(super) fn enqueue(&mut self, number: u32, message: Vec<u8>) -> bool {
        let Some(queue) = self.queue(number) else {
            return false;
        };
        queue.messages.push_back(message);
        let wake = (queue.vm, queue.root, number);
        self.wakes.push_back(wake);
        true
    }

    /// None for a queue that does not exist, `Some(None)` for an empty one.
    pub(super) fn dequeue(&mut self, number: u32) -> Option<Option<Vec<u8>>> {
        Some(self.queue(number)?.messages.pop_front())
    }

    pub(super) fn spoil(&mut self, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len(), "the rest stays in its place");
        for (value, cas) in self.data.values_mut() {
            while let Some(start) = value.windows(from.len()).position(|part| part == from) {
                value[start..start + to.len()].copy_from_slice(to);
                self.last_cas += 1;
                *cas = self.last_cas;
            }
        }
    }

    /// Bytes that differ each time, and are the same in each run.
    pub(super) fn random(&mut self, size: usize) -> Vec<u8> {
        self.random += 1;
        vec![self.random; size]
    }
}

struct StreamState {
    headers: Headers,
    properties: BTreeMap<String, String>,
    outcome: Outcome,
}

/// What one VM's host calls read and write.
pub(super) struct State {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) vm: usize,
    pub(super) environment: Vec<(String, String)>,
    /// What is known of every stream, by paths whose parts have zero bytes between them.
    pub(super) attributes: BTreeMap<String, Vec<u8>>,
    /// The contexts that exist, roots and streams.
    pub(super) contexts: BTreeSet<u32>,
    /// Of which context host calls speak.
    pub(super) effective: u32,
    pub(super) configuration: Vec<u8>,
    /// The callout's response, while it is handed over.
    pub(super) response: Option<Response>,
    /// Callouts that the test has not seen yet.
    pub(super) sent: Vec<Callout>,
    /// Tokens of callouts without a response.
    pub(super) open: BTreeSet<u32>,
    pub(super) last_token: u32,
    pub(super) refuse_callouts: Option<u32>,
    pub(super) refuse_messages: bool,
    pub(super) refuse_upstream: bool,
    /// Streams that were answered or go on, which the host has not carried out yet.
    pub(super) actions: VecDeque<u32>,
    /// Streams that were answered, in this order.
    pub(super) answered: Vec<u32>,
    /// How many of them are being carried out, each within the one before.
    pub(super) nested: usize,
    pub(super) withhold_bodies: bool,
    /// Contexts that want to be called each second; the period is not looked at.
    pub(super) ticking: BTreeSet<u32>,
    pub(super) log: Vec<LogLine>,
    /// Metrics by name, with what was added to each.
    metrics: Vec<(String, Vec<u64>)>,
    /// Names of the functions that were called.
    pub(super) host_calls: Vec<&'static str>,
    streams: BTreeMap<u32, StreamState>,
}

impl State {
    pub(super) fn new(
        world: Rc<RefCell<World>>,
        vm: usize,
        environment: &[(String, String)],
    ) -> Self {
        Self {
            world,
            vm,
            environment: environment.to_vec(),
            attributes: BTreeMap::new(),
            contexts: BTreeSet::new(),
            effective: 0,
            configuration: Vec::new(),
            response: None,
            sent: Vec::new(),
            open: BTreeSet::new(),
            last_token: 0,
            refuse_callouts: None,
            refuse_messages: false,
            refuse_upstream: false,
            actions: VecDeque::new(),
            answered: Vec::new(),
            nested: 0,
            withhold_bodies: false,
            ticking: BTreeSet::new(),
            log: Vec::new(),
            metrics: Vec::new(),
            host_calls: Vec::new(),
            streams: BTreeMap::new(),
        }
    }

    pub(super) fn begin_stream(&mut self, context: u32, headers: Headers) {
        let outcome = Outcome::Paused;
        let state = StreamState {
            headers,
            properties: BTreeMap::new(),
            outcome,
        };
        self.streams.insert(context, state);
    }

    /// Whether there is such a stream.
    pub(super) fn set_property(&mut self, path: String, value: String) -> bool {
        let stream = self.streams.get_mut(&self.effective);
        stream.is_some_and(|stream| {
            stream.properties.insert(path, value);
            true
        })
    }

    pub(super) fn property(&self, context: u32, path: &str) -> Option<String> {
        self.streams[&context].properties.get(path).cloned()
    }

    /// The number of a new metric, or of the one with that name.
    pub(super) fn define_metric(&mut self, name: String) -> u32 {
        let known = self.metrics.iter().position(|(metric, _)| *metric == name);
        let index = known.unwrap_or_else(|| {
            self.metrics.push((name, Vec::new()));
            self.metrics.len() - 1
        });
        u32::try_from(index).expect("a few metrics")
    }

    /// Whether there is such a metric.
    pub(super) fn record_metric(&mut self, number: u32, value: u64) -> bool {
        let metric = self.metrics.get_mut(number as usize);
        metric.is_some_and(|(_, values)| {
            values.push(value);
            true
        })
    }

    pub(super) fn metric(&self, name: &str) -> Vec<u64> {
        let found = self.metrics.iter().find(|(metric, _)| metric == name);
        found.map_or_else(Vec::new, |(_, values)| values.clone())
    }

    pub(super) fn after_headers(&mut self, context: u32, action: u32) {
        const CONTINUE: u32 = 0;
        if action == CONTINUE {
            self.continue_stream(context);
        }
    }

    /// Whether there is such a stream, and it is paused.
    pub(super) fn continue_stream(&mut self, context: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&context) else {
            return false;
        };
        let paused = stream.outcome == Outcome::Paused;
        assert!(
            paused,
            "a request that goes on was answered or went on before"
        );
        stream.outcome = Outcome::Continued(stream.headers.clone());
        true
    }

    /// Whether there is such a stream, and it has no reply yet.
    pub(super) fn reply(&mut self, context: u32, reply: Reply) -> bool {
        match self.streams.get_mut(&context) {
            Some(stream) if stream.outcome == Outcome::Paused => {
                stream.outcome = Outcome::Replied(reply);
                self.actions.push_back(context);
                self.answered.push(context);
                true
            }
            _ => false,
        }
    }

    pub(super) fn request_headers(&mut self) -> Option<&mut Headers> {
        let stream = self.streams.get_mut(&self.effective)?;
        Some(&mut stream.headers)
    }

    pub(super) fn outcome(&self, context: u32) -> Outcome {
        self.streams[&context].outcome.clone()
    }
}
