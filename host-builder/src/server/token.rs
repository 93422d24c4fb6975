//! `/v2/token`, where clients log in, and the public keys of its tokens.
//!
//! ```text
//!   GET  /v2/token?service=…&scope=…    Basic        Docker's token authentication
//!   POST /v2/token                      a form       its OAuth 2 variant, with a password
//!   GET  /.well-known/jwks.json         open         for Envoy, which checks the tokens
//! ```
//!
//! Envoy routes the first two here past the filter, and adds the edge's token. The query is ignored: a token
//! is good for every image (see [`crate::login`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderMap, Method};
use nixgate_core::distribution::{Error, ErrorKind};
use nixgate_core::wire;
use serde_json::json;
use tokio::time::timeout;

use super::error::{HttpError, render};
use super::headers::{JSON, no_store, texts};
use super::{App, RouteLabel};
use crate::login::{Credentials, Issued, Refusal};

const CLIENT_ADDRESS: HeaderName = HeaderName::from_static(wire::CLIENT_ADDRESS);
const REQUEST_ID: HeaderName = HeaderName::from_static(wire::REQUEST_ID);
/// The longest form: a name, a password that may be a token, and little else.
const FORM_BYTES: usize = 64 << 10;
/// How long a form may take to arrive. Envoy sends it when it is complete.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers a login. It logs its errors itself, with the client's address.
pub(super) async fn issue(
    State(app): State<Arc<App>>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !matches!(method, Method::GET | Method::HEAD | Method::POST) {
        return method_unsupported(&method).into_response();
    }
    let credentials = match basic(&headers) {
        None if method == Method::POST => form(body).await,
        credentials => Ok(credentials),
    };
    let issued = match credentials {
        Ok(credentials) => app.login.token(credentials).await,
        Err(refusal) => Err(refusal),
    };
    match issued {
        Ok(issued) => (JSON, token_body(&issued)).into_response(),
        Err(refusal) => {
            log(&headers, &refusal);
            let error = error_of(&refusal);
            let challenge = (error.kind == ErrorKind::Unauthenticated)
                .then_some([(WWW_AUTHENTICATE, "Basic realm=\"nixgate\"")]);
            (challenge, render(&error)).into_response()
        }
    }
}

fn method_unsupported(method: &Method) -> impl IntoResponse {
    let message = format!("the login does not support {method}: use GET or POST");
    let error = Error::new(ErrorKind::MethodUnsupported, message);
    ([(ALLOW, "GET, HEAD, POST")], render(&error))
}

/// Middleware: labels every response of a login, and keeps it out of caches.
pub(super) async fn no_cache(response: Response) -> impl IntoResponse {
    ([no_store()], Extension(RouteLabel("token")), response)
}

pub(super) async fn keys(State(app): State<Arc<App>>) -> Result<impl IntoResponse, HttpError> {
    let keys = app.login.keys().ok_or_else(|| {
        let message = "this builder signs no tokens: NIXGATE_HTPASSWD is not set";
        Error::new(ErrorKind::RouteUnknown, message)
    })?;
    Ok((JSON, keys))
}

/// Logs a failed login, so that an administrator can find a client that guesses passwords, and its line in
/// Envoy's access log. Envoy overwrites both headers, so clients can't choose them.
fn log(headers: &HeaderMap, refusal: &Refusal) {
    let text = |name| texts(headers, name).next();
    let address = text(CLIENT_ADDRESS).and_then(|address| address.parse::<IpAddr>().ok());
    let address = address.map(tracing::field::display);
    let request_id = text(REQUEST_ID).unwrap_or_default();
    match refusal {
        Refusal::Password { user: Some(user) } => {
            tracing::warn!(user, address, request_id, "a login failed: wrong password");
        }
        Refusal::Password { user: None } => {
            const UNKNOWN: &str = "a login failed: the htpasswd file has no such user";
            tracing::warn!(address, request_id, "{UNKNOWN}");
        }
        Refusal::Credentials(_) | Refusal::Busy => {
            tracing::warn!(address, request_id, "a login failed: {refusal}");
        }
        Refusal::Unready(_) => {
            tracing::error!(address, request_id, "a login failed: {refusal}");
        }
        Refusal::Missing | Refusal::Unconfigured => {
            tracing::info!(address, request_id, "no login: {refusal}");
        }
    }
}

/// Credentials of an `Authorization` header, when there is exactly one.
fn basic(headers: &HeaderMap) -> Option<Credentials> {
    let mut values = headers.get_all(AUTHORIZATION).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    Credentials::from_basic(value.as_bytes())
}

async fn form(body: Body) -> Result<Option<Credentials>, Refusal> {
    let read = timeout(FORM_TIMEOUT, to_bytes(body, FORM_BYTES)).await;
    let form = read.ok().and_then(Result::ok).ok_or(Refusal::Credentials(
        "the login's form is cut off, has more than 64 KiB, or took more than 10 s to arrive",
    ))?;
    Ok(Credentials::from_form(&form))
}

fn error_of(refusal: &Refusal) -> Error {
    let kind = match refusal {
        Refusal::Unconfigured => ErrorKind::RouteUnknown,
        Refusal::Missing | Refusal::Password { .. } | Refusal::Credentials(_) => {
            ErrorKind::Unauthenticated
        }
        Refusal::Busy => ErrorKind::TooBusy,
        Refusal::Unready(_) => ErrorKind::BuilderUnready,
    };
    Error::new(kind, refusal.to_string())
}

/// Some clients read `token`, others `access_token`.
fn token_body(issued: &Issued) -> String {
    json!({
        "token": issued.token,
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in.as_secs(),
        // A time before 1970 can't be written.
        "issued_at": humantime::format_rfc3339_seconds(issued.at.max(UNIX_EPOCH)).to_string(),
    })
    .to_string()
}
