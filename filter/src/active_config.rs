//! What the root and the streams of one configuration share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use nixgate_core::config::Config;
use nixgate_core::distribution::Method;
use nixgate_core::exchange::{Event, RecentReplies, Response};
use nixgate_core::{Seconds, wire};

use crate::host;
use crate::shared_cache::SharedCache;
use crate::telemetry::Telemetry;

/// The host's id of a stream.
pub(crate) type StreamId = u32;

/// Events that streams leave for their root. It is borrowed for one push or one take, never across a host
/// call.
#[derive(Default)]
pub(crate) struct Inbox(RefCell<Vec<Event<StreamId>>>);

impl Inbox {
    pub(crate) fn push(&self, event: Event<StreamId>) {
        self.0.borrow_mut().push(event);
    }

    pub(crate) fn take(&self) -> Vec<Event<StreamId>> {
        self.0.take()
    }
}

/// The configuration in force, or why there is none.
pub(crate) type Active = Result<Rc<ActiveConfig>, Rc<Inactive>>;

/// A filter without a valid configuration.
#[derive(Default)]
pub(crate) struct Inactive {
    /// For clients.
    pub(crate) reason: String,
    pub(crate) telemetry: Telemetry,
}

/// A configuration in force, with its cache and statistics.
pub(crate) struct ActiveConfig {
    pub(crate) config: Config,
    pub(crate) cache: SharedCache,
    pub(crate) telemetry: Telemetry,
    /// Borrowed as the [`Inbox`] is.
    pub(crate) replies: RefCell<RecentReplies>,
    /// The queue that wakes the root.
    pub(crate) queue: u32,
    /// How many seconds the builder's clock is ahead of Envoy's, by the builder's last answer.
    pub(crate) builder_ahead: Cell<i64>,
}

impl ActiveConfig {
    /// Reads the builder's clock off its answer.
    pub(crate) fn read_clock(&self, response: &Response) {
        let time = response.header(wire::TIME);
        if let Some(time) = time.and_then(|time| time.parse::<Seconds>().ok()) {
            let ahead = time.checked_signed_diff(host::now());
            self.builder_ahead.set(ahead.unwrap_or(0));
        }
    }

    /// The signature of a request to the builder, which is sent now.
    pub(crate) fn sign(&self, method: Method, path: &str) -> String {
        let at = host::now().saturating_add_signed(self.builder_ahead.get());
        self.config.signing_key.sign(method.as_str(), path, at)
    }
}

/// Why a delivered configuration is not in force.
pub(crate) struct Refusal {
    /// For the log.
    pub(crate) message: String,
    /// For clients.
    pub(crate) public: String,
}

impl From<host::Error> for Refusal {
    fn from(error: host::Error) -> Self {
        let message = error.to_string();
        Self {
            public: message.clone(),
            message,
        }
    }
}

/// The configuration in these bytes, with the VM's environment.
pub(crate) fn parse(json: &[u8]) -> Result<Config, Refusal> {
    let config = Config::parse(json, |name| std::env::var(name).ok());
    config.map_err(|error| Refusal {
        message: error.to_string(),
        public: error.public().to_owned(),
    })
}
