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

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use nixgate_core::distribution::{Error, ErrorKind};
use serde_json::json;

use super::answer::{self, Body};
use super::{App, access};
use crate::builder::Builder;
use crate::login::{Credentials, Issued, Refusal};

/// Where clients log in.
pub(super) const PATH: &str = "/v2/token";
/// Where the public key is.
pub(super) const KEYS_PATH: &str = "/.well-known/jwks.json";

/// A form has a name, a password that may be a token, and little else.
const FORM_LIMIT: usize = 64 << 10;

impl<B: Builder> App<B> {
    /// Answers a request for a token, errors included.
    pub(super) async fn token(&self, request: Request<Incoming>) -> Response<Body> {
        let result = match self.access.admit(request.headers()) {
            Ok(()) => self.token_for(request).await,
            Err(error) => Err(error),
        };
        let mut response = result.unwrap_or_else(|error| {
            super::log(PATH, &error);
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

    async fn token_for(&self, request: Request<Incoming>) -> Result<Response<Body>, Error> {
        let credentials = match *request.method() {
            Method::GET | Method::HEAD => basic(request.headers()),
            Method::POST => match basic(request.headers()) {
                None => form(request.into_body()).await?,
                some => some,
            },
            _ => {
                let message = format!("{} is not how tokens are asked for", request.method());
                return Err(Error::new(ErrorKind::MethodUnsupported, message));
            }
        };
        let issued = self.login.token(credentials).await.map_err(refused)?;
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

/// The credentials of a request; none when there are no or several.
fn basic(headers: &HeaderMap) -> Option<Credentials> {
    let mut values = headers.get_all(AUTHORIZATION).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    Credentials::from_basic(value.as_bytes())
}

async fn form(body: Incoming) -> Result<Option<Credentials>, Error> {
    let read: Result<_, _> = Limited::new(body, FORM_LIMIT).collect().await;
    let form: Bytes = read
        .map_err(|_| {
            let message = format!("the form is cut off, or has more than {FORM_LIMIT} bytes");
            Error::new(ErrorKind::Unauthenticated, message)
        })?
        .to_bytes();
    Ok(Credentials::from_form(&form))
}

fn refused(refusal: Refusal) -> Error {
    let message = refusal.to_string();
    let kind = match refusal {
        Refusal::Unconfigured => ErrorKind::RouteUnknown,
        Refusal::Credentials(_) => ErrorKind::Unauthenticated,
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
