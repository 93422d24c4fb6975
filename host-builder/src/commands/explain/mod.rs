//! `nixgate explain`: where an image's files and variables come from, and what it lacks of its packages.
//!
//! The facts are those of a build: the records of the packages, and the code that makes the root of the
//! image of them. So an image whose packages have no records yet is built first, as by `nixgate build`.

mod report;

use anyhow::{Context, Result};
use clap::Args;
use nixgate_core::distribution::Error;

use crate::builder::{Explanation, Rule};
use crate::commands::progress::Display;
use crate::commands::target::Target;
use crate::config::{BuildArgs, BuildSettings};
use crate::engine::Engine;
use crate::request::ImageRequest;

use report::Report;

/// Entries of a folder that are shown.
const SHOWN: usize = 20;

/// The arguments of `nixgate explain`.
#[derive(Args)]
pub struct ExplainCommand {
    /// The image's name, as for `nixgate build`
    image: Target,
    /// Show all entries of each folder, and not only the first 20
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// Print everything as JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    build: BuildArgs,
}

/// Explains until it is done or `stop` completes. False if it was stopped.
///
/// # Errors
/// As a client of the registry would get; or when nothing can be built at all.
pub(crate) async fn run(command: ExplainCommand, stop: impl Future<Output = ()>) -> Result<bool> {
    let settings = command.build.validate()?;
    let display = Display::new();
    let report = tokio::select! {
        report = explain(&command.image, settings, &display) => report?,
        () = stop => {
            drop(display);
            eprintln!("stopped: the next run continues from here");
            return Ok(false);
        }
    };
    // Removes its bar before printing.
    drop(display);
    match command.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => print!(
            "{}",
            report.text(if command.all { usize::MAX } else { SHOWN })
        ),
    }
    Ok(true)
}

async fn explain(target: &Target, settings: BuildSettings, display: &Display) -> Result<Report> {
    display.say("looking up the package set");
    let engine = Engine::open(settings).await?;
    let pin = engine.sources.wait_for(&target.tag).await;
    let pin = pin.map_err(Error::from)?;
    let named = engine.named_image(&target.repository)?;
    let image = engine.image(pin, &named);
    let explanation = look_into(&engine, &image, display).await?;
    Ok(Report::new(target, &named, &image, explanation))
}

async fn look_into(
    engine: &Engine,
    image: &ImageRequest,
    display: &Display,
) -> Result<Explanation> {
    let builder = engine.builds.builder();
    if let Some(explanation) = builder.explain(image).await? {
        return Ok(explanation);
    }
    let id = image.fingerprint();
    tokio::select! {
        built = engine.builds.finish(image, &Rule::NONE) => built?,
        never = display.follow(&engine.logs, &id) => match never {},
    }
    builder.explain(image).await?.context(
        "the image was built, but storage does not have the records of its packages. Check whether \
         something deletes objects there",
    )
}
