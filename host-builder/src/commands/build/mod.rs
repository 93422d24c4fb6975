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

use std::path::PathBuf;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use nixgate_core::distribution::{Digest, Error};

use crate::builder::{Rule, published};
use crate::commands::progress::Display;
use crate::commands::target::Target;
use crate::config::{BuildArgs, BuildSettings};
use crate::engine::Engine;
use crate::records::blobs_of;
use crate::request::ImageRequest;
use crate::storage::{Key, Storage, StorageError};

use layout::Layout;

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
