//! Access to the builder: only the edge has it, by its token.
//!
//! A request without a token comes from a client, and gets 403. A wrong token comes from an edge whose
//! setting is wrong, which says nothing of the image: that edge gets the status of a builder that is down,
//! and a header that clients can't cause ([`wire::REFUSES`]).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use nixgate_core::Seconds;
use nixgate_core::distribution::{Error, ErrorKind};
use nixgate_core::signature::{LIFETIME, Refused};
use nixgate_core::wire;

use super::App;
use super::error::HttpError;
use crate::builder::Rule;
use crate::config::{Access, Signed};

/// Middleware: lets only the edge pass.
pub(super) async fn require_token(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    app.access.admit(&request)?;
    Ok(next.run(request).await)
}

/// The builder's clock.
pub(super) fn seconds_since_epoch() -> Seconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl Access {
    /// # Errors
    /// When the request does not come from the edge.
    pub(super) fn admit<B>(&self, request: &http::Request<B>) -> Result<(), Error> {
        let Self::Tokens(tokens) = self else {
            return Ok(());
        };
        let Some(given) = request.headers().get(wire::TOKEN) else {
            return Err(Error::new(
                ErrorKind::Denied,
                "this builder answers only the nixgate filter, which signs its requests. Pull through \
                 Envoy; administrators: give the filter and the builder the same NIXGATE_TOKEN",
            ));
        };
        let path = request.uri().path_and_query();
        let signed = Signed {
            method: request.method().as_str(),
            path: path.map_or("/", |path| path.as_str()),
            at: seconds_since_epoch(),
        };
        let given = given.to_str().unwrap_or_default();
        tokens.verify(given, &signed).map_err(|refused| match refused {
            Refused::Invalid => Error::new(
                ErrorKind::TokenRefused,
                "the builder does not accept the token of the registry's edge. The registry's \
                 administrator has to give the filter and the builder the same NIXGATE_TOKEN, and to let \
                 nothing between them change the path of a request",
            ),
            Refused::Outdated => Error::new(
                ErrorKind::SignatureOutdated,
                format!(
                    "the signature of the registry's edge is more than {LIFETIME} s off the builder's \
                     clock. Try again; the registry's administrator has to set the clocks of Envoy and \
                     builder"
                ),
            ),
        })
    }

    /// The policy's rule that let the caller in, as the edge says. Without an edge there is none:
    /// clients could make up names, and each would get a share of the queue.
    pub(super) fn rule_of(&self, headers: &HeaderMap) -> Rule {
        let rule = match self {
            Self::Tokens(_) => headers.get(wire::RULE),
            Self::Direct => None,
        };
        let rule = rule.and_then(|rule| rule.to_str().ok());
        rule.map_or(Rule::NONE, Rule::named)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use http::HeaderValue;
    use nixgate_core::distribution::Digest;
    use nixgate_core::signature::SigningKey;

    use super::*;
    use crate::config::Tokens;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    fn request(token: &str) -> http::Request<()> {
        let request = http::Request::get("/v2/git/manifests/latest?x");
        request.header(wire::TOKEN, token).body(()).unwrap()
    }

    fn refusal(access: &Access, token: &str) -> Option<ErrorKind> {
        let admitted = access.admit(&request(token));
        admitted.err().map(|error| error.kind)
    }

    #[test]
    fn a_request_that_is_signed_with_either_token_is_admitted_for_some_minutes() {
        let access = Access::Tokens(Tokens::parse("old new").unwrap());
        let sign = |token: &str, path: &str, at: Seconds| {
            SigningKey::new(&Digest::of(token.as_bytes())).sign("GET", path, at)
        };
        let path = "/v2/git/manifests/latest?x";
        let now = seconds_since_epoch();
        for token in ["old", "new"] {
            assert_eq!(refusal(&access, &sign(token, path, now)), None, "{token}");
            let outdated = Some(ErrorKind::SignatureOutdated);
            for at in [now - LIFETIME - 9, now + LIFETIME + 9] {
                assert_eq!(refusal(&access, &sign(token, path, at)), outdated);
            }
        }
        let refused = Some(ErrorKind::TokenRefused);
        let other_path = sign("new", "/v2/git/manifests/latest", now);
        for signature in [other_path, sign("other", path, now), sign("other", path, 0)] {
            assert_eq!(refusal(&access, &signature), refused, "{signature}");
        }
    }

    #[test]
    fn a_rule_is_what_the_edge_says_and_never_what_a_client_does() {
        let edge = Access::Tokens(Tokens::parse("t").unwrap());
        assert_eq!(edge.rule_of(&HeaderMap::new()), Rule::NONE);
        let named = headers(wire::RULE, "data-team");
        assert_eq!(edge.rule_of(&named), Rule::named("data-team"));
        assert_eq!(Access::Direct.rule_of(&named), Rule::NONE);
    }

    #[test]
    fn each_of_two_tokens_opens_and_no_other_does() {
        let access = Access::Tokens(Tokens::parse("old new").unwrap());
        for token in ["old", "new"] {
            assert_eq!(refusal(&access, token), None, "{token}");
        }
        for token in ["", "old new", "other", "ol"] {
            let refused = Some(ErrorKind::TokenRefused);
            assert_eq!(refusal(&access, token), refused, "{token}");
        }
        // Who has none is no edge.
        let bare = http::Request::new(());
        let nobody = access.admit(&bare).unwrap_err();
        assert_eq!(nobody.kind, ErrorKind::Denied);
        assert!(Access::Direct.admit(&bare).is_ok());
        for wrong in ["", " ", "a b c", "tök"] {
            assert!(Tokens::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tokens_in_a_file_change_while_the_builder_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            let file = fs::File::options().append(true).open(&path).unwrap();
            let before = SystemTime::now() - Duration::from_secs(10);
            file.set_modified(before).unwrap();
        };
        write("old\n");
        let access = Access::Tokens(Tokens::open(&path).unwrap());
        let opens = |token| refusal(&access, token).is_none();
        assert!(opens("old") && !opens("new"));
        write("# since May\nold\nnew\n");
        assert!(opens("old") && opens("new"));
        write("new");
        assert!(opens("old"), "half of a file changes nothing");
        write("new\n");
        assert!(opens("new") && !opens("old"));
    }
}
