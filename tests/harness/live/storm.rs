//! Many clients that request the same path at once: half of them by HTTP/1.1, with a connection each, and
//! half by HTTP/2, with a hundred on each connection.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ::http::{Method, Request, StatusCode};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::live::http;

/// Streams of one HTTP/2 connection: the limit that Envoy recommends for edges.
const STREAMS: usize = 100;
/// Connections that are opened at once: more would overflow the kernel's queue, and retry after a second.
const CONNECTING: usize = 64;
/// Longer than the edge keeps any client.
const LIMIT: Duration = Duration::from_secs(180);

/// Clients that wait.
#[derive(Debug)]
pub struct Storm(JoinHandle<Result<Answers>>);

/// What clients got in the end.
#[derive(Debug)]
pub struct Answers {
    /// How many got which status and body.
    pub answers: BTreeMap<(StatusCode, Bytes), usize>,
    /// The time between the first answer and the last.
    pub spread: Duration,
}

impl Storm {
    /// Lets this process, and the Envoy that it starts after this, have a file for each client.
    ///
    /// # Errors
    /// When it may not.
    pub fn allow(clients: usize) -> Result<()> {
        /// Files that are not connections of clients.
        const OTHERS: u64 = 1000;
        let wanted = clients as u64 + OTHERS;
        let limit = getrlimit(Resource::Nofile);
        let most = limit.maximum.unwrap_or(u64::MAX);
        ensure!(
            wanted <= most,
            "{clients} clients need {wanted} open files, and the limit is {most}: raise it (`ulimit \
             -Hn`), or set NIXGATE_TEST_CLIENTS"
        );
        if limit.current.is_some_and(|current| current < wanted) {
            let raised = Rlimit {
                current: Some(wanted),
                ..limit
            };
            setrlimit(Resource::Nofile, raised)?;
        }
        Ok(())
    }

    /// Starts so many clients, which follow redirects to the same server as clients do.
    pub fn start(port: u16, path: &str, clients: usize) -> Self {
        let path: Arc<str> = path.into();
        Self(thread::spawn(move || {
            let runtime = http::runtime()?;
            runtime.block_on(async {
                let all = all(port, path, clients);
                tokio::time::timeout(LIMIT, all)
                    .await
                    .context("clients still wait")?
            })
        }))
    }

    /// Waits until all have been answered.
    ///
    /// # Errors
    /// When one was not.
    pub fn end(self) -> Result<Answers> {
        self.0.join().expect("the clients' thread ends")
    }
}

type Answered = (StatusCode, Bytes, Instant);

async fn all(port: u16, path: Arc<str>, clients: usize) -> Result<Answers> {
    let connecting = Arc::new(Semaphore::new(CONNECTING));
    let mut waiting = JoinSet::new();
    let by_http2 = clients / 2;
    for _ in by_http2..clients {
        waiting.spawn(one_by_http1(
            port,
            Arc::clone(&path),
            Arc::clone(&connecting),
        ));
    }
    let connections = (0..by_http2).step_by(STREAMS);
    for begun in connections {
        let permit = connecting.acquire().await?;
        let sender = connect_http2(port).await?;
        drop(permit);
        for _ in begun..by_http2.min(begun + STREAMS) {
            waiting.spawn(one_by_http2(port, Arc::clone(&path), sender.clone()));
        }
    }
    let mut answers = BTreeMap::new();
    let mut times = Vec::with_capacity(clients);
    while let Some(answered) = waiting.join_next().await {
        let (status, body, time) = answered??;
        *answers.entry((status, body)).or_default() += 1;
        times.push(time);
    }
    let (first, last) = (times.iter().min(), times.iter().max());
    Ok(Answers {
        answers,
        spread: first
            .zip(last)
            .map_or(Duration::ZERO, |(first, last)| *last - *first),
    })
}

async fn one_by_http1(port: u16, path: Arc<str>, connecting: Arc<Semaphore>) -> Result<Answered> {
    let permit = connecting.acquire().await?;
    let (mut sender, connection) = http::connect(port).await?;
    drop(permit);
    tokio::spawn(connection);
    let mut path = path.to_string();
    for _ in 0..=http::REDIRECTS {
        sender.ready().await?;
        let request = http::prepare(Method::GET, port, &path, &[])?;
        let answer = http::send(&mut sender, request).await?;
        match answer.header("location") {
            next if next.starts_with('/') => path = next.to_owned(),
            _ => return Ok((answer.status, answer.body, Instant::now())),
        }
    }
    bail!(
        "more than {} redirects, the last one to {path}",
        http::REDIRECTS
    )
}

type Http2Sender = http2::SendRequest<Empty<Bytes>>;

async fn connect_http2(port: u16) -> Result<Http2Sender> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn one_by_http2(port: u16, path: Arc<str>, mut sender: Http2Sender) -> Result<Answered> {
    let mut path = path.to_string();
    for _ in 0..=http::REDIRECTS {
        sender.ready().await?;
        let request = Request::get(format!("http://127.0.0.1:{port}{path}")).body(Empty::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let location = head
            .headers
            .get("location")
            .and_then(|value| value.to_str().ok());
        match location {
            Some(next) if next.starts_with('/') => path = next.to_owned(),
            _ => {
                return Ok((
                    head.status,
                    body.collect().await?.to_bytes(),
                    Instant::now(),
                ));
            }
        }
    }
    bail!(
        "more than {} redirects, the last one to {path}",
        http::REDIRECTS
    )
}

impl Answers {
    /// How many got which status.
    pub fn statuses(&self) -> BTreeMap<StatusCode, usize> {
        let mut statuses = BTreeMap::new();
        for ((status, _), count) in &self.answers {
            *statuses.entry(*status).or_default() += count;
        }
        statuses
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (status, count) in self.statuses() {
            write!(f, "{count} × {}, ", status.as_u16())?;
        }
        write!(
            f,
            "the last {:.2} s after the first",
            self.spread.as_secs_f64()
        )
    }
}
