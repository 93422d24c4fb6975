//! The builder's HTTP server: the registry API for the edge, logins, and pages for operators.
//!
//! ```text
//!   /healthz /readyz /metrics     health.rs     open to everyone
//!   /.well-known/jwks.json        token.rs      open to everyone: the public keys of the tokens
//!   /web/…                        web.rs        open to everyone: the website (WEB_DIR), as Envoy asks for it
//!   /v2/token                     token.rs      only with the edge's token (access.rs)
//!   /builds…                      builds.rs     likewise: the progress of builds
//!   /v2/…                         registry()    likewise, GET and HEAD
//!       ├─ manifests   manifests.rs   stored → 200; else build: 200, 202 or an error
//!       ├─ blobs       blobs.rs       307 to storage, or the bytes
//!       │              conditions.rs  whether, and which part of them (range.rs, multipart.rs)
//!       │              lost_blobs.rs  built again when storage has lost them
//!       │    └─ both   images.rs      the images of a name
//!       │              facts.rs       what the edge is told of them
//!       ├─ tags        tags.rs
//!       ├─ catalog     catalog.rs     the names of all images
//!       └─ referrers   referrers.rs
//!   /…                            web.rs        open to everyone: the website, without an Envoy
//! ```
//!
//! axum routes. A name has slashes, which axum's patterns can't match in the middle of a path, so all paths
//! of the registry API are one route, and [`Route`] parses them by the grammar of the distribution spec.
//!
//! Around every handler, from the outside in: [`observe`], `error::log_errors`, `access::require_token`. A
//! handler returns an `HttpError` (`error.rs`) with `?`.

mod access;
mod blobs;
mod builds;
mod catalog;
mod conditions;
mod connections;
mod error;
mod facts;
mod headers;
mod health;
mod images;
mod lost_blobs;
mod manifests;
mod multipart;
mod range;
mod referrers;
mod response;
mod tags;
mod token;
mod web;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};
use http::request::Parts;
use http::{HeaderValue, Method};
use nixgate_core::distribution::{Error, ErrorKind, Reference, Repository, Route};
use nixgate_core::{ImageName, wire};
use tokio::net::TcpListener;
use tracing::{Instrument, Span};

use crate::config::Access;
use crate::engine::Engine;
use crate::login::Login;
use crate::request::NamedImage;
use crate::telemetry::logging::{self, VERSION};
use crate::telemetry::metrics::RequestLabels;

use access::{require_token, seconds_since_epoch};
use error::{HttpError, log_errors};
use headers::{JSON, no_store};

pub(crate) use connections::ConnectionLimit;
pub(crate) use health::Readiness;
pub(crate) use images::Images;
pub(crate) use web::Website;

/// The state of all handlers.
pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) access: Access,
    pub(crate) login: Login,
    pub(crate) images: Images,
    pub(crate) readiness: Readiness,
    pub(crate) website: Option<Arc<Website>>,
}

/// The label of a response in the metrics, by default `other`.
#[derive(Clone, Copy)]
struct RouteLabel(&'static str);

impl App {
    /// Serves until `stop` is done, then waits for open requests.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        limit: ConnectionLimit,
        stop: impl Future<Output = ()>,
    ) {
        connections::serve(listener, limit, routers(&self), stop).await;
    }

    /// The span of a request's log lines, with its id. Only the edge is trusted to name the id.
    fn span(&self, request: &Request) -> Span {
        let id = request.headers().get(wire::REQUEST_ID);
        let id = id.filter(|_| self.access.admit(request).is_ok());
        logging::request(id.and_then(|id| id.to_str().ok()))
    }

    /// Parses a repository name, whether or not such an image exists.
    fn image_name(&self, repository: &Repository) -> Result<ImageName, Error> {
        NamedImage::name(repository, &self.engine.recipes.current())
    }

    /// The image of a name, for a request by digest. A missing recipe is the error for an unknown digest: a
    /// policy may hide which recipes exist.
    fn named_image(
        &self,
        repository: &Repository,
        unknown: impl FnOnce() -> Error,
    ) -> Result<NamedImage, Error> {
        let named = self.engine.named_image(repository);
        named.map_err(|error| match error.kind {
            ErrorKind::ManifestUnknown => unknown(),
            _ => error,
        })
    }

    /// The folder in storage that links the manifests of a name.
    fn link_folder(&self, named: &NamedImage) -> String {
        named.link_folder(&self.engine.sources.identity())
    }
}

/// The routes of all connections, and of those beyond the limit, which get only health.
fn routers(app: &Arc<App>) -> [Router; 2] {
    let require_token = from_fn_with_state(Arc::clone(app), require_token);
    let builds = builds::routes().layer(map_response(async |response: Response| {
        (Extension(RouteLabel("builds")), response)
    }));
    let edge_only = |router: Router<Arc<App>>| {
        router
            .layer(from_fn(only_reading))
            .layer(require_token.clone())
    };
    let registry = edge_only(Router::new().fallback(registry));
    // The website is open to everyone, so it comes before the token.
    let (registry, website) = match &app.website {
        Some(_) => {
            let before = from_fn_with_state(Arc::clone(app), web::beside_the_registry);
            (registry.layer(before), web::routes())
        }
        None => (registry, Router::new()),
    };
    // `get` and `post` would add their own `Allow` header to refusals.
    let login = Router::new()
        .route("/v2/token", any(token::issue))
        .layer(require_token.clone())
        .layer(from_fn(log_errors))
        .layer(map_response(token::no_cache));
    let all = health::routes()
        .route("/.well-known/jwks.json", any(token::keys))
        .merge(edge_only(builds))
        .merge(registry)
        .layer(from_fn(log_errors))
        .merge(website)
        .merge(login);
    let spare = health::routes()
        .layer(from_fn(log_errors))
        .fallback(too_many_connections);
    [all, spare].map(|router| {
        let observe = from_fn_with_state(Arc::clone(app), observe);
        router.layer(observe).with_state(Arc::clone(app))
    })
}

/// Middleware of every request: its span in the log, its count in the metrics by the client's status, and
/// the builder's version in its response.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let span = app.span(&request);
    let mut response = next.run(request).instrument(span).await;
    let version = HeaderValue::from_static(VERSION);
    response.headers_mut().insert(wire::BUILDER, version);
    let time = HeaderValue::from(seconds_since_epoch());
    response.headers_mut().insert(wire::TIME, time);
    let label = response.extensions_mut().remove();
    let RouteLabel(route) = label.unwrap_or(RouteLabel("other"));
    let status = response.status().as_u16();
    let labels = RequestLabels { route, status };
    app.engine.metrics.requests.get_or_create(&labels).inc();
    error::for_the_edge(response)
}

/// Middleware: refuses methods that would change something.
async fn only_reading(request: Request, next: Next) -> Result<Response, HttpError> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(next.run(request).await),
        ref method => {
            let message = format!("{method} is not supported: use GET or HEAD");
            Err(Error::new(ErrorKind::MethodUnsupported, message).into())
        }
    }
}

/// All other paths: those of the registry API, and unknown ones.
async fn registry(State(app): State<Arc<App>>, request: Parts) -> Result<Response, HttpError> {
    let request = &request;
    let (label, result) = match Route::parse(request.uri.path())? {
        Route::Base => ("base", Ok((JSON, "{}").into_response())),
        Route::Manifest {
            repository,
            reference: Reference::Digest(digest),
        } => {
            let manifest = app.manifest_by_digest(request, &repository, &digest);
            ("manifest", manifest.await)
        }
        Route::Manifest {
            repository,
            reference: Reference::Tag(tag),
        } => {
            let manifest = app.manifest_by_tag(request, &repository, &tag);
            ("manifest", manifest.await)
        }
        Route::Blob { repository, digest } => {
            ("blob", app.blob(request, &repository, &digest).await)
        }
        Route::Tags { repository } => ("tags", app.tags(&repository)),
        Route::Catalog => ("catalog", app.catalog(request).await),
        Route::Referrers { repository, .. } => ("referrers", app.referrers(&repository)),
        Route::Elsewhere => {
            let message = "nothing is here: images are under /v2/";
            return Err(Error::new(ErrorKind::RouteUnknown, message).into());
        }
    };
    Ok((Extension(RouteLabel(label)), result).into_response())
}

/// The log has this once a minute (`connections.rs`), so it is not logged for each request.
async fn too_many_connections() -> impl IntoResponse {
    let message = "all connections of the builder are in use: try again in a while; the registry's \
                   administrator finds the remedy in the builder's log";
    let error = Error::new(ErrorKind::TooBusy, message);
    ([no_store()], error::render(&error))
}
