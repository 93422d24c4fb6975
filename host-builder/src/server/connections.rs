//! The listener: how many connections there are at once, and what happens to more.
//!
//! ```text
//!   accepted ──► a slot ────────► all requests
//!      │ none is free
//!      ├───────► a spare slot ──► one request, only for health; 429 for all others
//!      │ none is free
//!      └───────► waits, and behind it the kernel's queue
//! ```
//!
//! A connection takes a file, and one more while a blob is sent on it. Nix's pipes, layers that are packed
//! and connections to storage need files as well. So a quarter of the open files is set aside for these,
//! there is a slot for every two of the rest, and clients can't use up the builder's files.
//!
//! Both HTTP/1.1 and HTTP/2 with prior knowledge are spoken on the one port: the first bytes tell which. Over
//! HTTP/2, each request beside the first on its connection takes a slot as well (`http2.rs`).
//!
//! Every wait for a client has a timeout: [`HEAD_TIMEOUT`] for the head of a request and for an idle
//! connection, [`UNREAD_TIMEOUT`] for a client that does not read. Only a login reads a body, and has its own
//! timeout. Pipelined requests wait in a buffer of the size of a head, and are answered in order.
//!
//! `axum::serve` has none of these limits, so `hyper` serves the connections.

mod http2;

use std::io::{self, Cursor};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::util::MapResponse;

use crate::telemetry::logging::chain;

/// How long a connection may have no complete request head. Envoy has to close idle connections earlier:
/// the shipped configurations do so after 20 s.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a spare slot, which is for clients that send their request at once.
const SPARE_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client may read nothing of a response. Longer than the 28 s after which the shipped Envoys
/// drop a client that does not read.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest request head, in bytes. Envoy accepts 60 KiB from a client, and the policy's rules take up to
/// 16 KiB.
const HEAD_BYTES: usize = 128 << 10;
const SPARE_SLOTS: usize = 16;
/// How long open requests may go on during a shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two log lines about the same problem.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The first bytes of HTTP/2 with prior knowledge (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves connections until `stop` is done, then waits for open requests. Connections on spare slots get the
/// second router.
pub(super) async fn serve(
    listener: TcpListener,
    limit: ConnectionLimit,
    routers: [Router; 2],
    stop: impl Future<Output = ()>,
) {
    let services = routers.map(|router| MapResponse::new(router, without_needless_length as _));
    let slots = Arc::new(Slots::new(limit));
    // Each connection has a receiver, so that the sender knows when the last one has ended.
    let (stopping, _) = watch::channel(());
    let next = async || loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slots.acquire().await),
            Err(error) => slots.accept_failed(&error).await,
        }
    };
    let mut stop = pin!(stop);
    loop {
        let (stream, slot) = tokio::select! {
            next = next() => next,
            () = &mut stop => break,
        };
        end_when_unread(&stream, UNREAD_TIMEOUT);
        let connection = Connection {
            is_spare: slot.is_spare,
            slots: Arc::clone(&slots),
            services: services.clone(),
            stopping: stopping.subscribe(),
        };
        tokio::spawn(async move {
            if let Err(error) = connection.serve(stream).await {
                tracing::debug!(error = chain(&*error), "a connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    stopping.send_replace(());
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, stopping.closed()).await;
}

/// A router, whose responses HTTP allows.
type Service = MapResponse<Router, fn(Response) -> Response>;

/// What a connection is served with.
struct Connection {
    /// Whether it is only for health.
    is_spare: bool,
    slots: Arc<Slots>,
    /// For all requests, and only for health.
    services: [Service; 2],
    /// Changes when the builder stops.
    stopping: watch::Receiver<()>,
}

impl Connection {
    async fn serve(
        mut self,
        mut stream: TcpStream,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let head_timeout = match self.is_spare {
            false => HEAD_TIMEOUT,
            true => SPARE_HEAD_TIMEOUT,
        };
        let beginning = tokio::select! {
            beginning = tokio::time::timeout(head_timeout, Beginning::read(&mut stream)) => beginning??,
            _ = self.stopping.changed() => return Ok(()),
        };
        if beginning.is_http2() {
            // Frames of several requests share the connection, and none waits for another's.
            stream.set_nodelay(true)?;
        }
        let (read, write) = stream.into_split();
        let is_http2 = beginning.is_http2();
        let read = Cursor::new(beginning.0).chain(read);
        let io = TokioIo::new(tokio::io::join(read, write));
        if is_http2 {
            return Ok(http2::serve(io, self, head_timeout, UNREAD_TIMEOUT).await?);
        }
        let [all, health] = self.services;
        let service = if self.is_spare { health } else { all };
        let mut server = http1_server(head_timeout);
        server.keep_alive(!self.is_spare);
        let mut connection = pin!(server.serve_connection(io, TowerToHyperService::new(service)));
        tokio::select! {
            result = &mut connection => return Ok(result?),
            _ = self.stopping.changed() => {}
        }
        connection.as_mut().graceful_shutdown();
        Ok(connection.await?)
    }
}

/// The first bytes of a connection, up to where they tell the version of HTTP.
struct Beginning(Vec<u8>);

impl Beginning {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(HTTP2_PREFACE.len());
        let mut rest = stream.take(HTTP2_PREFACE.len() as u64);
        while HTTP2_PREFACE.starts_with(&bytes) && rest.read_buf(&mut bytes).await? > 0 {}
        Ok(Self(bytes))
    }

    fn is_http2(&self) -> bool {
        self.0 == HTTP2_PREFACE
    }
}

fn http1_server(head_timeout: Duration) -> http1::Builder {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    server.header_read_timeout(head_timeout);
    server.max_header_size(HEAD_BYTES);
    server.max_buf_size(HEAD_BYTES);
    server
}

/// axum sets `Content-Length: 0` on a response without a body. With these statuses, RFC 9110, 8.6
/// forbids it.
fn without_needless_length(mut response: Response) -> Response {
    if let StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED = response.status() {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

/// Ends the connection when its other end reads nothing for this long, or has vanished.
fn end_when_unread(stream: &TcpStream, timeout: Duration) {
    let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(stream, milliseconds) {
        tracing::debug!("can't limit how long a client may read nothing: {error}");
    }
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionLimit {
    max: usize,
    /// The limit of open files, when it allows fewer connections than the setting.
    files: Option<u64>,
}

impl ConnectionLimit {
    /// The setting, or what a limit of open files allows.
    pub(crate) fn new(setting: usize, files: u64) -> Self {
        let set_aside = (files / 4).clamp(32, 1024) + SPARE_SLOTS as u64;
        let max = usize::try_from(files.saturating_sub(set_aside) / 2).unwrap_or(usize::MAX);
        let max = max.max(1);
        Self {
            max: max.min(setting),
            files: (max < setting).then_some(files),
        }
    }

    /// What to do to have more.
    fn advice(&self) -> String {
        match self.files {
            Some(files) => format!(
                "raise its limit of open files, which is {files} (LimitNOFILE= of its unit, or \
                 ulimit -Hn)"
            ),
            None => "raise NIXGATE_MAX_CONNECTIONS".to_owned(),
        }
    }
}

struct Slots {
    limit: ConnectionLimit,
    regular: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    full: Mutex<LogThrottle>,
    accept_errors: Mutex<LogThrottle>,
}

/// A connection's slot, until it is dropped.
struct Slot {
    /// Whether it is only for health.
    is_spare: bool,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    fn new(limit: ConnectionLimit) -> Self {
        if let Some(files) = limit.files {
            tracing::info!(
                "the limit of {files} open files allows {} connections at once, fewer than \
                 NIXGATE_MAX_CONNECTIONS. Raise it to have more",
                limit.max
            );
        }
        Self {
            limit,
            regular: Arc::new(Semaphore::new(limit.max.min(Semaphore::MAX_PERMITS))),
            spare: Arc::new(Semaphore::new(SPARE_SLOTS)),
            full: Mutex::default(),
            accept_errors: Mutex::default(),
        }
    }

    /// Waits for a slot for an accepted connection.
    async fn acquire(&self) -> Slot {
        if let Some(permit) = self.try_acquire() {
            return Slot {
                is_spare: false,
                _permit: permit,
            };
        }
        let (is_spare, permit) = tokio::select! {
            biased;
            permit = Arc::clone(&self.regular).acquire_owned() => (false, permit),
            permit = Arc::clone(&self.spare).acquire_owned() => (true, permit),
        };
        Slot {
            is_spare,
            _permit: permit.expect("the semaphores are never closed"),
        }
    }

    /// A regular slot, if one is free. Logs that none is.
    fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.regular).try_acquire_owned() {
            return Some(permit);
        }
        let times = self.full.lock().count(Instant::now());
        if let Some(times) = times {
            let max = self.limit.max;
            tracing::warn!(
                "all {max} connections are in use (a request over HTTP/2 counts as one), and {times} \
                 more came since this was last logged: they get only /healthz, /readyz and /metrics. Find \
                 out which clients hold the connections. Set max_connections of Envoy's cluster to at most {max}, so that Envoy \
                 holds requests until a connection is free; or give the builder more: {}",
                self.limit.advice()
            );
        }
        None
    }

    /// Logs an error of `accept`, and waits, because its cause lasts for a while.
    async fn accept_failed(&self, error: &io::Error) {
        let times = self.accept_errors.lock().count(Instant::now());
        if let Some(times) = times {
            let advice = match Errno::from_io_error(error) {
                Some(Errno::MFILE) => format!("Look at its open files, or {}", self.limit.advice()),
                Some(Errno::NFILE) => "Raise fs.file-max of this machine".to_owned(),
                _ => "It tries again".to_owned(),
            };
            tracing::warn!(
                "the builder can't accept a connection, {times} times since this was last logged: \
                 {error}. {advice}"
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Lets a message through once in [`LOG_INTERVAL`].
#[derive(Default)]
struct LogThrottle {
    last: Option<Instant>,
    times: u64,
}

impl LogThrottle {
    /// Counts an event. Returns the number of events since the last message when a message is due.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        let age = self.last.map(|last| now.saturating_duration_since(last));
        if age.is_some_and(|age| age < LOG_INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use axum::body::Body;
    use axum::routing::any;
    use http::Request;
    use tokio::io::AsyncWriteExt;
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        for (setting, files, max, by_files) in [
            (2048, 256, 88, true),
            (2048, 1024, 376, true),
            (2048, 4096, 1528, true),
            (2048, 1 << 20, 2048, false),
            (2048, u64::MAX, 2048, false),
            (100, 1024, 100, false),
            // Hardly any files.
            (2048, 40, 1, true),
        ] {
            let limit = ConnectionLimit::new(setting, files);
            assert_eq!(limit.max, max, "{files}");
            assert_eq!(limit.files.is_some(), by_files, "{files}");
        }
    }

    #[tokio::test]
    async fn the_first_bytes_tell_the_version_of_http_however_they_arrive() {
        for (sent, is_http2) in [
            (HTTP2_PREFACE, true),
            (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", false),
            (b"PRI * HTTP/1.1\r\nhost: x\r\n\r\n", false),
            (b"PRI", false),
            (b"", false),
        ] {
            for at_once in [1, 5, 100] {
                let (mut client, mut server) = tokio::io::duplex(at_once);
                let writes = async {
                    let _ = client.write_all(sent).await;
                    drop(client);
                };
                let reads = async {
                    let beginning = Beginning::read(&mut server).await.unwrap();
                    let mut rest = Vec::new();
                    server.read_to_end(&mut rest).await.unwrap();
                    (beginning.is_http2(), [beginning.0, rest].concat())
                };
                let ((), read) = tokio::join!(writes, reads);
                assert_eq!(read, (is_http2, sent.to_vec()));
            }
        }
    }

    #[tokio::test]
    async fn beyond_the_limit_are_spare_slots_and_then_none() {
        let slots = Slots::new(ConnectionLimit::new(2, 1 << 20));
        let first = [slots.acquire().await, slots.acquire().await];
        assert!(first.iter().all(|slot| !slot.is_spare));
        let mut spare = Vec::new();
        for _ in 0..SPARE_SLOTS {
            spare.push(slots.acquire().await);
        }
        assert!(spare.iter().all(|slot| slot.is_spare));
        let mut waiting = Box::pin(slots.acquire());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        assert!(!waiting.await.is_spare, "regular slots come first");
    }

    #[test]
    fn a_repeated_message_is_logged_once_a_minute_with_its_count() {
        let mut throttle = LogThrottle::default();
        let start = Instant::now();
        let logged: Vec<_> = [0, 1, 59, 60, 61, 200]
            .map(|second| throttle.count(start + Duration::from_secs(second)))
            .into();
        assert_eq!(logged, [Some(1), None, None, Some(3), None, Some(2)]);
    }

    #[tokio::test]
    async fn a_response_to_head_has_the_length_of_the_body_only_where_http_allows_it() {
        let router = Router::new()
            .route("/known", any(async || StatusCode::NOT_MODIFIED))
            .route("/content", any(async || "content"));
        let service = MapResponse::new(router, without_needless_length);
        for (path, length) in [("/known", None), ("/content", Some("7"))] {
            let request = Request::head(path).body(Body::empty()).unwrap();
            let response = service.clone().oneshot(request).await.unwrap();
            let seen = response.headers().get(CONTENT_LENGTH);
            assert_eq!(seen.map(|seen| seen.to_str().unwrap()), length, "{path}");
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_dropped_and_one_that_reads_slowly_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for reads in [false, true] {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            end_when_unread(&server, Duration::from_millis(1500));
            let reader = std::thread::spawn(move || {
                // More than twice the time, reading now and then.
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
