//! An image's packages: from records where there are any, from Nix where there are none.
//!
//! ```text
//!   names ──► records ──all known──► put together without Nix
//!                │ some are not, or a layer has to be packed and they are not kept here
//!                ▼
//!            those that are not kept: evaluate ─► realise ─► closure, trees ─► records
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::future::try_join_all;
use nixgate_core::distribution::Error;

use super::resolve::resolve;
use super::turnstile::Turnstile;
use super::{ImageRequest, Rule, failures};
use crate::build_log::{BuildLog, Phase};
use crate::closure::{Closure, StorePath};
use crate::kept::{Held, Kept};
use crate::layer::{self, PackError, Tree};
use crate::nix::{Derivation, Nix, NixError};
use crate::records::{PackageRecord, Records};

/// Learns of packages, and has Nix make them.
pub(super) struct Packages {
    nix: Arc<dyn Nix>,
    records: Records,
    kept: Kept,
    /// A turn for each image that is evaluated at the same time. Not the turns of builds, which may
    /// take hours: that a name is wrong is found out by evaluating, and told at once.
    evaluations: Turnstile,
    /// A turn for each image that Nix builds at the same time.
    pub(super) builds: Turnstile,
}

impl Packages {
    pub(super) fn new(nix: Arc<dyn Nix>, records: Records, kept: Kept, max_builds: usize) -> Self {
        Self {
            nix,
            records,
            kept,
            evaluations: Turnstile::new(max_builds),
            builds: Turnstile::new(max_builds),
        }
    }

    /// What records say of an image's packages, in their order.
    pub(super) async fn recorded(
        &self,
        image: &ImageRequest,
    ) -> Result<Vec<Option<PackageRecord>>, Error> {
        let keys = image.packages.iter().map(|name| image.package_key(name));
        let records = keys.map(|key| async move { self.records.get(&key).await });
        try_join_all(records).await.map_err(failures::storage)
    }

    /// Holds all packages of an image, if this builder's store has them.
    pub(super) fn hold(&self, image: &ImageRequest, records: &[PackageRecord]) -> Option<Held> {
        let mut held = Held::default();
        for (name, record) in image.packages.iter().zip(records) {
            held.extend([self.hold_one(image, name, record)?]);
        }
        Some(held)
    }

    fn hold_one(&self, image: &ImageRequest, name: &str, record: &PackageRecord) -> Option<Held> {
        let held = self.kept.hold(&image.package_fingerprint(name))?;
        let is_here = |path: &StorePath| path.on_disk(Path::new("/")).symlink_metadata().is_ok();
        record.outputs().all(is_here).then_some(held)
    }

    /// Has Nix make whatever of an image's packages is not known, or not in this builder's store, in
    /// the turns of a rule. All of them are in the store until what is returned with them is dropped.
    pub(super) async fn make(
        &self,
        image: &ImageRequest,
        recorded: Vec<Option<PackageRecord>>,
        rule: &Rule,
        log: &BuildLog,
    ) -> Result<(Vec<PackageRecord>, Held), Error> {
        self.kept.sweep();
        self.records.sweep();
        let mut held = Held::default();
        let mut here = BTreeMap::new();
        let mut known = Vec::new();
        for (name, record) in image.packages.iter().zip(recorded) {
            if let Some(record) = record {
                match self.hold_one(image, name, &record) {
                    Some(one) => {
                        held.extend([one]);
                        here.insert(name.clone(), record);
                    }
                    None => known.push((name.clone(), record.derivation)),
                }
            }
        }
        let wanted = ImageRequest {
            packages: without(&image.packages, &here),
            ..image.clone()
        };
        if !wanted.packages.is_empty() {
            let (made, more) = self
                .realise(&wanted, known.into_iter().collect(), rule, log)
                .await?;
            held.extend([more]);
            here.extend(wanted.packages.into_iter().zip(made));
        }
        let records = image.packages.iter().filter_map(|name| here.remove(name));
        Ok((records.collect(), held))
    }

    /// Has Nix make the packages, and learns all of them. What lies between two processes of Nix the
    /// garbage collector may take, so that is done twice.
    async fn realise(
        &self,
        image: &ImageRequest,
        known: BTreeMap<String, Derivation>,
        rule: &Rule,
        log: &BuildLog,
    ) -> Result<(Vec<PackageRecord>, Held), Error> {
        let batch = self.kept.start().map_err(failures::internal)?;
        let derivations = self.evaluate(image, &known, rule, log).await?;
        let realised = self
            .realise_once(&derivations, batch.path(), rule, log)
            .await?;
        let (derivations, realised) = match realised {
            Err(_) if !derivations.iter().all(is_in_store) => {
                tracing::info!("the garbage collector took a derivation: evaluating again");
                let derivations = self.evaluate(image, &BTreeMap::new(), rule, log).await?;
                let realised = self
                    .realise_once(&derivations, batch.path(), rule, log)
                    .await?;
                (derivations, realised)
            }
            other => (derivations, other),
        };
        realised.map_err(failures::realisation)?;
        let records = self.learn(derivations).await?;
        let reproduced = self.keep(image, &records).await?;
        let held = self.kept.finish(batch, &reproduced);
        Ok((records, held.map_err(failures::internal)?))
    }

    /// The derivations of an image's packages, of which some may be known and still there.
    async fn evaluate(
        &self,
        image: &ImageRequest,
        known: &BTreeMap<String, Derivation>,
        rule: &Rule,
        log: &BuildLog,
    ) -> Result<Vec<Derivation>, Error> {
        let known = known.iter().filter(|(_, one)| is_in_store(one));
        let mut known: BTreeMap<String, Derivation> = known
            .map(|(name, one)| (name.clone(), one.clone()))
            .collect();
        let unknown = ImageRequest {
            packages: without(&image.packages, &known),
            ..image.clone()
        };
        if !unknown.packages.is_empty() {
            let turn = self.evaluations.turn(rule);
            log.enter(Phase::Waiting);
            let _turn = turn.await;
            log.enter(Phase::Evaluating);
            let found = resolve(&*self.nix, &unknown).await?;
            log.part(1.0);
            known.extend(unknown.packages.into_iter().zip(found));
        }
        let derivations = image.packages.iter().filter_map(|name| known.remove(name));
        Ok(derivations.collect())
    }

    async fn realise_once(
        &self,
        derivations: &[Derivation],
        roots: &Path,
        rule: &Rule,
        log: &BuildLog,
    ) -> Result<Result<(), NixError>, Error> {
        let turn = self.builds.turn(rule);
        log.enter(Phase::Waiting);
        let _turn = turn.await;
        log.enter(Phase::Building);
        Ok(self.nix.realise(derivations, roots, log).await)
    }

    /// Asks Nix and the store for all that a record has of packages that are there.
    async fn learn(&self, derivations: Vec<Derivation>) -> Result<Vec<PackageRecord>, Error> {
        let outputs: Vec<StorePath> = derivations
            .iter()
            .flat_map(|one| one.outputs.iter().map(|output| output.path.clone()))
            .collect();
        let closure = self.nix.closure(&outputs).await;
        let closure = closure.map_err(failures::question)?;
        let learnt = tokio::task::spawn_blocking(move || {
            let records = derivations.into_iter();
            let records = records.map(|derivation| record(derivation, &closure));
            records.collect::<Result<Vec<_>, Error>>()
        });
        learnt.await.map_err(failures::internal)?
    }

    /// Keeps the records, and returns what names the packages whose records are everybody's.
    /// Another builder's record of one that is not built alike everywhere speaks of other contents:
    /// layers by that record can't be packed from this store.
    async fn keep(
        &self,
        image: &ImageRequest,
        records: &[PackageRecord],
    ) -> Result<Vec<String>, Error> {
        let mut reproduced = Vec::new();
        for (name, record) in image.packages.iter().zip(records) {
            let kept = self.records.keep(&image.package_key(name), record).await;
            if kept.map_err(failures::storage)?.paths == record.paths {
                reproduced.push(image.package_fingerprint(name));
            } else {
                tracing::warn!(
                    package = name,
                    "another builder built it to other contents: its layers are packed again here"
                );
            }
        }
        Ok(reproduced)
    }
}

fn record(derivation: Derivation, closure: &Closure) -> Result<PackageRecord, Error> {
    let outputs = derivation.outputs.iter().map(|output| &output.path);
    let read = |path: &StorePath| layer::read_tree(&path.on_disk(Path::new("/")));
    let trees: Result<Vec<Tree>, PackError> = outputs.clone().map(read).collect();
    let paths = Closure::new(outputs.cloned(), closure.paths().clone());
    Ok(PackageRecord {
        trees: trees.map_err(failures::internal)?,
        paths: paths.map_err(failures::internal)?.into_paths(),
        derivation,
    })
}

fn is_in_store(derivation: &Derivation) -> bool {
    derivation.path.on_disk(Path::new("/")).exists()
}

fn without<T>(names: &[String], known: &BTreeMap<String, T>) -> Vec<String> {
    let unknown = names.iter().filter(|name| !known.contains_key(*name));
    unknown.cloned().collect()
}
