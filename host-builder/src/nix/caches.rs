//! Troubles of binary caches, recognised by what Nix prints, and remembered for `/readyz`.
//!
//! Nix tries a cache several times, then goes on: it tries the next cache, builds the package itself, or
//! gives up. What it prints of a cache is here; whether an image is made is for [`cli`](super::cli).
//!
//! | what Nix prints | trouble |
//! | --- | --- |
//! | `unable to download '<cache>/nix-cache-info': …`, or `…narinfo`, or `…nar/…` | no answer, or an error |
//! | `file 'nar/…' does not exist in binary cache '<cache>'` | it lost an archive |
//! | `NAR for '<path>' fetched from '<cache>' is incomplete` | corrupt |
//! | `hash mismatch importing path '<path>'`, [what a bad archive leads to](BAD_ARCHIVE) | corrupt; what was copied last tells the cache |
//! | `ignoring substitute for '<path>' from '<cache>', as it's not signed by …` | no trusted signature |
//!
//! Lines of a build's log, which could say anything, begin with `>`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::telemetry::redact::redact;

/// Caches whose last trouble is remembered: as many as anybody has.
const MOST: usize = 16;
/// What Nix prints of an archive that it can't read.
const BAD_ARCHIVE: [&str; 8] = [
    "error: bad archive",
    "error: non-zero padding",
    "error: serialised integer",
    "error: string is too long",
    "error: unexpected end-of-file",
    "decompress",
    // By a wrong length, Nix wants more memory than there is, or can be.
    "std::bad_alloc",
    "basic_string::",
];
/// How long a trouble is told: Nix asks a cache that failed again after a minute.
const TOLD: Duration = Duration::from_secs(600);
/// Characters of Nix's reason that are kept.
const MAX_REASON: usize = 300;

/// What is wrong with a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// It does not answer, or answers with an error.
    Unavailable,
    /// It announces an archive that it doesn't have.
    Lost,
    /// It sends other bytes than it announces.
    Corrupt,
    /// A path has no signature by a trusted key.
    Unsigned,
}

/// A trouble of one cache with one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheTrouble {
    pub(crate) kind: TroubleKind,
    /// Its URL, without credentials; empty where Nix does not say it.
    pub(crate) cache: String,
    /// The store path, or what of the cache was asked for.
    pub(crate) path: String,
    /// In Nix's words.
    pub(crate) reason: String,
}

impl TroubleKind {
    /// For metrics and `/readyz`.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Lost => "lost",
            Self::Corrupt => "corrupt",
            Self::Unsigned => "unsigned",
        }
    }

    /// Whether Nix may have what it wanted if it asks again.
    pub(super) const fn passes(self) -> bool {
        !matches!(self, Self::Unsigned)
    }
}

impl fmt::Display for CacheTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cache,
            path,
            reason,
            ..
        } = self;
        write!(f, "the binary cache {cache} failed at {path}: {reason}")
    }
}

impl CacheTrouble {
    /// Reads one line of what Nix prints as an error or a warning. `copies` are the paths that it has begun
    /// to copy, each with its cache, the last one last.
    pub(super) fn read(line: &str, copies: &[(String, String)]) -> Option<Self> {
        let line = line.trim();
        // A line for a retry comes before the one for the failure.
        if line.starts_with('>') || is_retry(line) {
            return None;
        }
        let quoted = |after: &str| -> Option<(&str, &str)> {
            let (_, rest) = line.split_once(after)?;
            rest.split_once('\'')
        };
        let of = |kind, cache: &str, path: &str, reason: &str| {
            let reason: String = redact(reason).chars().take(MAX_REASON).collect();
            Some(Self {
                kind,
                cache: redact(cache),
                path: redact(path),
                reason,
            })
        };
        if let Some((url, rest)) = quoted("unable to download '") {
            let (cache, path) = parts(url)?;
            let reason = rest.trim_start_matches(':').trim();
            return of(TroubleKind::Unavailable, cache, path, reason);
        }
        if let Some((path, rest)) = quoted("NAR for '") {
            let (_, rest) = rest.split_once(" fetched from '")?;
            let (cache, reason) = rest.split_once('\'')?;
            return of(TroubleKind::Corrupt, cache, path, reason.trim());
        }
        if let Some((path, rest)) = quoted("hash mismatch importing path '") {
            let reason = rest.trim_start_matches([';', ':']).trim();
            let reason = match reason {
                "" => "its hash differs from the announced one",
                reason => reason,
            };
            let copy = copies.iter().rev().find(|(copied, _)| copied == path);
            let cache = copy.map_or("", |(_, cache)| cache);
            return of(TroubleKind::Corrupt, cache, path, reason);
        }
        if BAD_ARCHIVE.iter().any(|words| line.contains(words))
            && let Some((path, cache)) = copies.last()
        {
            let (_, reason) = line.rsplit_once("error: ").unwrap_or(("", line));
            return of(TroubleKind::Corrupt, cache, path, reason);
        }
        if let Some((cache, _)) = quoted("does not exist in binary cache '") {
            let (path, _) = quoted("file '")?;
            let reason = "the cache has announced it and does not have it";
            return of(TroubleKind::Lost, cache, path, reason);
        }
        if line.contains("not signed by any of the keys") {
            let (path, rest) = quoted("substitute for '")?;
            let (_, rest) = rest.split_once("from '")?;
            let (cache, _) = rest.split_once('\'')?;
            let reason = "it has no signature by a key of trusted-public-keys";
            return of(TroubleKind::Unsigned, cache, path, reason);
        }
        None
    }
}

/// Whether Nix says that it will try a download again.
pub(super) fn is_retry(line: &str) -> bool {
    line.contains("; retrying in ") || line.contains("; retrying from offset ")
}

/// A cache's URL, and what of it a URL names; none when it names nothing of a cache.
fn parts(url: &str) -> Option<(&str, &str)> {
    let base = url.split(['?', '#']).next()?;
    let (cache, file) = base.rsplit_once('/')?;
    if let Some(cache) = cache.strip_suffix("/nar") {
        return Some((cache, &url[cache.len() + 1..]));
    }
    let is_info = file == "nix-cache-info" || file.ends_with(".narinfo");
    is_info.then_some((cache, file))
}

/// The last trouble of each cache.
#[derive(Default)]
pub(super) struct Troubles(Mutex<BTreeMap<String, (Instant, CacheTrouble)>>);

impl Troubles {
    pub(super) fn remember(&self, trouble: &CacheTrouble) {
        let mut troubles = self.0.lock();
        if troubles.len() < MOST || troubles.contains_key(&trouble.cache) {
            let last = (Instant::now(), trouble.clone());
            troubles.insert(trouble.cache.clone(), last);
        }
    }

    /// Those of the last minutes, with their ages.
    pub(super) fn recent(&self) -> Vec<(Duration, CacheTrouble)> {
        let mut troubles = self.0.lock();
        troubles.retain(|_, (at, _)| at.elapsed() < TOLD);
        let told = troubles.values();
        told.map(|(at, trouble)| (at.elapsed(), trouble.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/nix/store/00000000000000000000000000000000-git-2";

    fn copies() -> Vec<(String, String)> {
        vec![(PATH.to_owned(), "https://cache.corp/nix".to_owned())]
    }

    fn check(line: &str, kind: TroubleKind, cache: &str, path: &str) {
        let trouble = CacheTrouble::read(line, &copies()).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(
            (trouble.kind, &trouble.cache[..], &trouble.path[..]),
            (kind, cache, path),
            "{line}"
        );
    }

    /// As Nix 2.8 and 2.26 print them.
    #[test]
    fn each_trouble_names_the_cache_and_what_was_asked_for() {
        let cache = "https://cache.corp/nix";
        for line in [
            "warning: unable to download 'https://cache.corp/nix/nix-cache-info': Couldn't connect to server (7)",
            "warning: unable to download 'https://cache.corp/nix/nix-cache-info': HTTP error 500",
        ] {
            check(line, TroubleKind::Unavailable, cache, "nix-cache-info");
        }
        check(
            "error (ignored): error: unable to download 'https://cache.corp/nix/00.narinfo': HTTP error 500 ('Internal Server Error')",
            TroubleKind::Unavailable,
            cache,
            "00.narinfo",
        );
        check(
            "error: unable to download 'https://cache.corp/nix/nar/0a.nar.xz': HTTP error 200 (curl error: Transferred a partial file)",
            TroubleKind::Unavailable,
            cache,
            "nar/0a.nar.xz",
        );
        check(
            "error: file 'nar/0a.nar' does not exist in binary cache 'https://cache.corp/nix'",
            TroubleKind::Lost,
            cache,
            "nar/0a.nar",
        );
        for line in [
            &format!("error: NAR for '{PATH}' fetched from '{cache}' is incomplete"),
            "error: bad archive: expected tag ')', got '\u{fffd}'",
            "error: non-zero padding",
            "std::bad_alloc",
            "basic_string::_M_create",
        ] {
            check(line, TroubleKind::Corrupt, cache, PATH);
        }
        for line in [
            format!(
                "warning: the substitute for '{PATH}' from '{cache}' is not signed by any of the keys in 'trusted-public-keys'"
            ),
            format!(
                "warning: ignoring substitute for '{PATH}' from '{cache}', as it's not signed by any of the keys in 'trusted-public-keys'"
            ),
        ] {
            check(&line, TroubleKind::Unsigned, cache, PATH);
        }
    }

    #[test]
    fn what_is_of_no_cache_or_not_the_end_is_no_trouble() {
        for line in [
            "> error: unable to download 'https://cache.corp/nix-cache-info': HTTP error 500",
            "warning: error: unable to download 'https://cache.corp/nix-cache-info': HTTP error 500; retrying in 281 ms",
            "error: unable to download 'https://ftp.gnu.org/git.tar.gz': HTTP error 404",
            "error: builder for '/nix/store/x.drv' failed with exit code 1",
        ] {
            assert_eq!(CacheTrouble::read(line, &copies()), None, "{line}");
        }
    }

    #[test]
    fn one_trouble_of_each_cache_is_remembered_of_a_bounded_number() {
        let troubles = Troubles::default();
        for number in 0..100 {
            let line =
                format!("error: unable to download 'http://{number}/0.narinfo': HTTP error 500");
            for _ in 0..2 {
                troubles.remember(&CacheTrouble::read(&line, &[]).unwrap());
            }
        }
        assert_eq!(troubles.recent().len(), MOST);
    }
}
