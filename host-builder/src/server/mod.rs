//! The builder's HTTP server: the registry API for the edge, where clients log in, and pages for
//! operators.
//!
//! ```text
//!   GET /healthz /readyz /metrics            open to all
//!   GET /.well-known/jwks.json               open to all: the public keys of the tokens
//!   GET /v2/…                                only with the edge's token (access.rs)
//!       ├─ manifests   manifests.rs   stored → 200; else build: 200, 202 or an error
//!       ├─ blobs       blobs.rs       307 to storage, or the bytes
//!       │              conditions.rs  whether, and which part of them (range.rs, multipart.rs)
//!       │              lost_blobs.rs  packed again when storage has lost them
//!       │    └─ both   images.rs      which images of the name that is of
//!       │              facts.rs       what the edge is told of them
//!       ├─ tags        tags.rs
//!       ├─ catalog     catalog.rs     what there is
//!       ├─ referrers   referrers.rs
//!       └─ token       token.rs       who a client is, for a token; POST too
//!   GET /builds…          builds.rs      only with the edge's token: how far builds are
//! ```

mod access;
mod answer;
mod blobs;
mod builds;
mod catalog;
mod conditions;
mod connections;
mod facts;
mod health;
mod images;
mod lost_blobs;
mod manifests;
mod multipart;
mod range;
mod referrers;
mod tags;
mod token;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use nixgate_core::distribution::{Error, ErrorKind, Repository, Route};
use nixgate_core::{ImageName, wire};
use tokio::net::TcpListener;
use tracing::{Instrument, Span};

use crate::config::Access;
use crate::engine::Engine;
use crate::login::Login;
use crate::request::NamedImage;
use crate::telemetry::logging::{self, VERSION, chain};
use crate::telemetry::metrics::RequestLabels;

use answer::Body;
use connections::Places;

/// For how long open requests may go on after the builder was told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Everything that requests are answered with.
pub(crate) struct App {
    pub(crate) engine: Engine,
    /// Who may ask.
    pub(crate) access: Access,
    /// Where clients get their tokens.
    pub(crate) login: Login,
    /// Which images there are of a name.
    pub(crate) images: Images,
    /// Whether new images can be built.
    pub(crate) readiness: Readiness,
}

pub(crate) use connections::Bound;
pub(crate) use health::Readiness;
pub(crate) use images::Images;

/// What is wrong with this machine is an error, what asks for an administrator a warning. A failed
/// build is neither: its own log line has been written, once, and this one says who was told.
fn log(path: &str, error: &Error) {
    const REFUSED: &str = "a request was refused";
    let kind = error.kind;
    match kind {
        ErrorKind::BuilderUnready
        | ErrorKind::BuilderUnreachable
        | ErrorKind::BuildBroken
        | ErrorKind::PackageAltered
        | ErrorKind::TokenRefused
        | ErrorKind::Internal => {
            tracing::error!(path, ?kind, error = chain(error), "{REFUSED}");
        }
        ErrorKind::Denied => tracing::warn!(path, ?kind, error = chain(error), "{REFUSED}"),
        _ => tracing::info!(path, ?kind, error = chain(error), "{REFUSED}"),
    }
}

impl App {
    /// Answers so many connections at once until `stop` is done, then lets open requests end.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        bound: Bound,
        stop: impl Future<Output = ()>,
    ) {
        let graceful = GracefulShutdown::new();
        let mut places = Places::new(bound);
        let [server, spare_server] = connections::servers();
        let mut next = async || loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, places.next().await),
                Err(error) => places.not_accepted(&error).await,
            }
        };
        tokio::pin!(stop);
        loop {
            let (stream, place) = tokio::select! {
                next = next() => next,
                () = &mut stop => break,
            };
            connections::end_when_stuck(&stream);
            let is_spare = place.is_spare;
            let app = Arc::clone(&self);
            let service = hyper::service::service_fn(move |request| {
                let app = Arc::clone(&app);
                let span = app.span(request.headers());
                let answer =
                    async move { Ok::<_, Infallible>(app.respond(request, is_spare).await) };
                answer.instrument(span)
            });
            let server = if is_spare { &spare_server } else { &server };
            let connection = graceful.watch(server.serve_connection(TokioIo::new(stream), service));
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = chain(&error), "a connection ended early");
                }
                drop(place);
            });
        }
        drop(listener);
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    }

    /// What the log says of a request: its id, when it is the edge that says so.
    fn span(&self, headers: &HeaderMap) -> Span {
        let id = headers.get(wire::REQUEST_ID);
        let id = id.filter(|_| self.access.admit(headers).is_ok());
        logging::request(id.and_then(|id| id.to_str().ok()))
    }

    async fn respond(&self, request: Request<Incoming>, is_spare: bool) -> Response<Body> {
        let path = request.uri().path();
        let (route, mut response) = if is_spare && !health::is_about(path) {
            ("other", answer::error(&too_many_connections(), path))
        } else if path == token::PATH {
            ("token", self.token(request).await)
        } else {
            let (route, result) = self.route(&request).await;
            let response = result.unwrap_or_else(|error| {
                let path = request.uri().path();
                log(path, &error);
                let mut response = answer::error(&error, path);
                access::mark(error.kind, response.headers_mut());
                response
            });
            (route, response)
        };
        let version = HeaderValue::from_static(VERSION);
        response.headers_mut().insert(wire::BUILDER, version);
        let status = response.status().as_u16();
        self.engine
            .metrics
            .requests
            .get_or_create(&RequestLabels { route, status })
            .inc();
        response
    }

    async fn route(
        &self,
        request: &Request<Incoming>,
    ) -> (&'static str, Result<Response<Body>, Error>) {
        match request.uri().path() {
            health::LIVE => return ("other", Ok(health::live())),
            health::READY => return ("other", self.ready().await),
            health::METRICS => return ("other", self.metrics_page()),
            token::KEYS_PATH => return ("other", self.token_keys()),
            _ => {}
        }
        if let Err(error) = self.access.admit(request.headers()) {
            return ("other", Err(error));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let message = format!("{} is not supported", request.method());
            return (
                "other",
                Err(Error::new(ErrorKind::MethodUnsupported, message)),
            );
        }
        if let Some(wanted) = builds::Wanted::parse(request.uri().path()) {
            return ("builds", self.build_page(&wanted, request.headers()));
        }
        let route = match Route::parse(request.uri().path()) {
            Ok(route) => route,
            Err(error) => return ("other", Err(error)),
        };
        match route {
            Route::Base => ("base", Ok(answer::json(200, b"{}".to_vec()))),
            Route::Manifest {
                repository,
                reference,
            } => (
                "manifest",
                self.manifest(request, &repository, &reference).await,
            ),
            Route::Blob { repository, digest } => {
                ("blob", self.blob(request, &repository, &digest).await)
            }
            Route::Tags { repository } => ("tags", self.tags(&repository)),
            Route::Catalog => ("catalog", self.catalog(request).await),
            Route::Referrers { repository, .. } => ("referrers", self.referrers(&repository)),
            Route::Elsewhere => {
                let message = "nothing is here; images are under /v2/";
                ("other", Err(Error::new(ErrorKind::RouteUnknown, message)))
            }
        }
    }

    /// What a repository name means, whether or not there is such an image.
    fn name(&self, repository: &Repository) -> Result<ImageName, Error> {
        NamedImage::name(repository, &self.engine.recipes.current())
    }

    /// The same for what is asked for by digest. Where there is no recipe it is told in the words for
    /// one whose images don't have it: a policy may hide that there is a recipe.
    fn wanted_or(
        &self,
        repository: &Repository,
        unknown: impl FnOnce() -> Error,
    ) -> Result<NamedImage, Error> {
        self.engine
            .named_image(repository)
            .map_err(|error| match error.kind {
                ErrorKind::ManifestUnknown => unknown(),
                _ => error,
            })
    }

    /// Where the manifests are linked of all images of a name.
    fn link_folder(&self, wanted: &NamedImage) -> String {
        wanted.link_folder(&self.engine.sources.source().identity())
    }
}

fn too_many_connections() -> Error {
    Error::new(
        ErrorKind::TooBusy,
        "the builder has as many connections as it takes on: try again in a while; the \
         registry's administrator finds what to change in the builder's log",
    )
}
