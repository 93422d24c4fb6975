//! From a package set to a published image.
//!
//! ```text
//!   server ──► SingleFlight ──► NixBuilder
//!              one build         packages → plan → layers → publish
//!              per image,          │                  └── pack what nobody has packed yet
//!              outliving           └── records, or Nix: resolve → realise → closure
//!              its callers                              in turns, fair between rules
//! ```
//!
//! A build's result is not handed over: it is published, and whoever waited reads it from storage
//! as everybody will from then on.

mod admission;
mod errors;
mod fair_semaphore;
mod layers;
mod nix_builder;
mod packages;
mod publish;
mod resolve;
mod single_flight;
pub(crate) mod suggestions;

use futures::future::BoxFuture;
use nixgate_core::distribution::Error;

use crate::request::ImageRequest;

pub(crate) use admission::Rule;
pub(crate) use layers::Layers;
pub(crate) use nix_builder::NixBuilder;
pub(crate) use packages::Packages;
pub(crate) use publish::published;
pub(crate) use single_flight::{Progress, SingleFlight};

/// Whatever makes images.
pub(crate) trait Builder: Send + Sync + 'static {
    /// Builds and publishes an image, in the turns of the rule that wants it.
    fn build<'a>(
        &'a self,
        image: &'a ImageRequest,
        rule: &'a Rule,
    ) -> BoxFuture<'a, Result<(), Error>>;
}
