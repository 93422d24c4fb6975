//! The website: files of `WEB_DIR`, for everyone.
//!
//! ```text
//!   a browser ── /logo.png ──► Envoy ── /web/logo.png ──► routes()
//!             ── /logo.png ──────────────────────────────► beside_the_registry()
//! ```
//!
//! Envoy puts `/web/` before the path that a stranger asks for, whatever it is. So the stranger reaches the
//! website, and none of the builder's other paths, which Envoy would have to list otherwise. Without an Envoy,
//! each path that is nobody else's is the website's.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use http::header::{HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri};
use nixgate_core::distribution::Route;
use nixgate_core::entity_tags::EntityTags;
use percent_encoding::percent_decode_str;

use super::headers::{entity_tag, texts};
use super::{App, RouteLabel};
use crate::files::web_folder::{Found, WebFile, WebFolder, Website};

/// What Envoy puts before a path.
const MOUNT: &str = "/web/";

const TEXT: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "text/plain; charset=utf-8")];

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/web/", any(mounted))
        .route("/web/{*path}", any(mounted))
}

async fn mounted(State(app): State<Arc<App>>, request: Parts) -> Response {
    let path = request.uri.path().strip_prefix(MOUNT).unwrap_or_default();
    match &app.web {
        Some(web) => serve(web, path, &request.method, &request.headers).await,
        None => not_found(),
    }
}

/// Middleware of the registry: answers what is not for it.
pub(super) async fn beside_the_registry(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    match (&app.web, website_path(request.uri())) {
        (Some(web), Some(path)) => {
            let (request, _) = request.into_parts();
            serve(web, &path, &request.method, &request.headers).await
        }
        _ => next.run(request).await,
    }
}

/// The path of the website, if it is not the registry's.
fn website_path(uri: &Uri) -> Option<String> {
    let is_elsewhere = matches!(Route::parse(uri.path()), Ok(Route::Elsewhere));
    let path = uri.path().strip_prefix('/').filter(|_| is_elsewhere);
    path.map(str::to_owned)
}

async fn serve(web: &Arc<WebFolder>, path: &str, method: &Method, headers: &HeaderMap) -> Response {
    let web = Arc::clone(web);
    // It may read the folder.
    let website = tokio::task::spawn_blocking(move || web.current()).await;
    let response = answer(&website.unwrap_or_default(), path, method, headers);
    (Extension(RouteLabel("web")), response).into_response()
}

/// The server leaves out the body of an answer to `HEAD`.
fn answer(website: &Website, path: &str, method: &Method, headers: &HeaderMap) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let allow = [(ALLOW, "GET, HEAD")];
        let text = "The website supports GET and HEAD.\n";
        return (StatusCode::METHOD_NOT_ALLOWED, allow, TEXT, text).into_response();
    }
    let decoded = percent_decode_str(path).decode_utf8();
    match decoded.ok().and_then(|decoded| website.find(&decoded)) {
        Some(Found::File(file)) => content(file, headers),
        Some(Found::Folder) => {
            // Relative, and so true with any prefix, and never to another host.
            let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
            let location = [(LOCATION, format!("./{name}/"))];
            (StatusCode::MOVED_PERMANENTLY, location).into_response()
        }
        None => not_found(),
    }
}

fn content(file: &WebFile, headers: &HeaderMap) -> Response {
    let tag = [(ETAG, entity_tag(&file.digest))];
    // Browsers ask each time whether it has changed.
    let cache = [(CACHE_CONTROL, "no-cache")];
    let known = EntityTags::parse(texts(headers, IF_NONE_MATCH));
    if known.has(&file.digest.to_string()) {
        return (StatusCode::NOT_MODIFIED, tag, cache).into_response();
    }
    let kind = [
        (CONTENT_TYPE, file.media_type),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (tag, cache, kind, file.content.clone()).into_response()
}

fn not_found() -> Response {
    let text = "There is no such page. This is a container registry; its images are under /v2/.\n";
    (StatusCode::NOT_FOUND, TEXT, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Status, the named header and the path.
    fn ask(path: &str, method: Method, headers: &HeaderMap) -> Response {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("index.html"), "<h1>").unwrap();
        fs::create_dir(folder.path().join("a b")).unwrap();
        fs::write(folder.path().join("a b/index.html"), "<h2>").unwrap();
        let web = WebFolder::open(folder.path()).unwrap();
        answer(&web.current(), path, &method, headers)
    }

    #[test]
    fn a_path_is_decoded_once_and_leads_nowhere_else() {
        let none = HeaderMap::new();
        for (path, expected) in [
            ("", 200),
            ("index.html", 200),
            ("%69ndex.html", 200),
            ("%2569ndex.html", 404),
            ("a%20b/", 200),
            ("a%20b", 301),
            ("a%20b/../index.html", 404),
            ("..%2f..%2fetc/passwd", 404),
            ("%2e%2e/etc/passwd", 404),
            ("/etc/passwd", 404),
            ("index.html%00", 404),
            ("%ff", 404),
            ("%", 404),
        ] {
            let status = ask(path, Method::GET, &none).status();
            assert_eq!(status, expected, "{path}");
        }
    }

    #[test]
    fn a_folder_s_redirect_stays_on_this_host() {
        let response = ask("a%20b", Method::GET, &HeaderMap::new());
        assert_eq!(response.headers()[LOCATION], "./a%20b/");
    }

    #[test]
    fn a_known_file_is_not_sent_again_and_nothing_is_changed() {
        let mut headers = HeaderMap::new();
        let first = ask("", Method::GET, &headers);
        assert_eq!(first.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(ask("", Method::GET, &headers).status(), 304);
        assert_eq!(ask("a%20b/", Method::GET, &headers).status(), 200);
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let refused = ask("", method, &HeaderMap::new());
            assert_eq!(refused.status(), 405);
            assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
        }
    }

    #[test]
    fn the_registry_s_paths_are_never_the_website_s() {
        for (uri, expected) in [
            ("/", Some("")),
            ("/logo.png?x", Some("logo.png")),
            ("//v2/", Some("/v2/")),
            ("/v2x", Some("v2x")),
            ("/v2", None),
            ("/v2/", None),
            ("/v2/git/manifests/latest", None),
            ("/v2/Bad/manifests/latest", None),
            ("/v2/nope", None),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(website_path(&uri).as_deref(), expected, "{uri}");
        }
    }
}
