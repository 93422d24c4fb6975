//! An image's packages: from records where there are any, from Nix where there are none.
//!
//! ```text
//!   names ──► records ──all known──► put together without Nix
//!                │ some are not, or a layer has to be packed and they are not kept here
//!                ▼
//!            those that are not kept: evaluate ─► realise ─► closure, trees ─► records
//! ```
//!
//! A tree is taken of a store path that is what Nix recorded. One that was changed is repaired: fetched or
//! built again by Nix ([`Packages::repair`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::future::try_join_all;
use nixgate_core::distribution::Error;
use tokio::sync::Mutex;

use super::errors::{self, Failure};
use super::fair_semaphore::FairSemaphore;
use super::resolve::resolve;
use super::{ImageRequest, Rule};
use crate::closure::{Closure, StorePath};
use crate::layer::{self, Altered, PackError, Tree};
use crate::nix::gc_roots::{GcRoots, Held};
use crate::nix::{Derivation, Nix, NixError};
use crate::process::ProcessError;
use crate::records::{PackageRecord, Records};
use crate::telemetry::build_log::{BuildLog, Phase};
use crate::telemetry::metrics::{AlteredLabels, Metrics};

/// Learns of packages, and has Nix make them.
pub(crate) struct Packages {
    nix: Arc<dyn Nix>,
    records: Records,
    kept: GcRoots,
    /// A turn for each image that is evaluated at the same time. Not the turns of builds, which may
    /// take hours: that a name is wrong is found out by evaluating, and told at once.
    evaluations: FairSemaphore,
    /// A turn for each image that Nix builds at the same time.
    pub(super) builds: FairSemaphore,
    /// One image after the other has its store paths repaired: they may have some in common. Who has this
    /// has a turn of a build already, and waits for nobody.
    repairs: Mutex<()>,
    metrics: Metrics,
}

impl Packages {
    pub(crate) fn new(
        nix: Arc<dyn Nix>,
        records: Records,
        kept: GcRoots,
        metrics: Metrics,
        max_builds: usize,
    ) -> Self {
        Self {
            nix,
            records,
            kept,
            evaluations: FairSemaphore::new(max_builds),
            builds: FairSemaphore::new(max_builds),
            repairs: Mutex::new(()),
            metrics,
        }
    }

    /// What records say of an image's packages, in their order.
    pub(super) async fn recorded(
        &self,
        image: &ImageRequest,
    ) -> Result<Vec<Option<PackageRecord>>, Error> {
        let keys = image.packages.iter().map(|name| image.package_key(name));
        let records = keys.map(|key| async move { self.records.get(&key).await });
        try_join_all(records).await.map_err(errors::storage)
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
    /// the turns of a rule; all of them, if `ask_nix` says so. They are in the store until what is
    /// returned with them is dropped.
    pub(super) async fn make(
        &self,
        image: &ImageRequest,
        recorded: Vec<Option<PackageRecord>>,
        rule: &Rule,
        log: &BuildLog,
        ask_nix: bool,
    ) -> Result<(Vec<PackageRecord>, Held), Failure> {
        self.kept.sweep();
        self.records.sweep();
        let mut held = Held::default();
        let mut here = BTreeMap::new();
        let mut known = Vec::new();
        for (name, record) in image.packages.iter().zip(recorded) {
            if let Some(record) = record {
                match self.hold_one(image, name, &record).filter(|_| !ask_nix) {
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

    /// Has Nix make store paths again that were changed after it had made them.
    ///
    /// # Errors
    /// When it can't; what to do is in the log.
    pub(super) async fn repair(
        &self,
        image: &ImageRequest,
        altered: &[Altered],
        rule: &Rule,
        log: &BuildLog,
    ) -> Result<(), Error> {
        if self.still_altered(altered).await?.is_empty() {
            return Ok(());
        }
        // Their derivations, of which they can be made, may have gone from the store.
        self.evaluate(image, &BTreeMap::new(), rule, log).await?;
        // First the turn, for which this may wait for hours, and then what others wait for.
        let turn = self.builds.turn(rule);
        log.enter(Phase::Waiting);
        let _turn = turn.await;
        let _one = self.repairs.lock().await;
        let altered = self.still_altered(altered).await?;
        if altered.is_empty() {
            return Ok(());
        }
        for one in &altered {
            let Altered {
                path,
                recorded,
                found,
            } = one;
            tracing::error!(
                %path,
                recorded,
                found,
                "a store path was changed after Nix had made it: it is not packed, and is repaired"
            );
            log.line(&format!("{} was changed: repairing it", path.name()));
        }
        let paths: Vec<StorePath> = altered.iter().map(|one| one.path.clone()).collect();
        log.enter(Phase::Building);
        let repaired = self.nix.repair(&paths, log).await;
        let left = self.still_altered(&altered).await?;
        let count = |outcome, count: usize| {
            let labels = AlteredLabels { outcome };
            let counter = self.metrics.altered_paths.get_or_create(&labels);
            counter.inc_by(count as u64);
        };
        count("repaired", altered.len() - left.len());
        count("refused", left.len());
        if left.is_empty() {
            return Ok(());
        }
        let reason = repaired.err().map(|error| error.to_string());
        for one in &left {
            tracing::error!(
                path = %one.path,
                recorded = one.recorded,
                found = one.found,
                reason,
                "a store path that was changed could not be repaired: run `nix-store --repair-path \
                 {}` as root on the machine of the Nix store, and find out who can write there",
                one.path
            );
        }
        Err(errors::altered(left.iter().map(|one| &one.path)))
    }

    /// Of store paths that are not what was expected, those that are not what Nix itself has on record:
    /// a path that was made again may have become another one, which is no damage.
    async fn still_altered(&self, altered: &[Altered]) -> Result<Vec<Altered>, Error> {
        let paths: Vec<StorePath> = altered.iter().map(|one| one.path.clone()).collect();
        let closure = match self.nix.closure(&paths).await {
            Ok(closure) => closure,
            // A path that has gone from Nix's records is made anew.
            Err(
                NixError::Process(ProcessError::Failed { .. }) | NixError::NotUnderstood { .. },
            ) => return Ok(Vec::new()),
            Err(error) => return Err(errors::question(error)),
        };
        let check = move |path: &StorePath| {
            let info = closure.paths().get(path)?;
            match layer::check(Path::new("/"), path, &info.nar_hash) {
                Err(PackError::Altered(altered)) => Some(altered),
                // What else is wrong is found out by whoever packs it.
                _ => None,
            }
        };
        let altered =
            tokio::task::spawn_blocking(move || paths.iter().filter_map(check).flatten().collect());
        altered.await.map_err(errors::internal)
    }

    /// Has Nix make the packages, and learns all of them. What lies between two processes of Nix the
    /// garbage collector may take, so that is done twice.
    async fn realise(
        &self,
        image: &ImageRequest,
        known: BTreeMap<String, Derivation>,
        rule: &Rule,
        log: &BuildLog,
    ) -> Result<(Vec<PackageRecord>, Held), Failure> {
        let batch = self.kept.start().map_err(errors::state_folder)?;
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
        let realised = match realised {
            Err(error @ NixError::Killed { .. }) => {
                tracing::warn!("tried once more: {error}");
                log.line("a build was killed: trying once more");
                self.realise_once(&derivations, batch.path(), rule, log)
                    .await?
            }
            other => other,
        };
        realised.map_err(errors::realisation)?;
        let records = self.learn(derivations).await?;
        let reproduced = self.keep(image, &records).await?;
        let held = self.kept.finish(batch, &reproduced);
        Ok((records, held.map_err(errors::state_folder)?))
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
    async fn learn(&self, derivations: Vec<Derivation>) -> Result<Vec<PackageRecord>, Failure> {
        let outputs: Vec<StorePath> = derivations
            .iter()
            .flat_map(|one| one.outputs.iter().map(|output| output.path.clone()))
            .collect();
        let closure = self.nix.closure(&outputs).await;
        let closure = closure.map_err(errors::question)?;
        let learnt = tokio::task::spawn_blocking(move || {
            let trees = layer::all(derivations.iter().map(|one| trees(one, &closure)))?;
            let records = derivations.into_iter().zip(trees);
            let records = records.map(|(derivation, trees)| record(derivation, trees, &closure));
            Ok::<_, Failure>(records.collect::<Result<_, Error>>()?)
        });
        learnt.await.map_err(errors::internal)?
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
            if kept.map_err(errors::storage)?.paths == record.paths {
                reproduced.push(image.package_fingerprint(name));
            } else {
                self.kept.forget(&image.package_fingerprint(name));
                tracing::warn!(
                    package = name,
                    "another builder built it to other contents: its layers are packed again here"
                );
            }
        }
        Ok(reproduced)
    }
}

/// What is in the outputs of a derivation, which are what Nix recorded.
fn trees(derivation: &Derivation, closure: &Closure) -> Result<Vec<Tree>, PackError> {
    layer::all(derivation.outputs.iter().map(|output| {
        let info = closure.paths().get(&output.path);
        let hash = info.map_or("", |info| info.nar_hash.as_str());
        layer::check(Path::new("/"), &output.path, hash)
    }))
}

fn record(
    derivation: Derivation,
    trees: Vec<Tree>,
    closure: &Closure,
) -> Result<PackageRecord, Error> {
    let outputs = derivation.outputs.iter().map(|output| output.path.clone());
    let paths = Closure::new(outputs, closure.paths().clone());
    Ok(PackageRecord {
        trees,
        paths: paths.map_err(errors::internal)?.into_paths(),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use nixgate_core::distribution::ErrorKind;

    use super::*;
    use crate::closure::PathInfo;
    use crate::nix::Resolution;
    use crate::nix::fake::FakeNix;
    use crate::storage::Storage;

    #[tokio::test]
    async fn who_waits_for_a_turn_keeps_nobody_from_repairing() {
        let git = Derivation::example("git");
        let path = git.outputs[0].path.clone();
        let info = PathInfo {
            nar_hash: "00".to_owned(),
            nar_size: 1,
            references: [].into(),
        };
        // It is in no store, as if somebody had taken it away.
        let nix = Arc::new(FakeNix {
            packages: [("git".to_owned(), Resolution::Derivation(git))].into(),
            paths: [(path.clone(), info)].into(),
            ..FakeNix::default()
        });
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::filesystem(&folder.path().join("storage")).unwrap();
        let kept = GcRoots::open(&folder.path().join("kept"), Duration::from_secs(60)).unwrap();
        let records = Records::new(storage, None);
        let packages = Packages::new(Arc::clone(&nix) as _, records, kept, Metrics::new(), 1);
        let altered = [Altered {
            path,
            recorded: "00".to_owned(),
            found: "11".to_owned(),
        }];
        let (image, rule) = (ImageRequest::example(&["git"]), Rule::NONE);
        let log = BuildLog::new("id", None, &[], "");

        let busy = packages.builds.turn(&rule).await;
        let mut repair = Box::pin(packages.repair(&image, &altered, &rule, &log));
        while nix.resolved.load(Ordering::SeqCst) == 0 {
            assert!(futures::poll!(&mut repair).is_pending());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(packages.repairs.try_lock().is_ok());
        drop(busy);
        let error = repair.await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::PackageAltered);
    }
}
