//! `/v2/token`, where clients log in, and the public key of its tokens.
//!
//! ```text
//!   GET  /v2/token?service=…&scope=…    Basic        Docker's token authentication
//!   POST /v2/token                      a form       its OAuth 2 variant, with a password
//!   GET  /.well-known/jwks.json         open         for whoever checks the tokens
//! ```
//!
//! Envoy routes the first two here past the filter, and puts the edge's token on them. The query
//! is not looked at: what a token is for is no matter here (see [`crate::login`]).

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use nixgate_core::distribution::{Error, ErrorKind};
use nixgate_core::wire;
use serde_json::json;
use tokio::time::timeout;

use super::answer::{self, Body};
use super::{App, access};
use crate::login::{Credentials, Issued, Refusal};

/// Where clients log in.
pub(super) const PATH: &str = "/v2/token";
/// Where the public key is.
pub(super) const KEYS_PATH: &str = "/.well-known/jwks.json";

/// A form has a name, a password that may be a token, and little else: 64 KiB.
const FORM_LIMIT: usize = 64 << 10;

/// For how long a form may be on its way, 10 s. Envoy sends it when it has all of it.
const FORM_TIME: Duration = Duration::from_secs(10);

impl App {
    /// Answers a request for a token, errors included.
    pub(super) async fn token(&self, request: Request<Incoming>) -> Response<Body> {
        let result = match self.access.admit(request.headers()) {
            Ok(()) => {
                let asker = Asker::of(request.headers());
                self.token_for(request, &asker).await
            }
            Err(error) => {
                super::log(PATH, &error);
                Err(error)
            }
        };
        let mut response = result.unwrap_or_else(|error| {
            let mut response = answer::error(&error, PATH);
            access::mark(error.kind, response.headers_mut());
            let (name, value) = match error.kind {
                ErrorKind::Unauthenticated => (WWW_AUTHENTICATE, "Basic realm=\"nixgate\""),
                ErrorKind::MethodUnsupported => (ALLOW, "GET, HEAD, POST"),
                _ => return response,
            };
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
            response
        });
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CACHE_CONTROL, no_store);
        response
    }

    async fn token_for(
        &self,
        request: Request<Incoming>,
        asker: &Asker,
    ) -> Result<Response<Body>, Error> {
        let credentials = match *request.method() {
            Method::GET | Method::HEAD => Ok(basic(request.headers())),
            Method::POST => match basic(request.headers()) {
                None => form(request.into_body()).await,
                some => Ok(some),
            },
            _ => {
                let message = format!("{} is not how tokens are asked for", request.method());
                return Err(Error::new(ErrorKind::MethodUnsupported, message));
            }
        };
        let issued = match credentials {
            Ok(credentials) => self.login.token(credentials).await,
            Err(refusal) => Err(refusal),
        };
        let issued = issued.map_err(|refusal| {
            asker.log(&refusal);
            refused(&refusal)
        })?;
        Ok(answer::json(200, token_body(&issued).into_bytes()))
    }

    /// The public keys of the tokens.
    pub(super) fn token_keys(&self) -> Result<Response<Body>, Error> {
        let keys = self.login.keys().ok_or_else(|| {
            let message = "no tokens are signed here: NIXGATE_HTPASSWD is not set";
            Error::new(ErrorKind::RouteUnknown, message)
        })?;
        Ok(answer::json(200, keys.into_bytes()))
    }
}

/// Who asks for a token, as Envoy says, which overwrites what clients say.
struct Asker {
    address: Option<IpAddr>,
    request_id: String,
}

impl Asker {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            address: text(wire::CLIENT_ADDRESS).and_then(|address| address.parse().ok()),
            request_id: text(REQUEST_ID).unwrap_or_default().to_owned(),
        }
    }

    /// Writes down a login that failed, so that it can be found whoever tries passwords, and together
    /// with the line that Envoy's access log has of it.
    fn log(&self, refusal: &Refusal) {
        let address = self.address.map(tracing::field::display);
        let request_id = self.request_id.as_str();
        match refusal {
            Refusal::Password { user: Some(user) } => {
                tracing::warn!(user, address, request_id, "a login failed: wrong password");
            }
            Refusal::Password { user: None } => tracing::warn!(
                address,
                request_id,
                "a login failed: the htpasswd file has no such user"
            ),
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
}

/// Envoy's id of a request.
const REQUEST_ID: &str = "x-request-id";

/// The credentials of a request; none when there are no or several.
fn basic(headers: &HeaderMap) -> Option<Credentials> {
    let mut values = headers.get_all(AUTHORIZATION).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    Credentials::from_basic(value.as_bytes())
}

async fn form(body: Incoming) -> Result<Option<Credentials>, Refusal> {
    let read = timeout(FORM_TIME, Limited::new(body, FORM_LIMIT).collect()).await;
    let form = read.ok().and_then(Result::ok).ok_or(Refusal::Credentials(
        "the login's form is cut off, has more than 64 KiB, or took more than 10 s to arrive",
    ))?;
    Ok(Credentials::from_form(&form.to_bytes()))
}

fn refused(refusal: &Refusal) -> Error {
    let message = refusal.to_string();
    let kind = match refusal {
        Refusal::Unconfigured => ErrorKind::RouteUnknown,
        Refusal::Missing | Refusal::Password { .. } | Refusal::Credentials(_) => {
            ErrorKind::Unauthenticated
        }
        Refusal::Busy => ErrorKind::TooBusy,
        Refusal::Unready(_) => ErrorKind::BuilderUnready,
    };
    Error::new(kind, message)
}

/// Clients read one or the other of the two names.
fn token_body(issued: &Issued) -> String {
    json!({
        "token": issued.token,
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in.as_secs(),
        // What is before 1970 can't be written.
        "issued_at": humantime::format_rfc3339_seconds(issued.at.max(UNIX_EPOCH)).to_string(),
    })
    .to_string()
}
