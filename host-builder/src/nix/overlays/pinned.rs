//! An overlay as the administrator's file names it: a source whose content can't change, and a file in it.
//!
//! | written | pinned by |
//! | --- | --- |
//! | `{"git": URL, "commit": ID}`, with `"ref"` if the default branch has not that commit | the commit |
//! | `{"archive": URL, "sha256": HASH}` | the hash of its unpacked content |
//! | `{"path": "/nix/store/…"}` | the store, where nobody changes files |
//!
//! Each may have a `"file"`. A source without a pin is refused, and the error says how to pin it: what it
//! has tomorrow would change images whose keys stay the same.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::closure::{STORE_DIR, StorePath};
use crate::fingerprint::Fingerprint;
use crate::nix::hash::sha256_hex;
use crate::telemetry::redact::{keep_url, redact};

/// The file of a folder that names none: what Nix imports of a folder.
const DEFAULT_FILE: &str = "default.nix";
/// The ref of a git repository that names none: its default branch.
const DEFAULT_REF: &str = "HEAD";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct Overlay {
    pub(super) source: Pinned,
    file: Option<String>,
}

/// A source whose content can't change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pinned {
    Git {
        url: String,
        /// A ref that contains the commit.
        reference: String,
        /// 40 hexadecimal digits.
        commit: String,
    },
    Archive {
        url: String,
        /// Of the unpacked content, in hexadecimal digits.
        sha256: String,
    },
    Store(StorePath),
}

/// The fields of all kinds of sources, so that an error can name the one that is missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    git: Option<String>,
    commit: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    archive: Option<String>,
    sha256: Option<String>,
    path: Option<String>,
    file: Option<String>,
}

impl Overlay {
    /// Identifies its content, for keys. Where it is fetched from is no part of that: it may move.
    pub(in crate::nix) fn key(&self) -> String {
        let [kind, pin] = self.source.pin();
        let file = self.file.as_deref().unwrap_or(DEFAULT_FILE);
        let key = Fingerprint::new("overlay-1").part(kind).part(pin);
        key.part(file).hex()
    }

    /// The file that Nix imports; a source that is a file itself is imported as such.
    pub(super) fn file_in(&self, source: &Path) -> PathBuf {
        match &self.file {
            None if source.is_file() => source.to_owned(),
            file => source.join(file.as_deref().unwrap_or(DEFAULT_FILE)),
        }
    }
}

impl Pinned {
    /// Its kind, and what determines its content.
    fn pin(&self) -> [String; 2] {
        match self {
            Self::Git { commit, .. } => ["git".to_owned(), commit.clone()],
            Self::Archive { sha256, .. } => ["archive".to_owned(), sha256.clone()],
            Self::Store(path) => ["store".to_owned(), path.to_string()],
        }
    }

    /// The name of its link in the state folder.
    pub(super) fn link_name(&self) -> String {
        let [kind, pin] = self.pin();
        Fingerprint::new("overlay-source-1")
            .part(kind)
            .part(pin)
            .hex()
    }
}

/// For people, without credentials.
impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git { url, commit, .. } => write!(f, "{} at {commit}", redact(url)),
            Self::Archive { url, .. } => f.write_str(&redact(url)),
            Self::Store(path) => path.fmt(f),
        }
    }
}

impl TryFrom<Written> for Overlay {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self> {
        let Written {
            git,
            commit,
            reference,
            archive,
            sha256,
            path,
            file,
        } = written;
        for url in git.iter().chain(&archive) {
            keep_url(url);
        }
        if let Some(file) = &file {
            check_file(file)?;
        }
        let source = match (git, archive, path) {
            (Some(url), None, None) => {
                ensure!(sha256.is_none(), "a git repository has no \"sha256\"");
                self::git(url, commit, reference)?
            }
            (None, Some(url), None) => {
                let of_git = commit.or(reference);
                ensure!(of_git.is_none(), "an archive has no \"commit\" or \"ref\"");
                self::archive(url, sha256)?
            }
            (None, None, Some(path)) => {
                let other = commit.or(reference).or(sha256);
                ensure!(other.is_none(), "a \"path\" is pinned by itself");
                store(&path)?
            }
            _ => bail!(
                "an overlay has exactly one of \"git\", \"archive\" and \"path\". Write {{\"git\": URL, \
                 \"commit\": ID}}, {{\"archive\": URL, \"sha256\": HASH}} or {{\"path\": \"{STORE_DIR}/…\"}}"
            ),
        };
        Ok(Self { source, file })
    }
}

fn git(url: String, commit: Option<String>, reference: Option<String>) -> Result<Pinned> {
    check_url(&url)?;
    let shown = redact(&url);
    let how = format!(
        "Write its 40 hexadecimal digits as \"commit\": `git ls-remote {shown}` prints those of branches"
    );
    let Some(commit) = commit else {
        bail!("{shown} is not pinned. {how}");
    };
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    ensure!(
        commit.len() == 40 && commit.bytes().all(is_digit),
        "{shown} is not pinned: \"{}\" is no full id of a commit, and may mean another one tomorrow. {how}",
        commit.escape_debug()
    );
    let reference = reference.unwrap_or_else(|| DEFAULT_REF.to_owned());
    ensure!(
        reference == DEFAULT_REF || reference.starts_with("refs/"),
        "the \"ref\" of {shown} is \"{}\". Write its full name, such as \"refs/heads/main\"",
        reference.escape_debug()
    );
    Ok(Pinned::Git {
        url,
        reference,
        commit,
    })
}

fn archive(url: String, sha256: Option<String>) -> Result<Pinned> {
    check_url(&url)?;
    let shown = redact(&url);
    let how = format!(
        "Write the hash of its content as \"sha256\": `nix-prefetch-url --unpack {shown}` prints it"
    );
    let Some(written) = sha256 else {
        bail!("{shown} is not pinned. {how}");
    };
    let is_marked = written.contains([':', '-']);
    let marked = match is_marked {
        true => written.clone(),
        false => format!("sha256:{written}"),
    };
    let sha256 = sha256_hex(&json!(marked)).with_context(|| {
        let written = written.escape_debug();
        format!("{shown} is not pinned: \"{written}\" is no SHA-256. {how}")
    })?;
    Ok(Pinned::Archive { url, sha256 })
}

fn store(path: &str) -> Result<Pinned> {
    path.parse().map(Pinned::Store).with_context(|| {
        format!(
            "\"{}\" is not pinned: it is no path of the Nix store, and may have another content tomorrow. \
             `nix-store --add` copies it there and prints the path to write",
            path.escape_debug()
        )
    })
}

/// Programs take it for what it is.
fn check_url(url: &str) -> Result<()> {
    ensure!(
        !url.is_empty()
            && !url.starts_with('-')
            && !url.contains(|c: char| c.is_whitespace() || c.is_control()),
        "\"{}\" is no URL",
        redact(url).escape_debug()
    );
    Ok(())
}

fn check_file(file: &str) -> Result<()> {
    let is_plain = |component| matches!(component, Component::Normal(_));
    let inside = Path::new(file).components().all(is_plain);
    ensure!(
        !file.is_empty() && inside,
        "\"file\" is \"{}\". Write the path of a file in the overlay's source, such as \"overlays/tools.nix\"",
        file.escape_debug()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const PATH: &str = "/nix/store/00000000000000000000000000000000-tools";

    fn parse(json: &serde_json::Value) -> Result<Overlay> {
        Ok(serde_json::from_value(json.clone())?)
    }

    #[test]
    fn what_is_not_pinned_is_refused_with_what_to_do() {
        let (git, archive) = ("https://git.corp/o.git", "https://files.corp/o.tar.gz");
        for (json, words) in [
            (
                json!({}),
                "exactly one of \"git\", \"archive\" and \"path\"",
            ),
            (json!({"git": git, "path": PATH}), "exactly one of"),
            (
                json!({ "git": git }),
                "`git ls-remote https://git.corp/o.git` prints",
            ),
            (
                json!({"git": git, "commit": "main"}),
                "\"main\" is no full id",
            ),
            (json!({"git": git, "commit": &COMMIT[1..]}), "is no full id"),
            (
                json!({"git": git, "commit": COMMIT, "ref": "main"}),
                "refs/heads/main",
            ),
            (
                json!({"git": git, "commit": COMMIT, "sha256": HEX}),
                "has no \"sha256\"",
            ),
            (
                json!({"git": "--upload-pack=x", "commit": COMMIT}),
                "is no URL",
            ),
            (
                json!({ "archive": archive }),
                "`nix-prefetch-url --unpack https://files.corp/o.tar.gz` prints",
            ),
            (
                json!({"archive": archive, "sha256": "sha512-x"}),
                "\"sha512-x\" is no SHA-256",
            ),
            (
                json!({"archive": archive, "commit": COMMIT}),
                "has no \"commit\"",
            ),
            (
                json!({ "path": "/etc/nixgate/overlay" }),
                "`nix-store --add`",
            ),
            (json!({"path": PATH, "sha256": HEX}), "pinned by itself"),
            (json!({"path": PATH, "file": "../x.nix"}), "\"../x.nix\""),
            (json!({"path": PATH, "file": "/x.nix"}), "\"/x.nix\""),
            (
                json!({"path": PATH, "file": ""}),
                "Write the path of a file",
            ),
            (json!({"path": PATH, "rev": COMMIT}), "unknown field `rev`"),
        ] {
            let error = format!("{:#}", parse(&json).unwrap_err());
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn a_password_is_in_no_error() {
        let url = "https://user:a-secret-word@git.corp/o.git";
        let error = parse(&json!({ "git": url })).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("git.corp"), "{error}");
        assert!(!error.contains("a-secret-word"), "{error}");
    }

    #[test]
    fn the_content_is_the_key_wherever_it_comes_from() {
        let key = |json| parse(&json).unwrap().key();
        let git = key(json!({"git": "https://a/o", "commit": COMMIT}));
        let moved = json!({"git": "ssh://b/o", "commit": COMMIT, "ref": "refs/heads/x", "file": "default.nix"});
        assert_eq!(git, key(moved));
        let archive = |sha256: &str| key(json!({"archive": "https://a/o.tar", "sha256": sha256}));
        // As `nix-prefetch-url` and `nix hash` print it.
        let base32 = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
        assert_eq!(archive(HEX), archive(base32));
        assert_eq!(archive(HEX), archive(&format!("sha256:{base32}")));
        let base64 = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(archive(HEX), archive(base64));
        let path = key(json!({ "path": PATH }));
        let file = key(json!({"path": PATH, "file": "x.nix"}));
        let all = [git, archive(HEX), path, file];
        let unique: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
    }
}
