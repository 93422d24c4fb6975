//! How many connections there are at once, and what becomes of those beyond.
//!
//! ```text
//!   accepted ──► a place ───────► all requests
//!      │ all are taken
//!      ├───────► a spare one ───► one request, for health alone; all else 429
//!      │ all are taken
//!      └───────► waits, and behind it what the kernel has accepted
//! ```
//!
//! A connection takes a file, and one more while a blob is sent on it. So there are half as many places
//! as files are left when those are put aside that all else needs: Nix's pipes, layers that are packed,
//! connections to storage. So nothing that clients do can use up the builder's files.
//!
//! Each wait for a stranger has an end: for a request's head, which ends idle connections too
//! ([`HEAD_TIME`]), and for somebody to read an answer ([`STUCK_TIME`]). A body is read at a login alone,
//! which bounds its time. Requests that a client sends ahead wait in a buffer of the size of a head, and
//! are answered one after the other.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// For how long a connection is kept on which no request, or half a request's head, arrives. Envoy has
/// to close idle ones earlier: the shipped configurations say after 20 s.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// The same on a spare place, which is for somebody who asks at once.
const SPARE_HEAD_TIME: Duration = Duration::from_secs(2);
/// For how long an answer may be read by nobody. Longer than the 28 s after which the shipped Envoys
/// give up a client that doesn't read.
const STUCK_TIME: Duration = Duration::from_secs(120);
/// Most bytes of a request's head. Envoy takes 60 KiB of a client, and the policy's rules are 16.
const HEAD_BYTES: usize = 128 << 10;
/// Connections beyond the bound on which health is told.
const SPARE: usize = 16;
/// How often an operator is told that there are too many connections.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    most: usize,
    /// The limit of open files, where it allows fewer than the setting.
    files: Option<u64>,
}

impl Bound {
    /// No more than `setting`, and than can be had with so many open files.
    pub(crate) fn new(setting: usize, files: u64) -> Self {
        /// Files that connections leave to all else: a quarter, within these.
        const LEFT: std::ops::RangeInclusive<u64> = 32..=1024;
        let left = (files / 4).clamp(*LEFT.start(), *LEFT.end());
        let rest = files.saturating_sub(left).saturating_sub(SPARE as u64);
        let most = usize::try_from(rest / 2).unwrap_or(usize::MAX).max(1);
        Self {
            most: most.min(setting),
            files: (most < setting).then_some(files),
        }
    }

    /// What to change to have more.
    fn remedy(&self) -> String {
        match self.files {
            Some(files) => format!(
                "raise its limit of open files, which is {files} (LimitNOFILE= of its unit, or \
                 ulimit -Hn)"
            ),
            None => "raise NIXGATE_MAX_CONNECTIONS".to_owned(),
        }
    }
}

/// The places for connections.
pub(super) struct Places {
    bound: Bound,
    all: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    full: Seldom,
    not_accepted: Seldom,
}

/// A connection's place, until it is dropped.
pub(super) struct Place {
    /// Whether it is for health alone.
    pub(super) is_spare: bool,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(bound: Bound) -> Self {
        if let Some(files) = bound.files {
            tracing::info!(
                "the limit of {files} open files allows {} connections at once, fewer than \
                 NIXGATE_MAX_CONNECTIONS; to have more, raise it",
                bound.most
            );
        }
        Self {
            bound,
            all: Arc::new(Semaphore::new(bound.most.min(Semaphore::MAX_PERMITS))),
            spare: Arc::new(Semaphore::new(SPARE)),
            full: Seldom::default(),
            not_accepted: Seldom::default(),
        }
    }

    /// A place for a connection that was accepted, as soon as there is one.
    pub(super) async fn next(&mut self) -> Place {
        if let Ok(permit) = Arc::clone(&self.all).try_acquire_owned() {
            return Place {
                is_spare: false,
                _permit: permit,
            };
        }
        if let Some(times) = self.full.note(Instant::now()) {
            tracing::warn!(
                "all {} connections are in use, and {times} more have come since this was last \
                 said: beyond them, the builder tells its health alone. Look who holds them; so \
                 that Envoy keeps its requests until there is a connection, set max_connections \
                 of its cluster to no more than this; or {}",
                self.bound.most,
                self.bound.remedy()
            );
        }
        let (is_spare, permit) = tokio::select! {
            biased;
            permit = Arc::clone(&self.all).acquire_owned() => (false, permit),
            permit = Arc::clone(&self.spare).acquire_owned() => (true, permit),
        };
        Place {
            is_spare,
            _permit: permit.expect("nobody closes them"),
        }
    }

    /// Tells of a connection that could not be accepted, and waits: the reason will not pass at once.
    pub(super) async fn not_accepted(&mut self, error: &io::Error) {
        if let Some(times) = self.not_accepted.note(Instant::now()) {
            let errno = Errno::from_io_error(error);
            let remedy = match errno {
                Some(Errno::MFILE) => format!("look what it has open, or {}", self.bound.remedy()),
                Some(Errno::NFILE) => "raise fs.file-max of this machine".to_owned(),
                _ => "it goes on trying".to_owned(),
            };
            tracing::warn!(
                "can't accept a connection, {times} times since this was last said: {error}: \
                 {remedy}"
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How connections are served, on a place and on a spare one.
pub(super) fn servers() -> [http1::Builder; 2] {
    [HEAD_TIME, SPARE_HEAD_TIME].map(|head_time| {
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new());
        server.header_read_timeout(head_time);
        server.max_header_size(HEAD_BYTES);
        server.max_buf_size(HEAD_BYTES);
        server.keep_alive(head_time == HEAD_TIME);
        server
    })
}

/// Ends the connection when its other end reads nothing for a long time, or has lost its power.
pub(super) fn end_when_stuck(stream: &TcpStream) {
    end_when_stuck_for(stream, STUCK_TIME);
}

fn end_when_stuck_for(stream: &TcpStream, time: Duration) {
    let time = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(stream, time) {
        tracing::debug!("a connection is without a limit for who doesn't read: {error}");
    }
}

/// What is told once in [`TELL_EVERY`], with how often it was.
#[derive(Default)]
struct Seldom {
    told: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// How often it was since it was last told, when it is to be told again.
    fn note(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        let told = self.told.map(|told| now.saturating_duration_since(told));
        if told.is_some_and(|ago| ago < TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn connections_leave_files_to_all_else() {
        for (setting, files, most, by_files) in [
            (2048, 256, 88, true),
            (2048, 1024, 376, true),
            (2048, 4096, 1528, true),
            (2048, 1 << 20, 2048, false),
            (2048, u64::MAX, 2048, false),
            (100, 1024, 100, false),
            // Of next to nothing.
            (2048, 40, 1, true),
        ] {
            let bound = Bound::new(setting, files);
            assert_eq!(bound.most, most, "{files}");
            assert_eq!(bound.files.is_some(), by_files, "{files}");
        }
    }

    #[tokio::test]
    async fn beyond_the_bound_are_spare_places_and_then_none() {
        let mut places = Places::new(Bound::new(2, 1 << 20));
        let first = [places.next().await, places.next().await];
        assert!(first.iter().all(|place| !place.is_spare));
        let mut spare = Vec::new();
        for _ in 0..SPARE {
            spare.push(places.next().await);
        }
        assert!(spare.iter().all(|place| place.is_spare));
        let mut waiting = Box::pin(places.next());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        assert!(!waiting.await.is_spare, "those come first");
    }

    #[test]
    fn an_operator_is_told_once_in_a_while_how_often_it_was() {
        let mut seldom = Seldom::default();
        let start = Instant::now();
        let told: Vec<_> = [0, 1, 59, 60, 61, 200]
            .map(|second| seldom.note(start + Duration::from_secs(second)))
            .into();
        assert_eq!(told, [Some(1), None, None, Some(3), None, Some(2)]);
    }

    #[tokio::test]
    async fn who_reads_nothing_is_let_go_of_and_who_reads_slowly_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for reads in [false, true] {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            end_when_stuck_for(&server, Duration::from_millis(1500));
            let reader = std::thread::spawn(move || {
                // More than twice the time, in which something is read now and then.
                for _ in 0..if reads { 8 } else { 0 } {
                    std::thread::sleep(Duration::from_millis(500));
                    let _ = client.read(&mut vec![0; 4 << 20]);
                }
                client
            });
            let kept = tokio::time::timeout(Duration::from_secs(4), async {
                while server.write_all(&[0; 65_536]).await.is_ok() {}
            });
            assert_eq!(kept.await.is_err(), reads);
            drop(server);
            drop(reader.join());
        }
    }
}
