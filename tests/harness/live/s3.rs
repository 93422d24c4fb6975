//! An S3 server that checks signatures: s3s-fs on a port of loopback.
//!
//! It is addressed as `localhost`, the registry as `127.0.0.1`: several clients send a
//! registry's credentials along when a redirect keeps the host name, and S3 refuses those.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::live::builder;

const ACCESS_KEY: &str = "the-access-key";
const SECRET_KEY: &str = "the-secret-key";
const BUCKET: &str = "images";

/// A request that the server got.
#[derive(Clone, Debug)]
pub struct Seen {
    /// GET, PUT…
    pub method: Method,
    /// The path: `/bucket/key`.
    pub path: String,
    /// Whether the query carries a signature.
    pub presigned: bool,
    /// The status that it was answered with.
    pub status: u16,
}

/// A server with one empty bucket.
#[derive(Debug)]
pub struct S3 {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    // Ends the server when dropped.
    _runtime: Runtime,
}

impl S3 {
    /// Starts a server whose objects are files below `folder`.
    ///
    /// # Errors
    /// When the folder can't be written or no port is free.
    pub fn start(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join(BUCKET))?;
        let files = FileSystem::new(folder).map_err(|error| anyhow!("{error:?}"))?;
        let mut s3 = S3ServiceBuilder::new(files);
        s3.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let s3 = s3.build();

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = Arc::clone(&seen);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (s3, log) = (s3.clone(), Arc::clone(&log));
                let service = service_fn(move |request: Request<Incoming>| {
                    let mut entry = Seen {
                        method: request.method().clone(),
                        path: request.uri().path().to_owned(),
                        presigned: request
                            .uri()
                            .query()
                            .is_some_and(|query| query.contains("X-Amz-Signature=")),
                        status: 0,
                    };
                    let (answer, log) = (Service::call(&s3, request), Arc::clone(&log));
                    async move {
                        let answer = answer.await;
                        entry.status = answer
                            .as_ref()
                            .map_or(500, |answer| answer.status().as_u16());
                        log.lock().push(entry);
                        answer
                    }
                });
                // A connection that a client cuts is no failure of the server.
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Ok(Self {
            port,
            seen,
            _runtime: runtime,
        })
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Settings of a builder that stores its images here.
    pub fn settings(&self, settings: builder::Settings) -> builder::Settings {
        settings
            .with("NIXERY_STORAGE_BACKEND", "s3")
            .with("S3_BUCKET", BUCKET)
            .with(
                "AWS_ENDPOINT_URL",
                format!("http://localhost:{}", self.port),
            )
            .with("AWS_ALLOW_HTTP", "true")
            .with("AWS_REGION", "us-east-1")
            .with("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .with("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    }
}
