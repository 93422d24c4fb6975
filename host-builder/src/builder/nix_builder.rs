//! Builds an image: Nix makes the store paths, the rest is ours.
//!
//! ```text
//!   packages ─┬─ all have records ────────────────────────► plan ──storage has all──► publish
//!             │                                              │ a layer is missing       ▲
//!             │ some have none                               ▼                          │
//!             └──────────────► Nix makes them ◄──no── are they in the store? ─yes─► pack┘
//!                                     └──────────────────► plan ────────────────────┘
//! ```
//!
//! A store path that differs from Nix's record is never packed: Nix repairs it, and the build starts
//! again.

use std::collections::{BTreeMap, BTreeSet};

use nixgate_core::distribution::Error;

use super::errors::Failure;
use super::layers::Layers;
use super::packages::Packages;
use super::{Builder, ImageRequest, Rule, errors};
use crate::builder::publish::publish;
use crate::closure::{Closure, StorePath};
use crate::files::disk::Disks;
use crate::image::{Execution, Image, ImageSpec, LayerSpec};
use crate::layer::{Environment, Start, Tree};
use crate::nix::Derivation;
use crate::records::{ImageRecord, PackageRecord};
use crate::storage::Storage;
use crate::telemetry::build_log::{BuildLog, BuildLogs, Phase};
use crate::telemetry::logging::chain;

/// Repairs of one image's store paths. The first may concern the packages, whose trees the last layer
/// needs; the second their dependencies.
const REPAIRS: usize = 2;

pub(crate) struct NixBuilder {
    pub(crate) storage: Storage,
    pub(crate) packages: Packages,
    pub(crate) layers: Layers,
    pub(crate) logs: BuildLogs,
    pub(crate) disks: Disks,
}

impl NixBuilder {
    async fn build(&self, image: &ImageRequest, rule: &Rule, log: &BuildLog) -> Result<(), Error> {
        tracing::info!(
            recipe = image.opaque_name(),
            packages = image.packages.join(" "),
            system = image.system.nix(),
            "building"
        );
        let mut repairs = 0;
        loop {
            // A repaired path may have other contents than its record, so Nix is asked then.
            let altered = match self.attempt(image, rule, log, repairs > 0).await {
                Err(Failure::Altered(altered)) => altered,
                Err(Failure::Client(error)) => return Err(error),
                Ok(()) => return Ok(()),
            };
            if repairs == REPAIRS {
                tracing::error!("store paths were altered again after each repair: {altered:?}");
                return Err(errors::altered(altered.iter().map(|one| &one.path)));
            }
            self.packages.repair(image, &altered, rule, log).await?;
            repairs += 1;
        }
    }

    /// Builds an image from records, or from Nix's present answers if `ask_nix` is set.
    async fn attempt(
        &self,
        image: &ImageRequest,
        rule: &Rule,
        log: &BuildLog,
        ask_nix: bool,
    ) -> Result<(), Failure> {
        let mut recorded = self.packages.records(image).await?;
        if !ask_nix && recorded.iter().all(Option::is_some) {
            let known: Vec<PackageRecord> = recorded.into_iter().flatten().collect();
            let closure = closure(&known)?;
            let plan = self
                .layers
                .plan(&closure, image.layering, image.max_layers)
                .await?;
            let guard = self.packages.guard(image, &known);
            if plan.is_complete() || guard.is_some() {
                log.enter(Phase::Packing);
                let layers = self.layers.pack(plan, log).await?;
                return self.publish(image, &known, &closure, layers, log).await;
            }
            recorded = known.into_iter().map(Some).collect();
        }
        let (packages, guard) = self
            .packages
            .make(image, recorded, rule, log, ask_nix)
            .await?;
        log.enter(Phase::Packing);
        let closure = closure(&packages)?;
        let plan = self
            .layers
            .plan(&closure, image.layering, image.max_layers)
            .await?;
        let layers = self.layers.pack(plan, log).await?;
        drop(guard);
        self.publish(image, &packages, &closure, layers, log).await
    }

    async fn publish(
        &self,
        image: &ImageRequest,
        packages: &[PackageRecord],
        closure: &Closure,
        mut layers: Vec<LayerSpec>,
        log: &BuildLog,
    ) -> Result<(), Failure> {
        let reach = packages.iter().map(|one| one.reach.clone()).collect();
        let recipe = image.recipe.as_ref();
        let start = recipe.map_or_else(Start::default, |recipe| recipe.start());
        let (root, environment) = self
            .layers
            .pack_symlinks(outputs(packages), reach, start, log)
            .await?;
        layers.push(root);
        let derivations: Vec<&Derivation> = packages.iter().map(|one| &one.derivation).collect();
        let documents = Image::new(&ImageSpec {
            system: image.system,
            layers,
            execution: execution(image, &derivations, environment),
            labels: labels(image),
            annotations: labels(image),
        });
        let manifest = &documents.oci_manifest.bytes;
        let record = ImageRecord::new(image, &derivations, closure, manifest);
        publish(&self.storage, image, &documents, &record).await?;
        tracing::info!(
            recipe = image.opaque_name(),
            packages = image.packages.join(" "),
            digest = %documents.oci_manifest.digest,
            "built"
        );
        Ok(())
    }
}

impl Builder for NixBuilder {
    async fn build(&self, image: &ImageRequest, rule: &Rule) -> Result<(), Error> {
        self.disks.check()?;
        let id = image.fingerprint();
        let (recipe, system) = (image.opaque_name(), image.system.nix());
        let log = self.logs.begin(&id, recipe, &image.packages, system);
        let result = NixBuilder::build(self, image, rule, &log).await;
        log.end(result.as_ref().err().cloned());
        if let Err(error) = &result {
            let packages = image.packages.join(" ");
            tracing::warn!(
                recipe,
                packages,
                kind = ?error.kind,
                error = chain(error),
                "not built"
            );
        }
        result
    }
}

/// The union of the packages' closures. If builders made different contents for one store path, the first
/// record wins.
fn closure(packages: &[PackageRecord]) -> Result<Closure, Error> {
    let mut paths = BTreeMap::new();
    for (path, info) in packages.iter().flat_map(|one| &one.paths) {
        paths.entry(path.clone()).or_insert_with(|| info.clone());
    }
    let roots = packages.iter().flat_map(PackageRecord::outputs).cloned();
    Closure::new(roots, paths).map_err(errors::internal)
}

/// The outputs of the image's packages and their trees, in the order of the attribute paths, which decides
/// between equal file names. Two attribute paths may be one package.
pub(super) fn outputs(packages: &[PackageRecord]) -> Vec<(StorePath, Tree)> {
    let mut seen = BTreeSet::new();
    let outputs = packages
        .iter()
        .flat_map(|one| one.outputs().zip(&one.trees));
    outputs
        .filter(|(path, _)| seen.insert(*path))
        .map(|(path, tree)| (path.clone(), tree.clone()))
        .collect()
}

/// How a container runs: by its recipe, else by its packages. A recipe's variables replace those for what
/// the packages bring.
pub(super) fn execution(
    image: &ImageRequest,
    derivations: &[&Derivation],
    environment: Environment,
) -> Execution {
    let plain = Execution {
        cmd: command(image, derivations),
        ..Execution::default()
    };
    let mut execution = match &image.recipe {
        Some(recipe) => recipe.execution(plain),
        None => plain,
    };
    let own = std::mem::replace(&mut execution.env, environment);
    execution.env.extend(own);
    execution
}

/// The command without a recipe: the shell, or the program of the only package that has one.
fn command(image: &ImageRequest, derivations: &[&Derivation]) -> Vec<String> {
    if image.shell {
        return vec!["bash".to_owned()];
    }
    let mut programs = derivations
        .iter()
        .filter_map(|one| one.main_program.as_ref());
    match (programs.next(), programs.next()) {
        (Some(program), None) => vec![program.clone()],
        _ => Vec::new(),
    }
}

fn labels(image: &ImageRequest) -> BTreeMap<String, String> {
    let known = [
        (
            "org.opencontainers.image.revision",
            image.pin.revision.clone(),
        ),
        ("org.nixgate.packages", image.packages.join(" ")),
    ];
    let known = known.map(|(name, value)| (name.to_owned(), value));
    let own = image.recipe.iter();
    let own = own.flat_map(|recipe| recipe.labels().clone());
    own.chain(known).collect()
}

#[cfg(test)]
mod tests;
