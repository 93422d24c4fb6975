//! Asks an HTTP server whether an archive has changed, without downloading it.
//!
//! ```text
//!   HEAD  If-None-Match: "a"  ──► 304, or 200 with ETag "a"     unchanged
//!                             ──► 200 with ETag "b"             changed
//!                             ──► anything else, or no answer   nobody knows: it is downloaded
//! ```
//!
//! `HEAD`, since nobody wants the body. Nix downloads archives; this only saves downloads. So whatever
//! goes wrong here is no error: Nix tries then, and reports what is wrong.

use std::time::Duration;

use http::header::{ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderValue, StatusCode};
use reqwest::{Certificate, Client, NoProxy, Proxy};

use crate::process::NetworkSettings;
use crate::telemetry::logging::chain;

/// For the headers of an answer; then Nix downloads.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a server calls one version of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Validator {
    EntityTag(HeaderValue),
    /// Of a server without entity tags.
    LastModified(HeaderValue),
}

impl Validator {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let of = |name: HeaderName| headers.get(name).cloned();
        let date = || of(LAST_MODIFIED).map(Self::LastModified);
        of(ETAG).map(Self::EntityTag).or_else(date)
    }

    fn condition(&self) -> (HeaderName, &HeaderValue) {
        match self {
            Self::EntityTag(tag) => (IF_NONE_MATCH, tag),
            Self::LastModified(date) => (IF_MODIFIED_SINCE, date),
        }
    }
}

/// The validator of the archive at a URL now; `known` itself if the archive has not changed since. None
/// if the server does not say.
pub(super) async fn validator(
    network: &NetworkSettings,
    url: &str,
    known: Option<&Validator>,
) -> Option<Validator> {
    // Nix also downloads from files and buckets.
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return None;
    }
    match head(network, url, known).await {
        Ok((status, headers)) => read(status, &headers, known),
        Err(error) => {
            let error = chain(&error.without_url());
            tracing::debug!(error, "cannot ask whether the archive has changed");
            None
        }
    }
}

async fn head(
    network: &NetworkSettings,
    url: &str,
    known: Option<&Validator>,
) -> reqwest::Result<(StatusCode, HeaderMap)> {
    // The files of certificates and credentials may have changed since the last time.
    let mut client = Client::builder().timeout(TIMEOUT).user_agent("nixgate");
    if let Some(proxy) = &network.proxy {
        client = client.proxy(Proxy::all(proxy)?.no_proxy(NoProxy::from_env()));
    }
    if let Some(file) = &network.ca_bundle {
        let bundle = tokio::fs::read(file).await.unwrap_or_default();
        client = client.tls_certs_only(Certificate::from_pem_bundle(&bundle)?);
    }
    let mut request = client.build()?.head(url);
    if let Some((login, password)) = network.credentials(url) {
        request = request.basic_auth(login, Some(password));
    }
    if let Some((name, value)) = known.map(Validator::condition) {
        request = request.header(name, value);
    }
    let answer = request.send().await?;
    Ok((answer.status(), answer.headers().clone()))
}

fn read(status: StatusCode, headers: &HeaderMap, known: Option<&Validator>) -> Option<Validator> {
    let now = Validator::of(headers);
    match (status, known) {
        (StatusCode::OK, _) => now,
        // It may leave out the date, and does not mean ours if it names another tag.
        (StatusCode::NOT_MODIFIED, Some(known)) => match (&now, known) {
            (Some(Validator::EntityTag(_)), Validator::EntityTag(_)) => now,
            _ => Some(known.clone()),
        },
        // Nobody asked for that.
        (StatusCode::NOT_MODIFIED, None) => None,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &'static str) -> Validator {
        Validator::EntityTag(HeaderValue::from_static(text))
    }

    fn date(text: &'static str) -> Validator {
        Validator::LastModified(HeaderValue::from_static(text))
    }

    #[test]
    fn an_answer_names_the_version_that_the_server_has_now() {
        let headers = |pairs: &[(HeaderName, &'static str)]| -> HeaderMap {
            let pairs = pairs.iter().cloned();
            pairs
                .map(|(name, value)| (name, HeaderValue::from_static(value)))
                .collect()
        };
        let (ok, unchanged) = (StatusCode::OK, StatusCode::NOT_MODIFIED);
        let (a, monday) = (tag("\"a\""), date("Monday"));
        for (status, answered, known, expected) in [
            (
                ok,
                &[(ETAG, "\"a\""), (LAST_MODIFIED, "Monday")][..],
                None,
                Some(&a),
            ),
            (ok, &[(LAST_MODIFIED, "Monday")], None, Some(&monday)),
            (ok, &[], None, None),
            (ok, &[], Some(&a), None),
            (ok, &[(ETAG, "\"b\"")], Some(&a), Some(&tag("\"b\""))),
            (unchanged, &[], Some(&a), Some(&a)),
            (unchanged, &[(LAST_MODIFIED, "Monday")], Some(&a), Some(&a)),
            (unchanged, &[], Some(&monday), Some(&monday)),
            // These servers answer another question.
            (unchanged, &[(ETAG, "\"b\"")], Some(&a), Some(&tag("\"b\""))),
            (unchanged, &[(ETAG, "\"a\"")], None, None),
            (StatusCode::NOT_FOUND, &[(ETAG, "\"a\"")], Some(&a), None),
            (
                StatusCode::PARTIAL_CONTENT,
                &[(ETAG, "\"a\"")],
                Some(&a),
                None,
            ),
        ] {
            let now = read(status, &headers(answered), known);
            assert_eq!(now.as_ref(), expected, "{status} {answered:?} {known:?}");
        }
    }
}
