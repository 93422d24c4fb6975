//! Builds and publishes images.
//!
//! ```text
//!   server ──► SingleFlight ──► NixBuilder
//!              one build         packages → plan → layers → publish
//!              per image,          │                  └── pack those that storage lacks
//!              outliving           └── records, or Nix: resolve → realise → closure
//!              its callers                              fair between rules
//! ```
//!
//! A build returns no image: it publishes one, and callers read it from storage like everyone later.

mod admission;
mod errors;
mod explain;
mod fair_semaphore;
mod layers;
mod nix_builder;
mod other_names;
mod packages;
mod publish;
mod resolve;
mod single_flight;
pub(crate) mod suggestions;

use nixgate_core::distribution::Error;

use crate::request::ImageRequest;

pub(crate) use admission::Rule;
pub(crate) use explain::Explanation;
pub(crate) use layers::Layers;
pub(crate) use nix_builder::NixBuilder;
pub(crate) use other_names::{OtherNames, Others, Patience};
pub(crate) use packages::Packages;
pub(crate) use publish::published;
pub(crate) use single_flight::{Progress, SingleFlight};

pub(crate) trait Builder: Send + Sync + 'static {
    /// Builds and publishes an image on behalf of a rule.
    fn build(
        &self,
        image: &ImageRequest,
        rule: &Rule,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}
