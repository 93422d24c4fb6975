//! A connection over HTTP/2, with the limits of one over HTTP/1.1.
//!
//! | limit | HTTP/1.1 | HTTP/2 |
//! | --- | --- | --- |
//! | requests at once | one for each connection | a slot for each beside the first; without one, only health and `429` |
//! | no request, or half a head | [`HEAD_TIMEOUT`](super::HEAD_TIMEOUT) | the same, then the connection ends gracefully |
//! | a client that reads nothing | [`UNREAD_TIMEOUT`](super::UNREAD_TIMEOUT) for its connection | the same for the request: other requests on the connection go on |
//! | a client that has vanished | the same | [`PING_INTERVAL`] and [`PING_TIMEOUT`] |
//! | the longest head | [`HEAD_BYTES`] | the same for the decoded headers, then `431` |
//! | requests that are reset | | [`RESETS`], [`ERRORS`] |
//!
//! hyper spawns a task for each request. The executor here wraps it: so it counts the requests, and can end
//! one alone.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::{Executor, Read, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tower::ServiceExt;

use super::{Connection, HEAD_BYTES, SHUTDOWN_TIMEOUT, Slots};

/// The most requests at once on a connection. By default, Envoy from 1.36 on sends as many before it knows
/// this number; with a smaller one, some would be refused, and fail.
const STREAMS: u32 = 1024;
/// The most bytes of a request's body that wait to be read, and of all bodies of a connection. Only a login
/// has a body, of at most 64 KiB.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// The most bytes in a frame from the client: the smallest that HTTP/2 allows.
const FRAME_BYTES: u32 = 16 << 10;
/// How many bytes of a response are handed to a client that does not take them, and one piece of a blob.
const SEND_BYTES: usize = 64 << 10;
/// A connection ends when the client resets more requests than this before the builder has seen them
/// ("rapid reset", CVE-2023-44487). A request that it has seen is dropped with its reset, and had its slot.
const RESETS: usize = 20;
/// A connection ends after so many requests that break the protocol.
const ERRORS: usize = 1024;
/// The time between two pings, by which a client that has vanished is noticed, and the time to answer one.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

tokio::task_local! {
    /// The stream of a task that answers a request.
    static STREAM: Arc<Stream>;
}

/// Serves a connection whose first bytes are those of HTTP/2.
pub(super) async fn serve(
    io: impl Read + Write + Unpin,
    connection: Connection,
    idle_timeout: Duration,
    unread_timeout: Duration,
) -> hyper::Result<()> {
    let Connection {
        is_spare,
        slots,
        services: [all, health],
        mut stopping,
    } = connection;
    let streams = Streams {
        slots: (!is_spare).then_some(slots),
        counts: watch::Sender::default(),
        unread_timeout,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let (all, health) = (all.clone(), health.clone());
        async move {
            let stream = STREAM.get();
            let service = if stream.is_for_all { all } else { health };
            let response = service.oneshot(request.map(Body::new)).await?;
            Ok::<_, Infallible>(response.map(|body| Watched { body, stream }))
        }
    });
    let server = server(streams.clone());
    let mut connection = pin!(server.serve_connection(io, service));
    tokio::select! {
        result = &mut connection => return result,
        () = streams.idle(idle_timeout) => {}
        // A spare slot is for one request.
        () = streams.answered_one(), if is_spare => {}
        _ = stopping.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    // A request that crossed the notice of the shutdown is still answered.
    tokio::select! {
        result = &mut connection => result,
        () = streams.idle(SHUTDOWN_TIMEOUT) => Ok(()),
    }
}

fn server(streams: Streams) -> http2::Builder<Streams> {
    let mut server = http2::Builder::new(streams);
    server.timer(TokioTimer::new());
    server.max_concurrent_streams(STREAMS);
    server.initial_stream_window_size(STREAM_WINDOW);
    server.initial_connection_window_size(CONNECTION_WINDOW);
    server.max_frame_size(FRAME_BYTES);
    server.max_send_buf_size(SEND_BYTES);
    server.max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX));
    server.max_pending_accept_reset_streams(RESETS);
    server.max_local_error_reset_streams(ERRORS);
    server.keep_alive_interval(PING_INTERVAL);
    server.keep_alive_timeout(PING_TIMEOUT);
    server
}

/// The requests of a connection.
#[derive(Clone)]
struct Streams {
    /// None on a spare slot.
    slots: Option<Arc<Slots>>,
    counts: watch::Sender<Counts>,
    unread_timeout: Duration,
}

#[derive(Default)]
struct Counts {
    /// How many are being answered.
    open: usize,
    /// How many there were, to notice one that was short.
    all: u64,
}

impl Streams {
    fn open(&self) -> Stream {
        let mut is_first = false;
        self.counts.send_modify(|counts| {
            is_first = counts.open == 0;
            counts.open += 1;
            counts.all += 1;
        });
        let slots = self.slots.as_ref();
        let slot = slots.filter(|_| !is_first).map(|slots| slots.try_acquire());
        Stream {
            is_for_all: self.slots.is_some() && !matches!(slot, Some(None)),
            _slot: slot.flatten(),
            counts: self.counts.clone(),
            unread_since: Mutex::default(),
        }
    }

    /// Done when there was no request for so long.
    async fn idle(&self, timeout: Duration) {
        let mut counts = self.counts.subscribe();
        loop {
            let all = counts.borrow_and_update().all;
            let idle = counts.wait_for(|counts| counts.open == 0);
            let _ = idle.await;
            let new = counts.wait_for(|counts| counts.all != all);
            if tokio::time::timeout(timeout, new).await.is_err() {
                return;
            }
        }
    }

    /// Done when there was a request, and it is answered.
    async fn answered_one(&self) {
        let mut counts = self.counts.subscribe();
        let _ = counts
            .wait_for(|counts| counts.all > 0 && counts.open == 0)
            .await;
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, answering: F) {
        let (stream, timeout) = (Arc::new(self.open()), self.unread_timeout);
        tokio::spawn(STREAM.scope(Arc::clone(&stream), async move {
            tokio::select! {
                () = answering => {}
                // Dropping the request resets it.
                () = stream.unread(timeout) => {}
            }
        }));
    }
}

/// A request that is being answered.
struct Stream {
    /// Or only for health.
    is_for_all: bool,
    _slot: Option<OwnedSemaphorePermit>,
    counts: watch::Sender<Counts>,
    /// Since when the client has not read the last piece of the response; none while it is the builder's
    /// turn.
    unread_since: Mutex<Option<Instant>>,
}

impl Stream {
    /// Done when the client has read nothing for so long. A piece of a blob has up to 256 KiB, so a client
    /// has to read two KiB a second.
    async fn unread(&self, timeout: Duration) {
        loop {
            let since = *self.unread_since.lock();
            let now = Instant::now();
            let end = since.unwrap_or(now) + timeout;
            if end <= now {
                return;
            }
            tokio::time::sleep_until(end.into()).await;
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.counts.send_modify(|counts| counts.open -= 1);
    }
}

/// A response's body. hyper asks for the next piece when the client has room for it.
struct Watched {
    body: Body,
    stream: Arc<Stream>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let is_handed_over = matches!(frame, Poll::Ready(Some(Ok(_))));
        *self.stream.unread_since.lock() = is_handed_over.then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::any;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tower::util::MapResponse;

    use super::super::{ConnectionLimit, HTTP2_PREFACE};
    use super::*;

    /// Types of frames (RFC 9113, section 6).
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
        [&head, payload].concat()
    }

    /// A request that ends with its headers, which are in HPACK's static table but for the path.
    fn get(path: &str, stream: u8) -> Vec<u8> {
        const GET_HTTP: [u8; 3] = [0x82, 0x86, 0x04];
        let length = u8::try_from(path.len()).unwrap();
        let block = [&GET_HTTP, &[length][..], path.as_bytes()].concat();
        frame(HEADERS, 5, stream, &block)
    }

    /// The next frame of this type: its stream.
    async fn next(client: &mut DuplexStream, wanted: u8) -> u8 {
        loop {
            let mut head = [0; 9];
            client.read_exact(&mut head).await.unwrap();
            let [l0, l1, l2, kind, .., stream] = head;
            let length = u32::from_be_bytes([0, l0, l1, l2]);
            let mut payload = vec![0; length.try_into().unwrap()];
            client.read_exact(&mut payload).await.unwrap();
            if kind == wanted {
                return stream;
            }
        }
    }

    /// A client of a connection that allows the server to send no byte of a body.
    async fn connect(idle: Duration, unread: Duration) -> (DuplexStream, watch::Sender<()>) {
        let router = Router::new()
            .route("/full", any(async || "a body"))
            .route("/empty", any(async || ()));
        let service = MapResponse::new(router, super::super::without_needless_length as _);
        let (stop, stopping) = watch::channel(());
        let connection = Connection {
            is_spare: false,
            slots: Arc::new(Slots::new(ConnectionLimit::new(10, 1 << 20))),
            services: [service.clone(), service],
            stopping,
        };
        let (mut client, server) = tokio::io::duplex(1 << 16);
        tokio::spawn(serve(TokioIo::new(server), connection, idle, unread));
        let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let first = [HTTP2_PREFACE, &no_window].concat();
        client.write_all(&first).await.unwrap();
        (client, stop)
    }

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_request_whose_answer_nobody_reads_is_reset_and_others_go_on() {
        let (mut client, _stop) = connect(LONG, SHORT).await;
        client.write_all(&get("/full", 1)).await.unwrap();
        assert_eq!(next(&mut client, HEADERS).await, 1);
        assert_eq!(next(&mut client, RST_STREAM).await, 1);
        client.write_all(&get("/empty", 3)).await.unwrap();
        assert_eq!(next(&mut client, HEADERS).await, 3);
    }

    #[tokio::test]
    async fn a_connection_without_requests_ends_and_one_with_a_request_does_not() {
        let (mut client, _stop) = connect(SHORT, LONG).await;
        next(&mut client, GOAWAY).await;

        let (mut client, _stop) = connect(SHORT, LONG).await;
        client.write_all(&get("/full", 1)).await.unwrap();
        let ended = tokio::time::timeout(SHORT * 4, next(&mut client, GOAWAY));
        assert!(ended.await.is_err());
    }

    #[tokio::test]
    async fn a_builder_that_stops_says_so() {
        let (mut client, stop) = connect(LONG, LONG).await;
        client.write_all(&get("/empty", 1)).await.unwrap();
        assert_eq!(next(&mut client, HEADERS).await, 1);
        stop.send_replace(());
        next(&mut client, GOAWAY).await;
    }
}
