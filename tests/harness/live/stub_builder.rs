//! A scripted builder, to test how Envoy and the filter handle a builder's failures.
//!
//! It writes bytes to sockets, since an HTTP library would correct malformed responses.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use nixgate_core::distribution::Digest;
use nixgate_core::signature::SigningKey;
use nixgate_core::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::live::builder::TOKEN;

/// The media type of the manifests here.
pub const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
/// The limit of a request's head; Envoy sends far less.
const HEAD_LIMIT: usize = 256 << 10;

/// The parts of a request that scripts use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `GET`, `HEAD`
    pub method: String,
    /// With the query.
    pub path: String,
    /// Whether only a blob's location is wanted, not its bytes.
    pub prefers_minimal: bool,
    /// Whether it is signed with the token of the tests.
    pub is_signed: bool,
}

impl Asked {
    /// The component of the path before `/manifests/` or `/blobs/` that no image has of itself.
    pub fn package(&self) -> &str {
        let components = self.path.strip_prefix("/v2/").unwrap_or_default();
        components
            .split('/')
            .find(|component| !matches!(*component, "cacert" | "iana-etc"))
            .unwrap_or_default()
    }
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Send these bytes and wait for the next request.
    Send(Vec<u8>),
    /// Send these bytes and hang up.
    SendAndClose(Vec<u8>),
    /// Send these bytes and then nothing, until the caller hangs up.
    SendAndHold(Vec<u8>),
    /// Let this time pass, then do the other.
    After(Duration, Box<Act>),
}

/// The bytes of a response with a body of the right length.
pub fn response(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = head(status, headers);
    bytes.truncate(bytes.len() - 2);
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The bytes of a response up to its body.
pub fn head(status: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The mark of a builder's answers.
pub const MARK: (&str, &str) = (wire::BUILDER, "0.0.0-stub");

/// A good answer to a request for a manifest, which may be kept for `max_age` seconds.
pub fn manifest(body: &[u8], max_age: u64) -> Vec<u8> {
    let digest = Digest::of(body).to_string();
    let headers = [
        MARK,
        ("content-type", OCI),
        ("docker-content-digest", digest.as_str()),
        ("cache-control", &format!("max-age={max_age}")),
    ];
    response("200 OK", &headers, body)
}

/// A refusal with an error of the distribution spec, which may be kept for `max_age` seconds.
pub fn refusal(status: &str, code: &str, max_age: u64) -> Vec<u8> {
    let headers = [
        MARK,
        ("content-type", "application/json"),
        ("cache-control", &format!("max-age={max_age}")),
    ];
    let body = serde_json::json!({ "errors": [{ "code": code, "message": "as told" }] });
    response(status, &headers, body.to_string().as_bytes())
}

/// A stub that listens.
#[derive(Debug)]
pub struct StubBuilder {
    // Ends the server, and all its connections, when dropped.
    _runtime: Runtime,
}

impl StubBuilder {
    /// Listens on a port of loopback and does with each request what `script` says.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(
        port: u16,
        script: impl Fn(&Asked) -> Act + Send + Sync + 'static,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port)))?;
        let script = Arc::new(script);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&script);
                // A connection that Envoy cuts is what several tests are about.
                tokio::spawn(async move { serve(stream, &*script).await });
            }
        });
        Ok(Self { _runtime: runtime })
    }
}

async fn serve(mut stream: TcpStream, script: &impl Fn(&Asked) -> Act) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = Vec::new();
    while let Some(asked) = read(&mut stream, &mut received).await? {
        let mut act = script(&asked);
        while let Act::After(pause, next) = act {
            tokio::time::sleep(pause).await;
            act = *next;
        }
        match act {
            Act::Send(bytes) => stream.write_all(&bytes).await?,
            Act::SendAndHold(bytes) => {
                stream.write_all(&bytes).await?;
                while stream.read(&mut [0; 1024]).await? > 0 {}
            }
            Act::SendAndClose(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Act::After(..) => {}
        }
    }
    Ok(())
}

fn is_signed(method: &str, path: &str, head: &str) -> bool {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let signature = headers.find(|(name, _)| name.eq_ignore_ascii_case(wire::TOKEN));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let key = SigningKey::new(&Digest::of(TOKEN.as_bytes()));
    signature.is_some_and(|(_, signature)| key.verify(signature, method, path, now).is_ok())
}

/// The next request, none when the caller has hung up. Callouts and blob requests have no body.
async fn read(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        if let Some(end) = received.windows(END.len()).position(|four| four == END) {
            let head: Vec<u8> = received.drain(..end + END.len()).collect();
            let head = String::from_utf8_lossy(&head);
            let mut words = head.split(' ').map(str::to_owned);
            let method = words.next().unwrap_or_default();
            let path = words.next().unwrap_or_default();
            return Ok(Some(Asked {
                prefers_minimal: head.contains("return=minimal"),
                is_signed: is_signed(&method, &path, &head),
                method,
                path,
            }));
        }
        if received.len() > HEAD_LIMIT || stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}
