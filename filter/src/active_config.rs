//! What the root and the streams of one configuration share.

use std::cell::RefCell;

use nixgate_core::config::Config;
use nixgate_core::exchange::{Event, RecentReplies};

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

/// A configuration in force, with its cache and statistics.
pub(crate) struct ActiveConfig {
    pub(crate) config: Config,
    pub(crate) cache: SharedCache,
    pub(crate) telemetry: Telemetry,
    /// Borrowed as the [`Inbox`] is.
    pub(crate) replies: RefCell<RecentReplies>,
    /// The queue that wakes the root.
    pub(crate) queue: u32,
}
