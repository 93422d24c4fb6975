//! An image's packages: from records, or from Nix.
//!
//! ```text
//!   names ──► records ──all there──► the image is made without Nix
//!                │ some are missing; or a layer has to be packed, and the store lacks packages
//!                ▼
//!            the index, records ──outputs──► in the store, or in a binary cache ──────┐
//!                │ a name that they lack, or an output that nobody has                ▼
//!                ▼                                                         closure, trees ─► records
//!            evaluate ──derivations──► realise ───────────────────────────────────────┘
//! ```
//!
//! Trees are read only from store paths that match Nix's record. Nix fetches or builds an altered one
//! again ([`Packages::repair`]).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use nixgate_core::distribution::Error;
use tokio::sync::Mutex;

use super::errors::{self, Failure};
use super::fair_semaphore::{FairSemaphore, Permit};
use super::resolve::resolve;
use super::{ImageRequest, Rule};
use crate::closure::{Closure, StorePath};
use crate::index::{self, Index, Indexes};
use crate::layer::{self, Altered, PackError, Reach, Tree};
use crate::nix::gc_roots::{GcRoots, RootGuard};
use crate::nix::{Derivation, Nix, NixError};
use crate::process::ProcessError;
use crate::records::{PackageRecord, Records};
use crate::telemetry::build_log::{BuildLog, Phase};
use crate::telemetry::logging::chain;
use crate::telemetry::metrics::{Metrics, OutcomeLabels};

pub(crate) struct Packages {
    nix: Arc<dyn Nix>,
    indexes: Indexes,
    records: Records,
    roots: GcRoots,
    /// Bounds the images that are evaluated at once. Apart from builds, which may take hours: a wrong name
    /// is reported at once.
    evaluations: FairSemaphore,
    /// Bounds the images that Nix builds at once.
    pub(super) builds: FairSemaphore,
    /// One repair at a time, since images have store paths in common. Taken after a permit of `builds`, so
    /// nobody waits for a permit while holding it.
    repairs: Mutex<()>,
    metrics: Metrics,
}

impl Packages {
    pub(crate) fn new(
        nix: Arc<dyn Nix>,
        indexes: Indexes,
        records: Records,
        roots: GcRoots,
        metrics: Metrics,
        max_builds: usize,
    ) -> Self {
        Self {
            nix,
            indexes,
            records,
            roots,
            evaluations: FairSemaphore::new(max_builds),
            builds: FairSemaphore::new(max_builds),
            repairs: Mutex::new(()),
            metrics,
        }
    }

    /// The records of an image's packages, in their order.
    pub(super) async fn records(
        &self,
        image: &ImageRequest,
    ) -> Result<Vec<Option<PackageRecord>>, Error> {
        let keys = image.packages.iter().map(|name| image.package_key(name));
        let records = keys.map(|key| async move { Ok(self.records.get(&key).await?) });
        try_join_all(records).await
    }

    /// Guards all packages of an image, if this builder's store has them.
    pub(super) fn guard(
        &self,
        image: &ImageRequest,
        records: &[PackageRecord],
    ) -> Option<RootGuard> {
        let mut guard = RootGuard::default();
        for (name, record) in image.packages.iter().zip(records) {
            guard.extend([self.guard_one(image, name, record)?]);
        }
        Some(guard)
    }

    fn guard_one(
        &self,
        image: &ImageRequest,
        name: &str,
        record: &PackageRecord,
    ) -> Option<RootGuard> {
        let guard = self.roots.guard(&image.package_fingerprint(name))?;
        let exists = |path: &StorePath| path.on_disk(Path::new("/")).symlink_metadata().is_ok();
        record.outputs().all(exists).then_some(guard)
    }

    /// Makes the packages that have no record or are not in this builder's store; with `ask_nix`, all of
    /// them. They stay in the store until the guard is dropped.
    pub(super) async fn make(
        &self,
        image: &ImageRequest,
        recorded: Vec<Option<PackageRecord>>,
        rule: &Rule,
        log: &BuildLog,
        ask_nix: bool,
    ) -> Result<(Vec<PackageRecord>, RootGuard), Failure> {
        self.roots.sweep();
        self.records.sweep();
        let mut guard = RootGuard::default();
        let mut ready = BTreeMap::new();
        let mut known = BTreeMap::new();
        for (name, record) in image.packages.iter().zip(recorded) {
            let Some(record) = record else { continue };
            match self.guard_one(image, name, &record).filter(|_| !ask_nix) {
                Some(one) => {
                    guard.extend([one]);
                    ready.insert(name.clone(), record);
                }
                None => drop(known.insert(name.clone(), record.derivation)),
            }
        }
        let missing = image.without(&ready);
        if !missing.packages.is_empty() {
            let (made, one) = self.realise(&missing, known, rule, log).await?;
            guard.extend([one]);
            ready.extend(missing.packages.into_iter().zip(made));
        }
        let records = image.packages.iter().filter_map(|name| ready.remove(name));
        Ok((records.collect(), guard))
    }

    /// Has Nix make altered store paths again.
    ///
    /// # Errors
    /// When it can't; the log says what to do.
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
        // Writes their derivations to the store again, which the garbage collector may have taken.
        self.evaluate(image, &BTreeMap::new(), rule, log).await?;
        // The permit may take hours, so it comes before the lock.
        let _permit = wait_for(&self.builds, rule, log).await;
        let _one_repair = self.repairs.lock().await;
        let altered = self.still_altered(altered).await?;
        if altered.is_empty() {
            return Ok(());
        }
        for one in &altered {
            tracing::error!(
                path = %one.path,
                recorded = one.recorded,
                found = one.found,
                "a store path was changed after Nix made it: Nix repairs it before it is packed"
            );
            log.line(&format!("{} was changed: repairing it", one.path.name()));
        }
        let paths: Vec<StorePath> = altered.iter().map(|one| one.path.clone()).collect();
        log.enter(Phase::Building);
        let repaired = self.nix.repair(&paths, log).await;
        let left = self.still_altered(&altered).await?;
        let count = |outcome, count: usize| {
            let labels = OutcomeLabels { outcome };
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
                "cannot repair a store path that was changed. Run `nix-store --repair-path {}` as root on \
                 the machine of the Nix store, and find out who can write there",
                one.path
            );
        }
        Err(errors::altered(left.iter().map(|one| &one.path)))
    }

    /// The store paths that still differ from Nix's own record. That may have changed as well, if Nix made
    /// a path again that is not reproducible.
    async fn still_altered(&self, altered: &[Altered]) -> Result<Vec<Altered>, Error> {
        let paths: Vec<StorePath> = altered.iter().map(|one| one.path.clone()).collect();
        let closure = match self.nix.closure(&paths).await {
            Ok(closure) => closure,
            // Nix makes a path again that it has no record of.
            Err(
                NixError::Process(ProcessError::Failed { .. }) | NixError::NotUnderstood { .. },
            ) => return Ok(Vec::new()),
            Err(error) => return Err(errors::query(error)),
        };
        let check = move |path: &StorePath| {
            let info = closure.paths().get(path)?;
            match layer::check(Path::new("/"), path, &info.nar_hash) {
                Err(PackError::Altered(altered)) => Some(altered),
                // Packing reports other errors.
                _ => None,
            }
        };
        let altered =
            tokio::task::spawn_blocking(move || paths.iter().filter_map(check).flatten().collect());
        altered.await.map_err(errors::internal)
    }

    /// Makes packages and their records. Between the processes of Nix the garbage collector may take the
    /// derivations; then this evaluates again.
    async fn realise(
        &self,
        image: &ImageRequest,
        mut known: BTreeMap<String, Derivation>,
        rule: &Rule,
        log: &BuildLog,
    ) -> Result<(Vec<PackageRecord>, RootGuard), Failure> {
        let batch = self.roots.begin_batch().map_err(errors::state_folder)?;
        let roots = batch.path();
        self.add_indexed(image, &mut known).await;
        let (mut derivations, mut realised) =
            match self.fetch(image, &known, roots, rule, log).await {
                true => (in_order(image, &known), Ok(())),
                false => {
                    let derivations = self.evaluate(image, &known, rule, log).await?;
                    let realised = self.realise_once(&derivations, roots, rule, log).await;
                    (derivations, realised)
                }
            };
        if realised.is_err() && !derivations.iter().all(is_in_store) {
            tracing::info!("the garbage collector took a derivation: evaluating again");
            derivations = self.evaluate(image, &BTreeMap::new(), rule, log).await?;
            realised = self.realise_once(&derivations, roots, rule, log).await;
        }
        if let Err(error @ NixError::Killed { .. }) = &realised {
            tracing::warn!(error = chain(error), "trying a build once more");
            log.line("a build was killed: trying once more");
            realised = self.realise_once(&derivations, roots, rule, log).await;
        }
        realised.map_err(errors::realisation)?;
        let records = self.describe(derivations).await?;
        let reproduced = self.store_records(image, &records).await?;
        let guard = self.roots.register(batch, &reproduced);
        Ok((records, guard.map_err(errors::state_folder)?))
    }

    async fn index(&self, image: &ImageRequest, wait: Duration) -> Option<Arc<Index>> {
        let index = self.indexes.of(&image.pin.revision, image.system, wait);
        index.await.ok().flatten()
    }

    /// Adds what the index of the package set knows of an image's names.
    async fn add_indexed(&self, image: &ImageRequest, known: &mut BTreeMap<String, Derivation>) {
        let unknown = image.without(known).packages;
        if unknown.is_empty() {
            return;
        }
        let Some(index) = self.index(image, index::WAIT).await else {
            return;
        };
        let found = index::unblock(move || {
            let found = unknown.into_iter().map(|name| {
                let derivation = index.derivation(&name)?;
                Ok(derivation.map(|derivation| (name, derivation)))
            });
            found.collect::<io::Result<Vec<_>>>()
        });
        match found.await {
            Ok(found) => known.extend(found.into_iter().flatten()),
            Err(error) => tracing::warn!(%error, "cannot read the index of the package set"),
        }
    }

    /// Takes the outputs of derivations that are not in this store, which an index or a record knows, from
    /// the store or from binary caches. Returns whether that gave all packages, without an evaluation.
    async fn fetch(
        &self,
        image: &ImageRequest,
        known: &BTreeMap<String, Derivation>,
        roots: &Path,
        rule: &Rule,
        log: &BuildLog,
    ) -> bool {
        let derivations = in_order(image, known);
        if derivations.len() != image.packages.len() || derivations.iter().all(is_in_store) {
            return false;
        }
        let _permit = wait_for(&self.builds, rule, log).await;
        log.enter(Phase::Building);
        let fetched = self.nix.substitute(&derivations, roots, log).await;
        if let Err(error) = &fetched {
            tracing::debug!(
                error = chain(error),
                "not all packages can be fetched: evaluating"
            );
        }
        fetched.is_ok()
    }

    /// The derivations of an image's packages: those in `known` that the store still has, others from Nix.
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
        let unknown = image.without(&known);
        if !unknown.packages.is_empty() {
            let _permit = wait_for(&self.evaluations, rule, log).await;
            log.enter(Phase::Evaluating);
            // It only knows what else may have been meant, which is worth no waiting.
            let index = self.index(image, Duration::ZERO).await;
            let found = resolve(&*self.nix, &unknown, index.as_deref()).await?;
            log.set_progress(1.0);
            known.extend(unknown.packages.into_iter().zip(found));
        }
        Ok(in_order(image, &known))
    }

    async fn realise_once(
        &self,
        derivations: &[Derivation],
        roots: &Path,
        rule: &Rule,
        log: &BuildLog,
    ) -> Result<(), NixError> {
        let _permit = wait_for(&self.builds, rule, log).await;
        log.enter(Phase::Building);
        self.nix.realise(derivations, roots, log).await
    }

    /// Makes the records of packages in the store.
    async fn describe(&self, derivations: Vec<Derivation>) -> Result<Vec<PackageRecord>, Failure> {
        let outputs: Vec<StorePath> = derivations
            .iter()
            .flat_map(|one| one.outputs.iter().map(|output| output.path.clone()))
            .collect();
        let closure = self.nix.closure(&outputs).await;
        let closure = closure.map_err(errors::query)?;
        let described = tokio::task::spawn_blocking(move || {
            let trees = layer::collect(derivations.iter().map(|one| trees(one, &closure)))?;
            let reach = derivations.iter().zip(&trees);
            let reach = layer::collect(reach.map(|(one, trees)| reach_of(one, trees, &closure)))?;
            let records = derivations.into_iter().zip(trees.into_iter().zip(reach));
            let records = records.map(|(one, (trees, reach))| record(one, trees, reach, &closure));
            Ok::<_, Failure>(records.collect::<Result<_, Error>>()?)
        });
        described.await.map_err(errors::internal)?
    }

    /// Stores the records, and returns the fingerprints of those packages whose stored record is the same.
    /// A package that is not reproducible may have another builder's record, with other contents: layers
    /// by that record can't be packed from this store.
    async fn store_records(
        &self,
        image: &ImageRequest,
        records: &[PackageRecord],
    ) -> Result<Vec<String>, Error> {
        let mut reproduced = Vec::new();
        for (name, record) in image.packages.iter().zip(records) {
            let stored = self.records.keep(&image.package_key(name), record).await;
            if stored?.paths == record.paths {
                reproduced.push(image.package_fingerprint(name));
            } else {
                self.roots.remove(&image.package_fingerprint(name));
                tracing::warn!(
                    package = name,
                    "a package is not reproducible: another builder has other contents, so this one packs \
                     its own layers"
                );
            }
        }
        Ok(reproduced)
    }
}

/// The trees of a derivation's outputs, checked against Nix's hashes.
fn trees(derivation: &Derivation, closure: &Closure) -> Result<Vec<Tree>, PackError> {
    layer::collect(derivation.outputs.iter().map(|output| {
        let info = closure.paths().get(&output.path);
        let hash = info.map_or("", |info| info.nar_hash.as_str());
        layer::check(Path::new("/"), &output.path, hash)
    }))
}

/// What an image with a derivation's outputs needs of other store paths.
fn reach_of(
    derivation: &Derivation,
    trees: &[Tree],
    closure: &Closure,
) -> Result<Reach, PackError> {
    let outputs = derivation.outputs.iter().map(|output| output.path.clone());
    let outputs: Vec<_> = outputs.zip(trees).collect();
    Reach::read(Path::new("/"), &outputs, closure)
}

fn record(
    derivation: Derivation,
    trees: Vec<Tree>,
    reach: Reach,
    closure: &Closure,
) -> Result<PackageRecord, Error> {
    let outputs = derivation.outputs.iter().map(|output| output.path.clone());
    let paths = Closure::new(outputs, closure.paths().clone());
    Ok(PackageRecord {
        trees,
        reach,
        paths: paths.map_err(errors::internal)?.into_paths(),
        derivation,
    })
}

/// Those of an image's packages that are known.
fn in_order(image: &ImageRequest, known: &BTreeMap<String, Derivation>) -> Vec<Derivation> {
    let known = image.packages.iter().filter_map(|name| known.get(name));
    known.cloned().collect()
}

fn is_in_store(derivation: &Derivation) -> bool {
    derivation.path.on_disk(Path::new("/")).exists()
}

async fn wait_for(semaphore: &FairSemaphore, rule: &Rule, log: &BuildLog) -> Permit {
    let waiter = semaphore.acquire(rule);
    log.enter(Phase::Waiting);
    waiter.await
}

impl ImageRequest {
    /// The same image without some packages.
    fn without<T>(&self, packages: &BTreeMap<String, T>) -> Self {
        let mut image = self.clone();
        image.packages.retain(|name| !packages.contains_key(name));
        image
    }
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
    async fn waiting_for_a_permit_blocks_no_other_repair() {
        let git = Derivation::example("git");
        let path = git.outputs[0].path.clone();
        let info = PathInfo {
            nar_hash: "00".to_owned(),
            nar_size: 1,
            references: [].into(),
        };
        // It is in no store, as if somebody had removed it.
        let nix = Arc::new(FakeNix {
            packages: [("git".to_owned(), Resolution::Derivation(git))].into(),
            paths: [(path.clone(), info)].into(),
            ..FakeNix::default()
        });
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::filesystem(&folder.path().join("storage")).unwrap();
        let roots = GcRoots::open(&folder.path().join("kept"), Duration::from_secs(60)).unwrap();
        let records = Records::new(storage, None);
        let shared: Arc<dyn Nix> = Arc::clone(&nix) as _;
        let indexes = Indexes::example(Arc::clone(&shared), folder.path(), false);
        let packages = Packages::new(shared, indexes, records, roots, Metrics::new(), 1);
        let altered = [Altered {
            path,
            recorded: "00".to_owned(),
            found: "11".to_owned(),
        }];
        let (image, rule) = (ImageRequest::example(&["git"]), Rule::NONE);
        let log = BuildLog::new("id", None, &[], "");

        let busy = packages.builds.acquire(&rule).await;
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
