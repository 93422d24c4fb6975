//! `nixgate warm`: builds in advance what a policy allows.
//!
//! ```text
//!   policy ──► plan: allowed patterns, without those that are denied to everybody
//!                │ over the names of the package set, by tag and platform
//!                ▼
//!   one image for each package ──► stored already? ──yes──► skipped
//!                                       │ no
//!                                       ▼
//!                                  SingleFlight ──► NixBuilder ──► storage, as for the server
//! ```
//!
//! Also builds the recipes whose names are allowed.
//!
//! **One image for each package, since there are too many combinations.** A pull takes long while Nix
//! builds or fetches, which happens once for each package: an image of several then needs only an
//! evaluation, and layers that none of them has alone.
//!
//! A run leaves only published images. So it may be stopped at any time, and the next run continues.

mod plan;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use futures::stream::StreamExt;
use nixgate_core::distribution::{Error, ErrorKind, Repository, Tag};
use nixgate_core::image_name::unknown_image;
use nixgate_core::package_set::System;
use nixgate_core::policy;

use crate::builder::{Rule, published};
use crate::commands::policy::PolicyFile;
use crate::config::BuildArgs;
use crate::engine::Engine;
use crate::index::{self, Listing};
use crate::request::ImageRequest;
use crate::source::Pin;

use plan::WarmTarget;
use report::{Report, WarmOutcome};

const LOOKUPS_AT_ONCE: usize = 16;

/// The arguments of `nixgate warm`.
#[derive(Args)]
pub struct WarmArgs {
    /// File of a policy, or of a filter configuration with the key `policy`
    #[arg(long)]
    policy: PathBuf,
    /// List the images, and build none
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    build: BuildArgs,
}

#[derive(Clone, Debug)]
struct PlannedImage {
    target: WarmTarget,
    image: ImageRequest,
}

/// Builds until all images are there or `stop` completes, and prints a summary. False if an image
/// failed or is left.
///
/// # Errors
/// When nothing can be built at all; the error says what to do.
pub(crate) async fn run(arguments: WarmArgs, stop: impl Future<Output = ()>) -> Result<bool> {
    tokio::pin!(stop);
    let file = PolicyFile::read(&arguments.policy)?;
    let settings = arguments.build.validate()?;
    let mut report = Report::default();
    let prepared = async {
        let engine = Engine::open(settings).await?;
        let items = expand(&engine, file.policy.rules(), &mut report).await?;
        anyhow::Ok((engine, items))
    };
    let (engine, items) = tokio::select! {
        prepared = prepared => prepared?,
        () = &mut stop => return Ok(false),
    };
    if arguments.dry_run {
        for PlannedImage { target, .. } in &items {
            println!("{target}");
        }
    } else {
        report.begin(items.len());
        build(engine, items, &mut report, stop).await;
    }
    Ok(report.finish())
}

/// The images that the rules allow, each once. A tag that can't be pinned counts as a failure.
async fn expand(
    engine: &Engine,
    rules: &[policy::Rule],
    report: &mut Report,
) -> Result<Vec<PlannedImage>> {
    let mut indexes: BTreeMap<(String, System), Listing> = BTreeMap::new();
    let mut items: BTreeMap<String, PlannedImage> = BTreeMap::new();
    for (tag, system) in plan::scopes(rules, engine.settings.system) {
        let Some(pin) = pin(engine, &tag, report).await else {
            continue;
        };
        let key = (pin.revision.clone(), system);
        let mut index = match indexes.remove(&key) {
            Some(index) => index,
            None => {
                let index = engine.indexes.of(&pin.revision, system, index::WAIT).await;
                let index = index.ok().flatten();
                Listing::list(index, engine.nix.clone(), &pin.path, system).await?
            }
        };
        index
            .look_into(&plan::allowed(rules, &tag, system, engine.settings.system))
            .await?;
        let mut targets = plan::targets(rules, &tag, system, engine.settings.system, &index);
        let matched = targets.iter().filter(|target| !target.literal);
        let matched = matched.map(|target| target.name.clone()).collect();
        let packages = index.packages(&matched).await?;
        let before = targets.len();
        targets.retain(|target| target.literal || packages.contains(&target.name));
        report.left_out(before - targets.len());
        report.not_looked_at(index.not_looked_at());
        indexes.insert(key, index);
        add(engine, &pin, targets, &mut items, report);
    }
    let recipes = engine.recipes.current();
    for (tag, targets) in plan::recipes_by_tag(rules, &recipes, engine.settings.system) {
        if let Some(pin) = pin(engine, &tag, report).await {
            add(engine, &pin, targets, &mut items, report);
        }
    }
    let mut items: Vec<PlannedImage> = items.into_values().collect();
    items.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(items)
}

/// Pins a tag. Failing that counts as a failure.
async fn pin(engine: &Engine, tag: &Tag, report: &mut Report) -> Option<Pin> {
    let pin = engine.sources.wait_for(tag).await;
    pin.map_err(|error| report.failed(&format!("the tag {tag}"), &error.into()))
        .ok()
}

fn add(
    engine: &Engine,
    pin: &Pin,
    targets: impl IntoIterator<Item = WarmTarget>,
    items: &mut BTreeMap<String, PlannedImage>,
    report: &mut Report,
) {
    for target in targets {
        match request(engine, pin, &target) {
            Ok(image) => {
                let item = PlannedImage { target, image };
                items.entry(item.image.fingerprint()).or_insert(item);
            }
            // A package with the name of a namespace of recipes can't be requested.
            Err(error) if error.kind == ErrorKind::NameInvalid && !target.literal => {
                report.left_out(1);
            }
            Err(error) => report.failed(&target.to_string(), &error),
        }
    }
}

/// The request for a package or a recipe, as the server would make it.
fn request(engine: &Engine, pin: &Pin, target: &WarmTarget) -> Result<ImageRequest, Error> {
    let name = Repository::parse(&target.name)?;
    let named = engine.named_image(&name)?;
    if target.is_recipe && named.recipe.is_none() {
        let error = unknown_image(&name);
        let message = format!(
            "{}. Check that --recipes names the file with it",
            error.message
        );
        return Err(Error { message, ..error });
    }
    let image = engine.image(pin.clone(), &named);
    Ok(ImageRequest {
        system: target.system,
        ..image
    })
}

/// Builds the images that are not stored yet.
async fn build(
    engine: Engine,
    items: Vec<PlannedImage>,
    report: &mut Report,
    stop: impl Future<Output = ()>,
) {
    tokio::pin!(stop);
    let settings = &engine.settings;
    let at_once = settings.max_builds.min(settings.max_queue);
    let known = futures::stream::iter(items)
        .map(|item| async {
            let stored = published(&engine.storage, &item.image).await;
            (item, stored)
        })
        .buffer_unordered(LOOKUPS_AT_ONCE);
    let done = known
        .map(|(item, stored)| async {
            let outcome = match stored {
                Ok(Some(_)) => WarmOutcome::Stored,
                Ok(None) => build_one(&engine, &item).await,
                Err(error) => WarmOutcome::Failed(error.into()),
            };
            (item, outcome)
        })
        .buffer_unordered(at_once);
    tokio::pin!(done);
    loop {
        tokio::select! {
            next = done.next() => match next {
                Some((item, outcome)) => report.add(&item.target, outcome),
                None => return,
            },
            () = &mut stop => return report.stopped(),
        }
    }
}

async fn build_one(engine: &Engine, item: &PlannedImage) -> WarmOutcome {
    match engine.builds.finish(&item.image, &Rule::NONE).await {
        Ok(()) => WarmOutcome::Built,
        // A pattern only covers available packages; a name requires this one.
        Err(error) if error.kind == ErrorKind::Denied && !item.target.literal => {
            WarmOutcome::LeftOut
        }
        Err(error) => WarmOutcome::Failed(error),
    }
}
