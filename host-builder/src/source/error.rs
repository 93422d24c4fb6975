//! Why a tag has no pin, and what helps.

use std::path::PathBuf;

use nixgate_core::distribution::{Error, ErrorKind};

use crate::memo::Panicked;
use crate::nix::{NixError, Version};

/// Why a tag could not be pinned.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PinError {
    /// The source has no such tag.
    #[error("{0}")]
    TagUnknown(String),
    /// Nix or git failed.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// Nix or git failed, and a setting helps.
    #[error("cannot fetch {url}: {hint}. The program's error: {error}")]
    Access {
        /// Without credentials.
        url: String,
        /// The cause and the setting.
        hint: &'static str,
        error: NixError,
    },
    /// A folder can't be read or written.
    #[error("cannot use the folder {}: {reason}. Check {setting}", path.display())]
    Folder {
        path: PathBuf,
        reason: String,
        setting: &'static str,
    },
    /// The package set needs a newer Nix.
    #[error(
        "the package set needs Nix {needed} or newer, and the Nix on PATH is {found}. Install a \
         newer Nix, or use an older package set"
    )]
    NixTooOld { needed: Version, found: Version },
    /// The package set as such can't be evaluated, whichever package is asked for.
    #[error(
        "the package set cannot be evaluated: {reason}. The Nix on PATH is {nix}. Correct the package set \
         or the overlays of NIXGATE_NIXPKGS_CONFIG, or install the Nix that it needs"
    )]
    Unusable { reason: String, nix: String },
    /// The package set is being fetched.
    #[error("the package set is still being fetched. Try again later")]
    Preparing,
    /// The bound of fetches that run, or of new tags in an hour.
    #[error(
        "too many new branches, tags and commits were requested. Try again later, or raise \
         NIXGATE_MAX_REFS"
    )]
    TooMany,
    /// The task panicked.
    #[error("the lookup of the tag ended without a result. See the builder's log")]
    Interrupted,
}

impl From<Panicked> for PinError {
    fn from(_: Panicked) -> Self {
        Self::Interrupted
    }
}

impl PinError {
    /// Whether the package set or an overlay is at fault, and no network or host: it stays so until
    /// somebody acts.
    pub(crate) const fn is_of_the_set(&self) -> bool {
        matches!(
            self,
            Self::NixTooOld { .. }
                | Self::Unusable { .. }
                | Self::Nix(NixError::Overlay { lasts: true, .. })
        )
    }
}

impl From<PinError> for Error {
    fn from(error: PinError) -> Self {
        let kind = match error {
            PinError::TagUnknown(message) => return Self::new(ErrorKind::ManifestUnknown, message),
            PinError::NixTooOld { .. }
            | PinError::Unusable { .. }
            | PinError::Nix(NixError::Overlay { lasts: true, .. }) => ErrorKind::PackageSetUnusable,
            PinError::Nix(_)
            | PinError::Access { .. }
            | PinError::Folder { .. }
            | PinError::Preparing => ErrorKind::BuilderUnready,
            PinError::TooMany => ErrorKind::TooBusy,
            PinError::Interrupted => ErrorKind::Internal,
        };
        Self::new(kind, format!("the package source is unavailable: {error}"))
    }
}
