//! A small website in a folder, held in memory.
//!
//! Strangers ask for its files. So no request opens one: a path is looked up in a map of what the folder
//! had, and nothing else can be found there, whatever the path has in it. The folder is read at the start,
//! and when a file has changed, by one thread at a time and at most once in [`CHECK_EVERY`].
//!
//! What can't be served is left out, and logged:
//!
//! - links out of the folder. Links within it are followed, since orchestrators mount files as such;
//! - what is neither a file nor a folder: reading a pipe or a device may never end;
//! - what is beyond the bounds below.
//!
//! Names with a dot at the beginning are for programs (`.git`, `.htpasswd`), except `.well-known`.
//!
//! tower-http's `ServeDir` was considered: it follows every link, and an open pipe takes one of its threads
//! for ever.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use nixgate_core::distribution::Digest;
use parking_lot::Mutex;
use rustix::fs::OFlags;

/// How often the folder is compared with what is held.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of one file.
const MAX_FILE: u64 = 8 << 20;
/// Bytes of all files. While they are read again, memory holds them twice.
const MAX_BYTES: u64 = 32 << 20;
const MAX_FILES: usize = 1000;
/// Folders, also those that links lead to again.
const MAX_FOLDERS: usize = 1000;
/// Folders in folders.
const MAX_DEPTH: usize = 16;
/// What is left out, and logged by name.
const MAX_LOGGED: usize = 10;

#[derive(Clone, Debug)]
pub(crate) struct WebFile {
    pub(crate) content: Bytes,
    pub(crate) media_type: &'static str,
    pub(crate) digest: Digest,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    File(&'a WebFile),
    /// A folder that has an index: its relative links need a slash at the end.
    Folder,
}

/// The files by their paths, as in `css/page.css`.
#[derive(Debug, Default)]
pub(crate) struct Website(BTreeMap<String, WebFile>);

impl Website {
    /// Looks up a decoded path without its first slash.
    pub(crate) fn find(&self, path: &str) -> Option<Found<'_>> {
        if path.is_empty() || path.ends_with('/') {
            return self.0.get(&format!("{path}index.html")).map(Found::File);
        }
        let file = self.0.get(path).map(Found::File);
        let is_folder = || self.0.contains_key(&format!("{path}/index.html"));
        file.or_else(|| is_folder().then_some(Found::Folder))
    }
}

/// Differs for each content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn new(path: PathBuf, metadata: &Metadata) -> Self {
        Self {
            path,
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// What a folder has, before it is read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    files: BTreeMap<String, Stamp>,
    bytes: u64,
    folders: usize,
    left_out: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct WebFolder {
    /// As it was written: it may be a link that is changed to lead to a new version.
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    website: Arc<Website>,
    listing: Listing,
    checked: Instant,
}

impl WebFolder {
    /// # Errors
    /// When there is no such folder.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let unusable = || format!("cannot open WEB_DIR {}", path.display());
        let metadata = path.metadata().with_context(unusable)?;
        ensure!(
            metadata.is_dir(),
            "WEB_DIR {} is not a folder. Name the folder that index.html is in",
            path.display()
        );
        let listing = Listing::of(path).with_context(unusable)?;
        listing.log(path);
        let website = Arc::new(listing.read());
        let checked = Instant::now();
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(State {
                website,
                listing,
                checked,
            }),
        })
    }

    /// What the folder had lately. This may read from the disk.
    pub(crate) fn current(&self) -> Arc<Website> {
        let mut state = self.state.lock();
        if state.checked.elapsed() < CHECK_EVERY {
            return Arc::clone(&state.website);
        }
        // Others get the present files meanwhile.
        state.checked = Instant::now();
        drop(state);
        self.reload();
        Arc::clone(&self.state.lock().website)
    }

    fn reload(&self) {
        // A folder that is being replaced may be missing for a moment.
        let Ok(listing) = Listing::of(&self.path) else {
            return;
        };
        if self.state.lock().listing == listing {
            return;
        }
        listing.log(&self.path);
        let website = Arc::new(listing.read());
        let mut state = self.state.lock();
        state.website = website;
        state.listing = listing;
    }
}

impl Listing {
    fn of(path: &Path) -> io::Result<Self> {
        // Without links, to tell which lead out of it.
        let root = path.canonicalize()?;
        let mut listing = Self::default();
        listing.add_folder(&root, &mut vec![root.clone()], "")?;
        Ok(listing)
    }

    /// Adds what is in the last folder of `way`, whose files are served below `at`.
    fn add_folder(&mut self, root: &Path, way: &mut Vec<PathBuf>, at: &str) -> io::Result<()> {
        let Some(folder) = way.last() else {
            return Ok(());
        };
        let entries = fs::read_dir(folder)?;
        // One more, so that it is seen that there are too many.
        let entries = entries.take(MAX_FILES + 1).flatten();
        let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            let name = entry.file_name().unwrap_or_default();
            let Some(name) = name.to_str() else {
                self.leave_out(&entry, "its name is not UTF-8");
                continue;
            };
            if name.starts_with('.') && name != ".well-known" {
                continue;
            }
            let path = format!("{at}{name}");
            match self.add(root, way, &entry, &path) {
                Ok(()) => {}
                Err(error) => self.leave_out(&entry, &error.to_string()),
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        root: &Path,
        way: &mut Vec<PathBuf>,
        entry: &Path,
        path: &str,
    ) -> io::Result<()> {
        // Behind all links.
        let real = entry.canonicalize()?;
        let metadata = fs::symlink_metadata(&real)?;
        let bytes = metadata.len();
        if !real.starts_with(root) {
            self.leave_out(entry, "it leads out of the folder");
        } else if metadata.is_dir() {
            if way.contains(&real) || way.len() > MAX_DEPTH || self.folders >= MAX_FOLDERS {
                self.leave_out(entry, "it leads too deep, or to a folder that it is in");
            } else {
                self.folders += 1;
                way.push(real);
                let added = self.add_folder(root, way, &format!("{path}/"));
                way.pop();
                added?;
            }
        } else if !metadata.is_file() {
            self.leave_out(entry, "it is neither a file nor a folder");
        } else if bytes > MAX_FILE {
            let text = format!("it has more than {} MiB", MAX_FILE >> 20);
            self.leave_out(entry, &text);
        } else if self.files.len() >= MAX_FILES || self.bytes + bytes > MAX_BYTES {
            let text = format!(
                "a website has at most {MAX_FILES} files and {} MiB",
                MAX_BYTES >> 20
            );
            self.leave_out(entry, &text);
        } else {
            self.bytes += bytes;
            self.files
                .insert(path.to_owned(), Stamp::new(real, &metadata));
        }
        Ok(())
    }

    fn leave_out(&mut self, entry: &Path, why: &str) {
        // More are not told of.
        if self.left_out.len() < MAX_FILES {
            self.left_out.push(format!("{}: {why}", entry.display()));
        }
    }

    fn log(&self, path: &Path) {
        let (files, path) = (self.files.len(), path.display());
        tracing::info!(%path, files, bytes = self.bytes, "read the website");
        if !self.left_out.is_empty() {
            let count = self.left_out.len();
            let first = &self.left_out[..count.min(MAX_LOGGED)];
            tracing::warn!(%path, count, ?first, "not all of WEB_DIR is served");
        }
    }

    fn read(&self) -> Website {
        let files = self.files.iter().filter_map(|(path, stamp)| {
            let content = read_file(&stamp.path).inspect_err(|error| {
                let path = stamp.path.display();
                tracing::warn!(%path, %error, "cannot read a file of WEB_DIR: it is not served");
            });
            let content = Bytes::from(content.ok()?);
            let file = WebFile {
                media_type: media_type(path),
                digest: Digest::of(&content),
                content,
            };
            Some((path.clone(), file))
        });
        Website(files.collect())
    }
}

/// Reads a file, unless it has become something else.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut options = File::options();
    // To open a pipe would wait for a writer.
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    options.read(true).custom_flags(flags.bits() as i32);
    let file = options.open(path)?;
    let mut content = Vec::new();
    if !file.metadata()?.is_file()
        || file.take(MAX_FILE + 1).read_to_end(&mut content)? as u64 > MAX_FILE
    {
        return Err(io::Error::other("it was replaced while it was read"));
    }
    Ok(content)
}

/// By the end of the name. What is not known is downloaded by a browser, not shown.
fn media_type(path: &str) -> &'static str {
    let end = path.rsplit_once('.').map_or("", |(_, end)| end);
    match end.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "md" => "text/plain; charset=utf-8",
        "xml" => "text/xml; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

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

        fn open(&self) -> WebFolder {
            WebFolder::open(&self.path("web")).unwrap()
        }
    }

    fn paths(website: &Website) -> Vec<&str> {
        website.0.keys().map(String::as_str).collect()
    }

    fn text(website: &Website, path: &str) -> Option<String> {
        match website.find(path)? {
            Found::File(file) => Some(String::from_utf8(file.content.to_vec()).unwrap()),
            Found::Folder => Some(format!("-> {path}/")),
        }
    }

    #[test]
    fn files_are_found_by_their_paths_and_folders_by_their_index() {
        let fixture = Fixture::new();
        fixture.write("web/a/index.html", "a");
        fixture.write("web/b/c.css", "c");
        fixture.write("web/.well-known/security.txt", "s");
        let website = fixture.open().current();
        for (path, expected) in [
            ("", Some("<h1>")),
            ("index.html", Some("<h1>")),
            ("a", Some("-> a/")),
            ("a/", Some("a")),
            ("a//", None),
            ("b", None),
            ("b/", None),
            ("b/c.css", Some("c")),
            ("b/c.css/", None),
            (".well-known/security.txt", Some("s")),
            ("/index.html", None),
            ("a/../index.html", None),
            ("../secret", None),
            ("nope", None),
        ] {
            assert_eq!(text(&website, path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn nothing_outside_of_the_folder_and_nothing_but_files_is_served() {
        let fixture = Fixture::new();
        fixture.write("web/.git/config", "secret");
        fixture.write("web/.htpasswd", "secret");
        fixture.link("web/out", "../secret");
        fixture.link("web/absolute", fixture.path("secret"));
        fixture.link("web/etc", "/etc");
        fixture.link("web/zero", "/dev/zero");
        fixture.link("web/nowhere", "nowhere");
        fixture.link("web/itself", "itself");
        fixture.link("web/loop", ".");
        let _listener = UnixListener::bind(fixture.path("web/socket")).unwrap();
        let pipe = fixture.path("web/pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let folder = fixture.open();
        assert_eq!(paths(&folder.current()), ["index.html"]);
        let left_out = folder.state.lock().listing.left_out.clone();
        let names: Vec<_> = left_out
            .iter()
            .map(|text| text.split(':').next().unwrap().rsplit('/').next().unwrap())
            .collect();
        let all = [
            "absolute", "etc", "itself", "loop", "nowhere", "out", "pipe", "socket", "zero",
        ];
        assert_eq!(names, all);
        read_file(&pipe).unwrap_err();
        read_file(&fixture.path("web/out")).unwrap_err();
    }

    #[test]
    fn mounted_files_are_links_within_the_folder() {
        let fixture = Fixture::new();
        fixture.write("web/..2026/page.html", "p");
        fixture.write("web/..2026/css/a.css", "a");
        fixture.link("web/..data", "..2026");
        fixture.link("web/page.html", "..data/page.html");
        fixture.link("web/css", "..data/css");
        let website = fixture.open().current();
        assert_eq!(paths(&website), ["css/a.css", "index.html", "page.html"]);
        assert_eq!(text(&website, "css/a.css").as_deref(), Some("a"));
    }

    #[test]
    fn a_website_is_bounded() {
        let fixture = Fixture::new();
        let huge = File::create(fixture.path("web/huge")).unwrap();
        huge.set_len(MAX_FILE + 1).unwrap();
        for number in 0..6 {
            let large = File::create(fixture.path(&format!("web/large-{number}"))).unwrap();
            large.set_len(MAX_FILE).unwrap();
        }
        let folder = fixture.open();
        let found = paths(&folder.current()).len();
        // Three, since the index takes some of the bytes of the fourth.
        assert_eq!(found, 1 + 3);

        let fixture = Fixture::new();
        for number in 0..MAX_FILES + 10 {
            fixture.write(&format!("web/{number}"), "");
        }
        assert_eq!(paths(&fixture.open().current()).len(), MAX_FILES);

        let fixture = Fixture::new();
        fixture.write(&format!("web/{}a", "d/".repeat(MAX_DEPTH)), "a");
        fixture.write(&format!("web/{}b", "e/".repeat(MAX_DEPTH + 1)), "b");
        assert_eq!(paths(&fixture.open().current()).len(), 2);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let fixture = Fixture::new();
        let folder = fixture.open();
        fixture.write("web/index.html", "changed");
        fixture.write("web/new.html", "new");
        folder.reload();
        let website = folder.current();
        assert_eq!(text(&website, "").as_deref(), Some("changed"));
        assert_eq!(text(&website, "new.html").as_deref(), Some("new"));
        // A new version under the same name.
        fixture.write("next/index.html", "next");
        fixture.link("link", "web");
        let linked = WebFolder::open(&fixture.path("link")).unwrap();
        fs::remove_file(fixture.path("link")).unwrap();
        fixture.link("link", "next");
        linked.reload();
        assert_eq!(text(&linked.current(), "").as_deref(), Some("next"));
        // It is missing for a moment.
        fs::rename(fixture.path("web"), fixture.path("moved")).unwrap();
        folder.reload();
        assert_eq!(text(&folder.current(), "").as_deref(), Some("changed"));
    }

    #[test]
    fn a_folder_is_needed() {
        let fixture = Fixture::new();
        for path in ["nope", "secret"] {
            let error = WebFolder::open(&fixture.path(path)).unwrap_err();
            assert!(error.to_string().contains("WEB_DIR"), "{error}");
        }
    }

    #[test]
    fn browsers_are_told_what_a_file_is() {
        for (path, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a.b/LOGO.PNG", "image/png"),
            ("a.html/file", "application/octet-stream"),
            ("file", "application/octet-stream"),
        ] {
            assert_eq!(media_type(path), expected, "{path}");
        }
    }
}
