//! Package sources, and pinning: from a tag to the exact package set that it means now.
//!
//! ```text
//!   tag ──► Source ──► Pin { where to import from, what names its content }
//!            channel   archive of the channel, unpacked into the Nix store; its hash
//!            git       branch or tag → commit, fetched into the Nix store; the commit
//!            path      a folder, copied into the Nix store; the hash in its store path
//!            flake     with its own lock, all inputs fetched into the Nix store; the commit, or
//!                      the hash in the store path of the whole
//! ```
//!
//! A pin is kept for a while (a setting): until then, a tag means the same package set, no network
//! is asked, and the edge may repeat what it was told. Then a task of its own finds out what the tag
//! means now ([`attempts`]); no client's patience limits it, and none has to wait for it who has an
//! earlier pin. What Nix is to import is in its store, where nobody changes it, and a link in the
//! state folder keeps the garbage collector from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::FutureExt;
use nixgate_core::distribution::{Error, ErrorKind, Tag};

use crate::fingerprint::Fingerprint;
use crate::nix::{Nix, NixError, Version};
use crate::process::ProcessError;
use crate::telemetry::redact::redact;

pub(crate) use allowed_refs::AllowedRefs;
pub(crate) use flake::FlakeUrl;

use finder::Finder;
use refreshing::{Bound, Known, Refreshing};

mod allowed_refs;
mod finder;
mod flake;
mod git;
mod hints;
mod mirror;
pub(crate) mod package_index;
mod refreshing;
mod roots;

/// How long a pin is used beyond its time while the source can't be reached.
const PIN_STALE: Duration = Duration::from_secs(24 * 3600);
/// Commits that are pinned at once. Clients choose among all that a repository ever had, and each
/// may be a whole nixpkgs in the Nix store.
const MAX_COMMITS: usize = 100;
/// What the default branch is pinned as. It is never let go of.
const DEFAULT: &str = "latest";
/// How long a command waits for a package set, which has to be fetched first.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Where packages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A nixpkgs channel, branch or commit, as an archive.
    Channel {
        /// Such as `nixos-unstable`.
        name: String,
        /// `<base>/<name>.tar.gz` is the archive.
        base: String,
    },
    /// A git repository with a Nix package set at its root.
    Git {
        /// What `git ls-remote` takes.
        url: String,
        /// What of it may be used.
        refs: AllowedRefs,
    },
    /// A flake with packages, by its own lock.
    Flake {
        /// Where it is.
        url: FlakeUrl,
        /// What of its repository may be used, if it is in one.
        refs: AllowedRefs,
    },
    /// A folder with a Nix package set.
    Path {
        /// An absolute path.
        path: PathBuf,
    },
}

/// A package set that can't change any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    /// What Nix imports.
    pub(crate) path: PathBuf,
    /// What names its content, for people and for keys.
    pub(crate) revision: String,
}

impl Source {
    /// What names the source, and not what it holds at a time: an image that was made of it stays
    /// an image of this source when the source moves on. So it is without a channel's name, which
    /// may be a commit, and without a folder's path, which may be in the store.
    pub(crate) fn identity(&self) -> String {
        let source = Fingerprint::new("source-1");
        match self {
            Self::Channel { base, .. } => source.part("channel").part(base),
            Self::Git { url, .. } => source.part("git").part(url),
            Self::Path { .. } => source.part("path"),
            Self::Flake { url, .. } if url.is_folder() => source.part("flake"),
            Self::Flake { url, .. } => source.part("flake").part(url.to_string()),
        }
        .hex()
    }

    /// Tags that can be asked for without knowing more than the settings.
    pub(crate) fn tags(&self) -> Vec<String> {
        let latest = "latest".to_owned();
        match self {
            Self::Channel { name, .. } => vec![latest, name.clone()],
            Self::Git { .. } | Self::Path { .. } | Self::Flake { .. } => vec![latest],
        }
    }

    /// What kind it is, for people.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Channel { .. } => "channel",
            Self::Git { .. } => "git",
            Self::Path { .. } => "path",
            Self::Flake { .. } => "flake",
        }
    }

    /// Where it is fetched from; none for a folder.
    fn url(&self) -> Option<String> {
        match self {
            Self::Channel { name, base } => Some(format!("{base}/{name}.tar.gz")),
            Self::Git { url, .. } => Some(url.clone()),
            Self::Flake { url, .. } => Some(url.to_string()),
            Self::Path { .. } => None,
        }
    }

    /// With what to do, where that is known.
    fn explain(&self, error: PinError) -> PinError {
        let remedy = match &error {
            PinError::Process(NixError::Process(ProcessError::Failed { stderr, .. })) => {
                hints::remedy(stderr)
            }
            _ => None,
        };
        match (error, self.url(), remedy) {
            (PinError::Process(error), Some(url), Some(remedy)) => PinError::NotLetIn {
                url: redact(&url),
                remedy,
                error,
            },
            (error, ..) => error,
        }
    }

    /// The git repository that tags are looked up in, if it is one, and what of it may be used.
    fn repository(&self) -> Option<(&str, &AllowedRefs)> {
        match self {
            Self::Git { url, refs } => Some((url, refs)),
            Self::Flake { url, refs } => Some((url.repository()?, refs)),
            Self::Channel { .. } | Self::Path { .. } => None,
        }
    }
}

/// What a tag means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pinned {
    /// This package set, for at least so long.
    Pin(Pin, Duration),
    /// It is being found out, for so long already: the package set is being fetched.
    Preparing(Duration),
}

/// A source with its pins. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Sources {
    finder: Arc<Finder>,
    any_tag: bool,
    pins: Pins,
}

/// What tags mean.
#[derive(Clone)]
struct Pins {
    /// Of branches, tags, and what else the settings name.
    names: Refreshing<Pin>,
    commits: Refreshing<Pin>,
}

impl Pins {
    /// Those among which the pin of a tag is.
    fn of(&self, tag: &str) -> &Refreshing<Pin> {
        if git::is_commit(tag) {
            &self.commits
        } else {
            &self.names
        }
    }
}

/// Why a tag could not be pinned.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PinError {
    /// The source has no such tag.
    #[error("{0}")]
    TagUnknown(String),
    /// Nix or git failed.
    #[error(transparent)]
    Process(#[from] NixError),
    /// Its host lets nobody in, or isn't let in, for want of a setting.
    #[error("{url} can't be fetched: {remedy}. What went wrong: {error}")]
    NotLetIn {
        /// Where it is, without credentials.
        url: String,
        /// What to do.
        remedy: &'static str,
        /// What the program said.
        error: NixError,
    },
    /// The folder can't be read.
    #[error("the package set {path} can't be read: {reason}. Check NIXERY_PKGS_PATH")]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The package set asks for another Nix.
    #[error(
        "this package set needs Nix {needed} or newer, and the Nix on PATH is {found}: install a \
         newer Nix, or use an older package set"
    )]
    NixTooOld {
        /// The oldest that it works with.
        needed: Version,
        /// The one that there is.
        found: Version,
    },
    /// The package set is not there yet.
    #[error("it is being fetched, and not there yet: try again in a while")]
    Preparing,
    /// As many package sets are being fetched, or were lately, as there may be.
    #[error(
        "it is of another branch, tag or commit than those in use, and as many new ones were asked for \
         as are fetched in a while: try again later, or have NIXGATE_MAX_REFS raised"
    )]
    TooMany,
    /// A defect ended the attempt.
    #[error("the attempt ended without a result; the builder's log says why")]
    Interrupted,
}

impl From<PinError> for Error {
    fn from(error: PinError) -> Self {
        let kind = match error {
            PinError::TagUnknown(message) => return Self::new(ErrorKind::ManifestUnknown, message),
            PinError::Process(_)
            | PinError::NotLetIn { .. }
            | PinError::Folder { .. }
            | PinError::NixTooOld { .. }
            | PinError::Preparing => ErrorKind::BuilderUnready,
            PinError::TooMany => ErrorKind::TooBusy,
            PinError::Interrupted => ErrorKind::Internal,
        };
        Self::new(
            kind,
            format!("the package source can't be used now: {error}"),
        )
    }
}

impl Sources {
    /// Prepares a source. With `any_tag`, every tag means the same as `latest` (Nixery's habit).
    /// A tag is looked up again when its pin has held for the time `hold`. At most `max_refs` branches and
    /// tags are pinned. Links that keep package sets from the garbage collector are made in `state_dir`.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub(crate) fn new(
        source: Source,
        nix: Arc<dyn Nix>,
        any_tag: bool,
        hold: Duration,
        max_refs: usize,
        state_dir: &Path,
    ) -> std::io::Result<Self> {
        let bounded = |most, always| {
            let bound = Bound { most, always };
            Refreshing::new(hold, PIN_STALE).bounded(bound)
        };
        let pins = Pins {
            names: bounded(max_refs, Some(DEFAULT)),
            commits: bounded(MAX_COMMITS, None),
        };
        let finder = Finder::new(source, nix, hold, state_dir, pins.clone())?;
        Ok(Self {
            finder: Arc::new(finder),
            any_tag,
            pins,
        })
    }

    /// The source itself.
    pub(crate) fn source(&self) -> &Source {
        self.finder.source()
    }

    /// The package set that a tag means. Who has asked for the tag before is answered at once or
    /// nearly so; otherwise the package set may have to be fetched, and this waits for at most
    /// `wait`, while the fetch goes on.
    ///
    /// # Errors
    /// [`PinError`]; the tag of a client may be unknown.
    pub(crate) async fn pin(&self, tag: &Tag, wait: Duration) -> Result<Pinned, PinError> {
        let wanted = self.wanted(tag)?;
        let started = Instant::now();
        let pins = self.pins.of(&wanted);
        match pins.last(&wanted) {
            Some(pin) if !pin.path.exists() => {
                let path = pin.path.display();
                tracing::warn!(%path, "the package set has gone from the Nix store: getting it again");
                pins.forget(&wanted);
            }
            // An unknown tag is told from the list of them all, and leaves nothing behind.
            None if self.source().repository().is_some() => {
                match self.finder.refs(wait).await? {
                    // A commit may be held by a ref without being its tip.
                    Known::Value(..) if git::is_commit(&wanted) => {}
                    Known::Value(refs, _) => drop(refs.find(&wanted)?),
                    Known::Preparing(since) => return Ok(Pinned::Preparing(since)),
                }
            }
            _ => {}
        }
        let rest = wait.saturating_sub(started.elapsed());
        let known = pins.get(&wanted, rest, || {
            let (finder, wanted) = (Arc::clone(&self.finder), wanted.clone());
            async move { finder.find(&wanted).await }.boxed()
        });
        Ok(match known.await? {
            Known::Value(pin, holds) => Pinned::Pin(pin, holds),
            Known::Preparing(since) => Pinned::Preparing(since),
        })
    }

    /// Pins a tag for somebody with time: a command, and no request.
    ///
    /// # Errors
    /// [`PinError`]; the tag may be unknown.
    pub(crate) async fn wait_for(&self, tag: &Tag) -> Result<Pin, PinError> {
        match self.pin(tag, PATIENCE).await? {
            Pinned::Pin(pin, _) => Ok(pin),
            Pinned::Preparing(_) => Err(PinError::Preparing),
        }
    }

    /// The package sets that tags mean now: that of `latest`, and those of other tags that were
    /// asked for lately. When that of `latest` is being fetched, this waits for at most `wait`.
    ///
    /// # Errors
    /// [`PinError`], when `latest` can't be pinned, or not yet.
    pub(crate) async fn current(&self, wait: Duration) -> Result<Vec<Pin>, PinError> {
        let Pinned::Pin(latest, _) = self.pin(&Tag::latest(), wait).await? else {
            return Err(PinError::Preparing);
        };
        let mut current = vec![latest];
        let Pins { names, commits } = &self.pins;
        for pin in names.fresh().into_iter().chain(commits.fresh()) {
            if !current.contains(&pin) {
                current.push(pin);
            }
        }
        Ok(current)
    }

    /// The tag under which the pin is kept: one for all names of the same thing.
    fn wanted(&self, tag: &Tag) -> Result<String, PinError> {
        let latest = Tag::latest().to_string();
        match self.source() {
            _ if self.any_tag => Ok(latest),
            source if source.repository().is_some() => Ok(tag.to_string()),
            source if source.tags().iter().any(|known| known == tag.as_str()) => Ok(latest),
            source => Err(PinError::TagUnknown(format!(
                "the tag \"{tag}\" is unknown here; known are: {}",
                source.tags().join(", ")
            ))),
        }
    }
}

/// The Nix that a package set says it needs: nixpkgs does, in `lib/minver.nix`.
pub(crate) fn required_nix(package_set: &Path) -> Option<Version> {
    let text = std::fs::read_to_string(package_set.join("lib/minver.nix")).ok()?;
    let (_, quoted) = text.trim_end().strip_suffix('"')?.rsplit_once('"')?;
    Version::parse(quoted)
}

#[cfg(test)]
mod tests;
