//! A client of HTTP/2 with prior knowledge: requests on one connection, all at once.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::live::http::{Response, runtime};

/// Longer than the builder lets anyone wait.
const LIMIT: Duration = Duration::from_secs(120);

/// GET of all these paths on a server on loopback.
///
/// # Errors
/// When one of them has no answer.
pub fn get_all(port: u16, paths: &[String], headers: &[(&str, &str)]) -> Result<Vec<Response>> {
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut answers = Vec::new();
        for path in paths {
            let mut request = Request::get(format!("http://127.0.0.1:{port}{path}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Empty::<Bytes>::new())?;
            let mut sender = sender.clone();
            answers.push(tokio::spawn(async move {
                let (head, body) = sender.send_request(request).await?.into_parts();
                Ok::<_, hyper::Error>(Response {
                    status: head.status,
                    headers: head.headers,
                    body: body.collect().await?.to_bytes(),
                })
            }));
        }
        let mut all = Vec::new();
        for answer in answers {
            all.push(answer.await??);
        }
        connection.abort();
        Ok(all)
    };
    runtime()?
        .block_on(async { tokio::time::timeout(LIMIT, exchange).await })
        .with_context(|| format!("no answer within {} s", LIMIT.as_secs()))?
}
