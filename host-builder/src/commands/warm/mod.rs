//! `nixgate warm`: builds ahead what a policy allows.
//!
//! ```text
//!   policy ──► plan: allowed patterns, less what is denied to everybody
//!                │ over the names of the package set (catalogue), by tag and platform
//!                ▼
//!   one image for each package ──► stored already? ──yes──► skipped
//!                                       │ no
//!                                       ▼
//!                                  SingleFlight ──► NixBuilder ──► storage, as on demand
//! ```
//!
//! Recipes whose names it allows are built as well.
//!
//! **One image for each package, and not for their combinations, of which there are too many.** A
//! pull takes long for what Nix has to build or fetch, and that is done for each package once:
//! an image of several then needs an evaluation, and the layers that only its parts together make.
//!
//! Nothing is remembered of a run but what it has published. So it may be stopped at any time, by
//! whatever means, and the next run goes on where it was.

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
use crate::request::ImageRequest;
use crate::source::Pin;
use crate::source::package_index::PackageIndex;
use crate::storage::Storage;

use plan::Wish;
use report::{Outcome, Report};

/// Images that are looked up in storage at once.
const LOOKUPS_AT_ONCE: usize = 16;

/// `nixgate warm`, as it was written.
#[derive(Args)]
pub struct WarmArgs {
    /// A policy, or a filter's configuration with the key `policy`
    #[arg(long)]
    policy: PathBuf,
    /// List what would be built, and build nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    build: BuildArgs,
}

/// An image to be built.
#[derive(Clone, Debug)]
struct Item {
    wish: Wish,
    image: ImageRequest,
}

/// Builds until all is done or `stop` is, and prints what became of it. False when something
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
        for Item { wish, .. } in &items {
            println!("{wish}");
        }
    } else {
        report.begin(items.len());
        build(engine, items, &mut report, stop).await;
    }
    Ok(report.finish())
}

/// The images of what the rules allow, each once. Tags that can't be pinned are failures.
async fn expand(engine: &Engine, rules: &[policy::Rule], report: &mut Report) -> Result<Vec<Item>> {
    let mut catalogues: BTreeMap<(String, System), PackageIndex> = BTreeMap::new();
    let mut items: BTreeMap<String, Item> = BTreeMap::new();
    for (tag, system) in plan::scopes(rules, engine.settings.system) {
        let Some(pin) = pin(engine, &tag, report).await else {
            continue;
        };
        let key = (pin.revision.clone(), system);
        let mut catalogue = match catalogues.remove(&key) {
            Some(catalogue) => catalogue,
            None => PackageIndex::list(engine.nix.clone(), &pin.path, system).await?,
        };
        catalogue
            .look_into(&plan::allowed(rules, &tag, system, engine.settings.system))
            .await?;
        let mut wishes = plan::wishes(rules, &tag, system, engine.settings.system, &catalogue);
        let matched = wishes.iter().filter(|wish| !wish.literal);
        let matched = matched.map(|wish| wish.name.clone()).collect();
        let packages = catalogue.packages(&matched).await?;
        let before = wishes.len();
        wishes.retain(|wish| wish.literal || packages.contains(&wish.name));
        report.left_out(before - wishes.len());
        catalogues.insert(key, catalogue);
        add(engine, &pin, wishes, &mut items, report);
    }
    let recipes = engine.recipes.current();
    for (tag, wishes) in plan::images(rules, &recipes, engine.settings.system) {
        if let Some(pin) = pin(engine, &tag, report).await {
            add(engine, &pin, wishes, &mut items, report);
        }
    }
    let mut items: Vec<Item> = items.into_values().collect();
    items.sort_by(|one, other| one.wish.cmp(&other.wish));
    Ok(items)
}

/// What a tag means. That it means nothing is a failure.
async fn pin(engine: &Engine, tag: &Tag, report: &mut Report) -> Option<Pin> {
    let pin = engine.sources.wait_for(tag).await;
    pin.map_err(|error| report.failed(&format!("the tag {tag}"), &error.into()))
        .ok()
}

fn add(
    engine: &Engine,
    pin: &Pin,
    wishes: impl IntoIterator<Item = Wish>,
    items: &mut BTreeMap<String, Item>,
    report: &mut Report,
) {
    for wish in wishes {
        match request(engine, pin, &wish) {
            Ok(image) => {
                let item = Item { wish, image };
                items.entry(item.image.fingerprint()).or_insert(item);
            }
            // A namespace of recipes, which hides a package of the same name.
            Err(error) if error.kind == ErrorKind::NameInvalid && !wish.literal => {
                report.left_out(1);
            }
            Err(error) => report.failed(&wish.to_string(), &error),
        }
    }
}

/// The image of a package or a recipe, as the server would ask for it.
fn request(engine: &Engine, pin: &Pin, wish: &Wish) -> Result<ImageRequest, Error> {
    let name = Repository::parse(&wish.name)?;
    let wanted = engine.wanted(&name)?;
    if wish.is_recipe && wanted.recipe.is_none() {
        let error = unknown_image(&name);
        let message = format!("{}. Do --recipes name their file?", error.message);
        return Err(Error { message, ..error });
    }
    let image = engine.image(pin.clone(), &wanted);
    Ok(ImageRequest {
        system: wish.system,
        ..image
    })
}

/// Builds what is not stored yet.
async fn build(
    engine: Engine,
    items: Vec<Item>,
    report: &mut Report,
    stop: impl Future<Output = ()>,
) {
    tokio::pin!(stop);
    let settings = &engine.settings;
    let at_once = settings.max_builds.min(settings.max_queue);
    let known = futures::stream::iter(items)
        .map(|item| async {
            let stored = is_stored(&engine.storage, &item.image).await;
            (item, stored)
        })
        .buffer_unordered(LOOKUPS_AT_ONCE);
    let done = known
        .map(|(item, stored)| async {
            let outcome = match stored {
                Ok(true) => Outcome::Stored,
                Ok(false) => build_one(&engine, &item).await,
                Err(error) => Outcome::Failed(error),
            };
            (item, outcome)
        })
        .buffer_unordered(at_once);
    tokio::pin!(done);
    loop {
        tokio::select! {
            next = done.next() => match next {
                Some((item, outcome)) => report.add(&item.wish, outcome),
                None => return,
            },
            () = &mut stop => return report.stopped(),
        }
    }
}

async fn is_stored(storage: &Storage, image: &ImageRequest) -> Result<bool, Error> {
    match published(storage, image).await {
        Ok(manifest) => Ok(manifest.is_some()),
        Err(error) => Err(Error::new(ErrorKind::BuilderUnready, error.to_string())),
    }
}

async fn build_one(engine: &Engine, item: &Item) -> Outcome {
    match engine.builds.finish(&item.image, &Rule::NONE).await {
        Ok(()) => Outcome::Built,
        // A pattern is about what there is to be had; a name is about this package.
        Err(error) if error.kind == ErrorKind::Denied && !item.wish.literal => Outcome::LeftOut,
        Err(error) => Outcome::Failed(error),
    }
}
