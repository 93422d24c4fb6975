//! `nixgate build`: one image, without a server.
//!
//! ```text
//!   shell/git:latest ──► pin ──► published, and all of it there?
//!                                   │ no            │ yes
//!                                   ▼               │
//!                               NixBuilder ─────────┤      the same as on demand
//!                                                   ▼
//!                                   digest on stdout; a layout folder, when one is named
//! ```
//!
//! The image is in storage afterwards in any case, so that a server with the same storage has it, and
//! the next run, of another folder say, copies what is there. Stdout has the digest alone: how far
//! the build is, and what went wrong, is for people and goes to stderr.

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

/// `nixgate build`, as it was written.
#[derive(Args)]
pub struct BuildCommand {
    /// What the registry would be asked for: `shell/git`, or with a tag, `shell/git:latest`; or a
    /// recipe, `corp/ci-base`
    image: Target,
    /// Copy the image into this folder too, as an OCI image layout; one that is there keeps its
    /// images of other tags
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    #[command(flatten)]
    build: BuildArgs,
}

/// An image by its name.
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

/// Builds until the image is there or `stop` is done. False when it was stopped.
///
/// # Errors
/// What a client of the registry would be told; or why nothing can be built at all.
pub(crate) async fn run(command: BuildCommand, stop: impl Future<Output = ()>) -> Result<bool> {
    let BuildCommand {
        image,
        output,
        build,
    } = command;
    let settings = build.validate()?;
    // Before anything is built for a folder that can't have it.
    let layout = output.map(|folder| Layout::open(&folder)).transpose()?;
    let display = Display::new();
    let digest = tokio::select! {
        digest = make(&image, layout.as_ref(), settings, &display) => digest,
        () = stop => {
            drop(display);
            eprintln!("stopped: what is built so far is kept, and the next run goes on from there");
            return Ok(false);
        }
    };
    // Not in the midst of its bar.
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
    let image = engine.image(pin, &engine.wanted(&target.repository)?);
    let storage = &engine.storage;
    let manifest = match whole(storage, &image).await? {
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
            let manifest = whole(storage, &image).await?;
            manifest.context(
                "the image was built and published, and is not in storage: is something else \
                 deleting there?",
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

/// The manifest of an image that is published, unless storage has lost some of its blobs since: to
/// build it again puts them back.
async fn whole(storage: &Storage, image: &ImageRequest) -> Result<Option<Bytes>, StorageError> {
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
    fn what_is_no_name_is_refused_as_the_server_does() {
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
