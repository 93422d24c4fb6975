//! The tests' own HTTP client: one request on one connection, nothing retried.

use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;

/// Longer than the edge ever holds a request.
const LIMIT: Duration = Duration::from_secs(120);

/// An answer, read to its end.
#[derive(Debug)]
pub struct Response {
    /// The status line's code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// A header's text, empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Code and message of the first error in the body.
    ///
    /// # Errors
    /// When the body is no error of the distribution spec, or not labelled as JSON.
    pub fn error(&self) -> Result<(String, String)> {
        let kind = self.header("content-type");
        anyhow::ensure!(
            kind.starts_with("application/json"),
            "an error of type {kind:?}: {}",
            self.text()
        );
        let body: Value = serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON: {}", self.text()))?;
        let error = &body["errors"][0];
        let text = |key: &str| error[key].as_str().map(str::to_owned);
        text("code")
            .zip(text("message"))
            .ok_or_else(|| anyhow!("no error in {body}"))
    }
}

/// Sends a request to a server on loopback.
///
/// # Errors
/// When there is no answer.
pub fn request(
    method: Method,
    port: u16,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Response> {
    request_within(LIMIT, method, port, path, headers)
}

fn request_within(
    limit: Duration,
    method: Method,
    port: u16,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Response> {
    let request = prepare(method, port, path, headers)?;
    exchange(limit, request, stream(port))
}

/// Sends a request to a server's socket in the file system.
///
/// # Errors
/// When there is no answer.
pub fn request_to(socket: &Path, method: Method, path: &str) -> Result<Response> {
    let request = prepare(method, 0, path, &[])?;
    exchange(LIMIT, request, tokio::net::UnixStream::connect(socket))
}

fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    limit: Duration,
    request: Request<Empty<Bytes>>,
    stream: impl Future<Output = io::Result<S>>,
) -> Result<Response> {
    let path = request.uri().to_string();
    let exchange = async move {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream.await?)).await?;
        let connection = tokio::spawn(connection);
        let answer = send(&mut sender, request).await;
        connection.abort();
        answer
    };
    runtime()?
        .block_on(async { tokio::time::timeout(limit, exchange).await })
        .with_context(|| format!("no answer to {path} within {} s", limit.as_secs()))?
}

pub(super) fn prepare(
    method: Method,
    port: u16,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Request<Empty<Bytes>>> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", format!("127.0.0.1:{port}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.body(Empty::new())?)
}

pub(super) type Sender = http1::SendRequest<Empty<Bytes>>;

async fn stream(port: u16) -> io::Result<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(super) async fn connect(
    port: u16,
) -> Result<(
    Sender,
    http1::Connection<TokioIo<tokio::net::TcpStream>, Empty<Bytes>>,
)> {
    Ok(http1::handshake(TokioIo::new(stream(port).await?)).await?)
}

pub(super) async fn send(sender: &mut Sender, request: Request<Empty<Bytes>>) -> Result<Response> {
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Response {
        status: head.status,
        headers: head.headers,
        body: body.collect().await?.to_bytes(),
    })
}

pub(super) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// A connection for one request after the other.
#[derive(Debug)]
pub struct Connection {
    runtime: Runtime,
    sender: Sender,
    port: u16,
}

impl Connection {
    /// Connects to a server on loopback.
    ///
    /// # Errors
    /// When nothing listens there.
    pub fn open(port: u16) -> Result<Self> {
        let runtime = runtime()?;
        let (sender, connection) = runtime.block_on(connect(port))?;
        runtime.spawn(connection);
        Ok(Self {
            runtime,
            sender,
            port,
        })
    }

    /// GET without further headers. Redirects are not followed.
    ///
    /// # Errors
    /// When there is no answer, or the server has closed the connection.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        let request = prepare(Method::GET, self.port, path, &[])?;
        let Self {
            runtime, sender, ..
        } = self;
        runtime
            .block_on(async {
                let exchange = async {
                    sender.ready().await?;
                    send(sender, request).await
                };
                tokio::time::timeout(LIMIT, exchange).await
            })
            .with_context(|| format!("no answer to {path} within {} s", LIMIT.as_secs()))?
    }
}

/// As many redirects as clients follow.
pub(super) const REDIRECTS: usize = 9;

/// GET without further headers. Redirects to the same server are followed, as every client does
/// while an image is built; one that leads elsewhere is the answer.
///
/// # Errors
/// When there is no answer, or only redirects.
pub fn get(port: u16, path: &str) -> Result<Response> {
    get_within(port, path, LIMIT)
}

/// As [`get`] by a client that waits no longer than `patience` for each answer.
///
/// # Errors
/// When there is no answer in time, or only redirects.
pub fn get_within(port: u16, path: &str, patience: Duration) -> Result<Response> {
    let mut path = path.to_owned();
    for _ in 0..=REDIRECTS {
        let answer = request_within(patience, Method::GET, port, &path, &[])?;
        match answer.header("location") {
            next if next.starts_with('/') => path = next.to_owned(),
            _ => return Ok(answer),
        }
    }
    bail!("more than {REDIRECTS} redirects, the last one to {path}")
}

/// Sends a GET and returns its connection without reading an answer; dropping it hangs up.
///
/// # Errors
/// When nothing listens there.
pub fn ask(port: u16, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    )?;
    Ok(stream)
}
