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
//!
//! tower-http reads the files. It follows every link, and waits for the writer of a pipe. So [`Website::has`]
//! decides first what may be read. Between the two, only who may write to the folder can change a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use nixgate_core::distribution::Route;
use percent_encoding::percent_decode_str;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tower_http::services::ServeDir;

use super::{App, RouteLabel};

/// What Envoy puts before a path.
const MOUNT: &str = "/web";
/// Bytes of a file. Each request holds one of its pieces, of 64 KiB, in memory.
const MAX_FILE: u64 = 64 << 20;
/// Requests that look for their file at once: a slow disk keeps a thread for each.
const LOOKING: usize = 16;

/// The folder with the files.
#[derive(Debug)]
pub(crate) struct Website {
    /// As it was written: it may be a link that is changed to lead to a new version.
    folder: PathBuf,
    files: ServeDir,
    looking: Semaphore,
}

impl Website {
    /// # Errors
    /// When there is no such folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let shown = folder.display();
        let metadata = folder.metadata();
        let metadata = metadata.with_context(|| format!("cannot open WEB_DIR {shown}"))?;
        ensure!(
            metadata.is_dir(),
            "WEB_DIR {shown} is not a folder. Name the folder that index.html is in"
        );
        Ok(Self {
            folder: folder.to_owned(),
            files: ServeDir::new(folder),
            looking: Semaphore::new(LOOKING),
        })
    }

    /// Whether a path leads to a file of bounded size in the folder, or to a folder with an index. Links that
    /// stay in the folder are followed, since orchestrators mount files as such.
    fn has(&self, path: &str) -> bool {
        let find = || -> Option<fs::Metadata> {
            let decoded = percent_decode_str(path).decode_utf8().ok()?;
            let mut names: Vec<&str> = decoded.strip_prefix('/')?.split('/').collect();
            let is_folder = names.pop_if(|last| last.is_empty()).is_some();
            // Names with a dot in front are for programs (`.git`, `.htpasswd`). An empty one would let a
            // redirect lead to another host (`//host`).
            let is_page = |name: &&str| !name.is_empty() && !name.starts_with('.');
            let are_pages = names
                .iter()
                .all(|name| is_page(name) || *name == ".well-known");
            let root = self.folder.canonicalize().ok().filter(|_| are_pages)?;
            let real = |path: PathBuf| {
                path.canonicalize()
                    .ok()
                    .filter(|real| real.starts_with(&root))
            };
            let found = real(root.join(names.iter().collect::<PathBuf>()))?;
            match found.is_dir() {
                true => real(found.join("index.html"))?.metadata().ok(),
                false => found.metadata().ok().filter(|_| !is_folder),
            }
        };
        find().is_some_and(|file| file.is_file() && file.len() <= MAX_FILE)
    }

    async fn answer(self: Arc<Self>, path: String, request: Request) -> Response {
        let _permit = self.looking.acquire().await;
        let website = Arc::clone(&self);
        let asked = path.clone();
        let has = tokio::task::spawn_blocking(move || website.has(&asked)).await;
        let Some(request) = at(request, &path).filter(|_| has.unwrap_or(false)) else {
            return not_found();
        };
        let Ok(answer) = self.files.clone().oneshot(request).await;
        let mut answer = answer.map(Body::new);
        let set: [(HeaderName, &str); 2] = [
            // Browsers ask each time whether it has changed.
            (CACHE_CONTROL, "no-cache"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        let set = set.map(|(name, value)| (name, HeaderValue::from_static(value)));
        answer.headers_mut().extend(set);
        answer
    }
}

/// The request, for this path. Without the name of a host, which redirects would have.
fn at(mut request: Request, path: &str) -> Option<Request> {
    let mut uri = Uri::default().into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    Some(request)
}

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/web/", any(mounted))
        .route("/web/{*path}", any(mounted))
}

async fn mounted(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path().strip_prefix(MOUNT).map(str::to_owned);
    serve(&app, path, request)
        .await
        .unwrap_or_else(|_| not_found())
}

/// Middleware of the registry: answers what is not for it.
pub(super) async fn beside_the_registry(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let path = website_path(request.uri());
    match serve(&app, path, request).await {
        Ok(response) => response,
        Err(request) => next.run(request).await,
    }
}

/// The path of the website, if it is not the registry's.
fn website_path(uri: &Uri) -> Option<String> {
    let is_elsewhere = matches!(Route::parse(uri.path()), Ok(Route::Elsewhere));
    is_elsewhere.then(|| uri.path().to_owned())
}

/// Gives the request back if there is no website, or no path of it.
async fn serve(app: &App, path: Option<String>, request: Request) -> Result<Response, Request> {
    let (Some(website), Some(path)) = (&app.website, path) else {
        return Err(request);
    };
    let answer = Arc::clone(website).answer(path, request).await;
    Ok((Extension(RouteLabel("web")), answer).into_response())
}

fn not_found() -> Response {
    let text = "There is no such page. This is a container registry; its images are under /v2/.\n";
    let kind = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::NOT_FOUND, kind, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use http::Method;
    use http::header::{ALLOW, IF_MODIFIED_SINCE, LAST_MODIFIED, LOCATION};

    use super::*;

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new() -> Self {
            let fixture = Self(tempfile::tempdir().unwrap());
            fixture.write("secret", "secret");
            fixture.write("web/index.html", "<h1>");
            fixture
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, content: impl AsRef<[u8]>) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn link(&self, path: &str, target: impl AsRef<Path>) {
            symlink(target, self.path(path)).unwrap();
        }

        fn open(&self) -> Arc<Website> {
            Arc::new(Website::open(&self.path("web")).unwrap())
        }
    }

    async fn ask(website: &Arc<Website>, request: http::request::Builder) -> Response {
        let request = request.body(Body::empty()).unwrap();
        let path = request.uri().path().to_owned();
        Arc::clone(website).answer(path, request).await
    }

    async fn get(website: &Arc<Website>, path: &str) -> Response {
        ask(website, Request::get(path)).await
    }

    #[tokio::test]
    async fn a_path_is_decoded_once_and_leads_nowhere_else() {
        let fixture = Fixture::new();
        fixture.write("web/a b/index.html", "<h2>");
        fixture.write("web/empty/page.css", "p");
        fixture.write("web/.well-known/security.txt", "s");
        fixture.write("web/.git/config", "secret");
        fixture.write("web/.htpasswd", "secret");
        let website = fixture.open();
        for (path, expected) in [
            ("/", 200),
            ("/index.html", 200),
            ("/index.html/", 404),
            ("/%69ndex.html", 200),
            ("/%2569ndex.html", 404),
            ("/a%20b/", 200),
            ("/a%20b", 307),
            ("//a%20b", 404),
            ("/a%20b//", 404),
            ("/a%20b/../index.html", 404),
            ("/a%20b/./index.html", 404),
            ("/empty/", 404),
            ("/empty", 404),
            ("/empty/page.css", 200),
            ("/.well-known/security.txt", 200),
            ("/.git/config", 404),
            ("/.htpasswd", 404),
            ("/..%2f..%2fetc/passwd", 404),
            ("/%2e%2e/secret", 404),
            ("/../secret", 404),
            ("//etc/passwd", 404),
            ("/%2fetc/passwd", 404),
            ("/index.html%00", 404),
            ("/%ff", 404),
            ("/%", 404),
            ("/nope", 404),
        ] {
            assert_eq!(get(&website, path).await.status(), expected, "{path}");
        }
        let redirect = get(&website, "http://registry.corp/a%20b?x").await;
        assert_eq!(redirect.headers()[LOCATION], "/a%20b/");
    }

    #[test]
    fn nothing_outside_of_the_folder_and_nothing_but_files_is_served() {
        let fixture = Fixture::new();
        fixture.write("outside/index.html", "secret");
        fixture.link("web/out", "../secret");
        fixture.link("web/absolute", fixture.path("secret"));
        fixture.link("web/folder", "../outside");
        fixture.link("web/etc", "/etc");
        fixture.link("web/zero", "/dev/zero");
        fixture.link("web/nowhere", "nowhere");
        fixture.link("web/itself", "itself");
        fixture.write("web/index/x", "");
        fixture.link("web/index/index.html", "../../secret");
        let _listener = UnixListener::bind(fixture.path("web/socket")).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(fixture.path("web/pipe"))
            .status();
        assert!(made.unwrap().success());
        let huge = fs::File::create(fixture.path("web/huge")).unwrap();
        huge.set_len(MAX_FILE + 1).unwrap();
        let website = fixture.open();
        assert!(website.has("/index.html"));
        for path in [
            "/out",
            "/absolute",
            "/folder",
            "/folder/",
            "/etc/passwd",
            "/zero",
            "/nowhere",
            "/itself",
            "/index",
            "/index/",
            "/socket",
            "/pipe",
            "/huge",
        ] {
            assert!(!website.has(path), "{path}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_is_followed() {
        let fixture = Fixture::new();
        fs::remove_dir_all(fixture.path("web")).unwrap();
        fixture.write("one/..2026/page.html", "one");
        fixture.link("one/..data", "..2026");
        fixture.link("one/page.html", "..data/page.html");
        fixture.write("two/page.html", "two");
        fixture.link("web", "one");
        let website = fixture.open();
        let text = async |website: &Arc<Website>| {
            let body = get(website, "/page.html").await.into_body();
            axum::body::to_bytes(body, 100).await.unwrap()
        };
        assert_eq!(text(&website).await, "one");
        fixture.link("next", "two");
        fs::rename(fixture.path("next"), fixture.path("web")).unwrap();
        assert_eq!(text(&website).await, "two");
    }

    #[tokio::test]
    async fn a_known_file_is_not_sent_again_and_nothing_is_changed() {
        let fixture = Fixture::new();
        let website = fixture.open();
        let first = get(&website, "/").await;
        assert_eq!(first.headers()[CONTENT_TYPE], "text/html");
        assert_eq!(first.headers()[CACHE_CONTROL], "no-cache");
        let known = Request::get("/").header(IF_MODIFIED_SINCE, &first.headers()[LAST_MODIFIED]);
        assert_eq!(ask(&website, known).await.status(), 304);
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let refused = ask(&website, Request::builder().method(method).uri("/")).await;
            assert_eq!(refused.status(), 405);
            assert_eq!(refused.headers()[ALLOW], "GET,HEAD");
        }
    }

    #[test]
    fn a_folder_is_needed() {
        let fixture = Fixture::new();
        for path in ["nope", "secret"] {
            let error = Website::open(&fixture.path(path)).unwrap_err();
            assert!(error.to_string().contains("WEB_DIR"), "{error}");
        }
    }

    #[test]
    fn the_registry_s_paths_are_never_the_website_s() {
        for (uri, expected) in [
            ("/", Some("/")),
            ("/logo.png?x", Some("/logo.png")),
            ("//v2/", Some("//v2/")),
            ("/v2x", Some("/v2x")),
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
