//! Package sources, and pinning: from a tag to the package set that it means now.
//!
//! ```text
//!   tag ──► Source ──► Pin { path to import, revision }
//!            channel   archive of the channel, unpacked into the Nix store; its hash
//!            git       branch or tag → commit, fetched into the Nix store; the commit
//!            path      a folder, copied into the Nix store; the hash in its store path
//!            flake     with its own lock, all inputs fetched into the Nix store; the commit, or
//!                      the hash in the store path of the whole
//! ```
//!
//! A pin is remembered for a while ([`pins`]). A source that has not changed since is not fetched again
//! ([`unchanged`]). Until then, a tag means the same package set, no network
//! is used, and the edge may repeat the builder's answer. Nix imports from its store, where nobody
//! changes files; a link in the state folder ([`roots`]) keeps them from garbage collection.

use std::path::{Path, PathBuf};

use crate::fingerprint::Fingerprint;
use crate::nix::{NixError, Version};
use crate::process::ProcessError;
use crate::telemetry::redact::redact;

pub(crate) use allowed_refs::AllowedRefs;
pub(crate) use error::PinError;
pub(crate) use flake::FlakeUrl;
pub(crate) use pins::{SourceSettings, Sources};

mod allowed_refs;
mod archive;
mod error;
mod finder;
mod flake;
mod folder_state;
mod git;
mod hints;
mod mirror;
mod pins;
mod roots;
mod unchanged;

/// The tag of the default branch.
const DEFAULT: &str = "latest";

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
        /// As `git ls-remote` takes it.
        url: String,
        refs: AllowedRefs,
    },
    /// A flake with packages, by its own lock. The refs are those of its repository, if it is in one.
    Flake { url: FlakeUrl, refs: AllowedRefs },
    /// A folder with a Nix package set, by its absolute path.
    Path { path: PathBuf },
}

/// A package set that can't change any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    /// The path that Nix imports.
    pub(crate) path: PathBuf,
    /// Identifies the content, for people and for keys.
    pub(crate) revision: String,
}

impl Source {
    /// Identifies the source whatever its content: an image stays an image of this source when the
    /// source moves on. So it leaves out a channel's name, which may be a commit, and a folder's path,
    /// which may be in the store.
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

    /// The tags that follow from the settings alone.
    pub(crate) fn tags(&self) -> Vec<String> {
        let mut tags = vec![DEFAULT.to_owned()];
        if let Self::Channel { name, .. } = self {
            tags.push(name.clone());
        }
        tags
    }

    /// Its kind, for people.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Channel { .. } => "channel",
            Self::Git { .. } => "git",
            Self::Path { .. } => "path",
            Self::Flake { .. } => "flake",
        }
    }

    /// Its address; none for a folder.
    fn url(&self) -> Option<String> {
        match self {
            Self::Channel { name, base } => Some(format!("{base}/{name}.tar.gz")),
            Self::Git { url, .. } => Some(url.clone()),
            Self::Flake { url, .. } => Some(url.to_string()),
            Self::Path { .. } => None,
        }
    }

    /// Adds the setting that helps, if it is known.
    fn explain(&self, error: PinError) -> PinError {
        let PinError::Nix(error) = error else {
            return error;
        };
        let hint = match &error {
            NixError::Process(ProcessError::Failed { stderr, .. }) => hints::hint(stderr),
            NixError::Overlay { reason, .. } => hints::hint(reason),
            _ => None,
        };
        let url = match &error {
            NixError::Overlay { overlay, .. } => Some(overlay.clone()),
            _ => self.url(),
        };
        match url.zip(hint) {
            Some((url, hint)) => PinError::Access {
                url: redact(&url),
                hint,
                error,
            },
            None => PinError::Nix(error),
        }
    }

    /// The git repository whose refs are tags, and the refs that are allowed; none for other sources.
    fn repository(&self) -> Option<(&str, &AllowedRefs)> {
        match self {
            Self::Git { url, refs } => Some((url, refs)),
            Self::Flake { url, refs } => Some((url.repository()?, refs)),
            Self::Channel { .. } | Self::Path { .. } => None,
        }
    }
}

/// The oldest Nix that a package set works with: nixpkgs says so in `lib/minver.nix`.
pub(crate) fn required_nix(package_set: &Path) -> Option<Version> {
    let text = std::fs::read_to_string(package_set.join("lib/minver.nix")).ok()?;
    let (_, quoted) = text.trim_end().strip_suffix('"')?.rsplit_once('"')?;
    Version::parse(quoted)
}
