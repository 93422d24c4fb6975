//! `nixgate build`: one image, without a server.
//!
//! ```text
//!   shell/git:latest ──► pin ──► published, with all blobs?
//!                                   │ no            │ yes
//!                                   ▼               │
//!                               NixBuilder ─────────┤      as for the server
//!                                                   ▼
//!                                   digest on stdout; with --output, an image layout
//! ```
//!
//! The image is in storage afterwards, for servers with the same storage and for the next run. Stdout
//! has only the digest; progress and errors go to stderr.

mod layout;
mod progress;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use nixgate_core::distribution::{Digest, Error, Repository, Tag};

use crate::builder::{Rule, published};
use crate::config::{BuildArgs, BuildSettings};
use crate::engine::Engine;
use crate::records::blobs_of;
use crate::request::ImageRequest;
use crate::storage::{Key, Storage, StorageError};

use layout::Layout;
use progress::Display;

/// The arguments of `nixgate build`.
#[derive(Args)]
pub struct BuildCommand {
    /// The image's name: `shell/git`, or with a tag, `shell/git:latest`; or a recipe, `corp/ci-base`
    image: Target,
    /// Also copy the image into this folder, as an OCI image layout. Images with other tags in an
    /// existing layout stay
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    #[command(flatten)]
    build: BuildArgs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    repository: Repository,
    tag: Tag,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, tag) = match text.split_once(':') {
            Some((name, tag)) => (name, Tag::parse(tag)?),
            None => (text, Tag::latest()),
        };
        let repository = Repository::parse(name)?;
        Ok(Self { repository, tag })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository.as_str(), self.tag)
    }
}

/// Builds until the image is there or `stop` completes. False if it was stopped.
///
/// # Errors
/// As a client of the registry would get; or when nothing can be built at all.
pub(crate) async fn run(command: BuildCommand, stop: impl Future<Output = ()>) -> Result<bool> {
    let settings = command.build.validate()?;
    // Fails before the build if the folder can't be used.
    let layout = command.output.as_deref().map(Layout::open).transpose()?;
    let display = Display::new();
    let digest = tokio::select! {
        digest = make(&command.image, layout.as_ref(), settings, &display) => digest,
        () = stop => {
            drop(display);
            eprintln!("stopped: the next run continues from here");
            return Ok(false);
        }
    };
    // Removes its bar before printing.
    drop(display);
    println!("{}", digest?);
    Ok(true)
}

async fn make(
    target: &Target,
    layout: Option<&Layout>,
    settings: BuildSettings,
    display: &Display,
) -> Result<Digest> {
    display.say("looking up the package set");
    let engine = Engine::open(settings).await?;
    let pin = engine.sources.wait_for(&target.tag).await;
    let pin = pin.map_err(Error::from)?;
    let image = engine.image(pin, &engine.named_image(&target.repository)?);
    let storage = &engine.storage;
    let manifest = match complete_manifest(storage, &image).await? {
        Some(manifest) => {
            display.note(&format!("{target} is stored already"));
            manifest
        }
        None => {
            let id = image.fingerprint();
            tokio::select! {
                built = engine.builds.finish(&image, &Rule::NONE) => built?,
                never = display.follow(&engine.logs, &id) => match never {},
            }
            display.note(&format!("{target} is built"));
            let manifest = complete_manifest(storage, &image).await?;
            manifest.context(
                "the image was published, but storage does not have it. Check whether something deletes \
                 objects there",
            )?
        }
    };
    if let Some(layout) = layout {
        display.say("copying the image");
        layout
            .add(storage, &manifest, &target.tag, image.system)
            .await?;
        let folder = layout.folder().display();
        display.note(&format!("{target} is in {folder} as {}", target.tag));
    }
    Ok(Digest::of(&manifest))
}

/// The manifest of a published image, unless storage has lost a blob, which a build restores.
async fn complete_manifest(
    storage: &Storage,
    image: &ImageRequest,
) -> Result<Option<Bytes>, StorageError> {
    let Some(manifest) = published(storage, image).await? else {
        return Ok(None);
    };
    for (digest, size) in blobs_of(&manifest) {
        if storage.size(&Key::blob(&digest)).await? != Some(size) {
            return Ok(None);
        }
    }
    Ok(Some(manifest))
}

#[cfg(test)]
mod tests {
    use nixgate_core::distribution::ErrorKind;

    use super::*;

    #[test]
    fn a_name_may_have_a_tag() {
        let target: Target = "shell/git".parse().unwrap();
        assert_eq!(target.to_string(), "shell/git:latest");
        let target: Target = "git:nixos-24.05".parse().unwrap();
        assert_eq!(target.to_string(), "git:nixos-24.05");
    }

    #[test]
    fn an_invalid_name_is_refused_as_by_the_server() {
        for (text, kind) in [
            ("", ErrorKind::NameInvalid),
            ("Git", ErrorKind::NameInvalid),
            ("git//htop", ErrorKind::NameInvalid),
            ("--help", ErrorKind::NameInvalid),
            ("git:", ErrorKind::TagInvalid),
            ("127.0.0.1:8080/git", ErrorKind::TagInvalid),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert_eq!(error.kind, kind, "{text}");
        }
    }
}
