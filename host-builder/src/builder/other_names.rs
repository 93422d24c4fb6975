//! The other names of an image's packages, as far as a policy denies them: names with an output path in common
//! are one package.
//!
//! ```text
//!   outputs of the image's packages ──┬─ index ──► all names of the set with one of them ──┐
//!                                     │                                                     ├─► those that a
//!   literal patterns ── Nix, once ────┴─ without one, or where the index ends: the literals ┘   pattern matches
//!                                        with one of them
//! ```
//!
//! Patterns with wildcards are compared with names, which the index alone has. A literal is looked up in the
//! image's package set: in one evaluation for all of them, which is remembered. It covers what the index lacks,
//! such as names that lead through a package (`python3.pkgs.requests`) and those of one output (`git.doc`).
//! Literals that name nothing, or that Nix refuses, are no package's name.
//!
//! What can't be found out is [`Others::Unknown`]: then each rule that denies packages denies the image.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use nixgate_core::package_set::System;
use nixgate_core::policy::DeniedPatterns;
use tokio::sync::Semaphore;

use super::resolve::PackageSet;
use crate::closure::StorePath;
use crate::fingerprint::Fingerprint;
use crate::index::{Index, Indexes, NotKnown, unblock};
use crate::memo::{Answer, Bound, Known, Lifetime, Memo, Panicked};
use crate::nix::{Nix, Resolution, Writes};
use crate::records::{ImageRecord, Origin};
use crate::source::Pin;
use crate::telemetry::logging::chain;

/// Package sets, each with the literals of a policy, whose names are remembered. Literals of 32 KiB take a few
/// hundred kilobytes.
const MAX_REMEMBERED: usize = 32;
/// How long: it never changes.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// How long a failure is.
const RETRY: Duration = Duration::from_secs(30);
/// Uses of an entry within so long count as one.
const WINDOW: Duration = Duration::from_secs(60);
/// Literals of one evaluation. Nix may take some ten megabytes for each.
const CHUNK: usize = 100;

/// Other names of an image's packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    Known {
        /// By package: those that the edge needs ([`DeniedPatterns::matched`]).
        names: BTreeMap<String, BTreeSet<String>>,
        /// Whether there may be more once there is an index.
        may_grow: bool,
    },
    /// They can't be found out now.
    Unknown,
    /// It is being looked up, for so long already.
    Pending(Duration),
}

/// How long somebody waits for other names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) wait: Duration,
    /// Whether to give up at once when another package set is being looked at.
    pub(crate) only_when_idle: bool,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct OtherNames {
    nix: Arc<dyn Nix>,
    indexes: Indexes,
    /// Whether each package set gets an index in time.
    expects_index: bool,
    /// Of the package sets.
    source: String,
    literals: Memo<Arc<Literals>, Unjudged>,
    one_at_a_time: Arc<Semaphore>,
}

/// What the literals of a policy are in one package set.
#[derive(Debug, Default)]
struct Literals {
    /// The literals with an output.
    by_output: BTreeMap<StorePath, BTreeSet<String>>,
    /// Whether some literal is a set, so that it matches all names in it.
    has_sets: bool,
}

/// The literals can't be looked up. The log has the reason.
#[derive(Clone, Copy, Debug)]
struct Unjudged;

impl From<Panicked> for Unjudged {
    fn from(_: Panicked) -> Self {
        Self
    }
}

/// Where literals are looked up.
struct LookUp {
    nix: Arc<dyn Nix>,
    index: Option<Arc<Index>>,
    pin: Pin,
    system: System,
}

impl OtherNames {
    /// `source` identifies where the package sets are from.
    pub(crate) fn new(
        nix: Arc<dyn Nix>,
        indexes: Indexes,
        expects_index: bool,
        source: String,
    ) -> Self {
        Self {
            nix,
            indexes,
            expects_index,
            source,
            literals: Memo::new(Bound {
                most: MAX_REMEMBERED,
                always: "",
                window: WINDOW,
            }),
            one_at_a_time: Arc::new(Semaphore::new(1)),
        }
    }

    /// The other names of an image's packages that a policy denies.
    pub(crate) async fn of(
        &self,
        record: &ImageRecord,
        denied: &DeniedPatterns,
        patience: Patience,
    ) -> Others {
        if denied.is_empty() {
            let (names, may_grow) = (BTreeMap::new(), false);
            return Others::Known { names, may_grow };
        }
        let Some(origin) = &record.origin else {
            return Others::Unknown;
        };
        let index = self
            .indexes
            .of(&origin.revision, record.system, patience.wait)
            .await;
        match index {
            Ok(index) => self.found(record, origin, index, denied, patience).await,
            Err(NotKnown) => match self.found(record, origin, None, denied, patience).await {
                // Only the index could tell what patterns and names of sets match.
                Others::Known { may_grow: true, .. } => Others::Unknown,
                others => others,
            },
        }
    }

    /// The same with the index of the package set, if there is one.
    async fn found(
        &self,
        record: &ImageRecord,
        origin: &Origin,
        index: Option<Arc<Index>>,
        denied: &DeniedPatterns,
        patience: Patience,
    ) -> Others {
        let look_up = LookUp {
            nix: Arc::clone(&self.nix),
            index: index.clone(),
            pin: Pin {
                path: origin.set.clone(),
                revision: origin.revision.clone(),
            },
            system: record.system,
        };
        let literals = match self.literals(look_up, denied, patience).await {
            Ok(Known::Value(literals, _)) => literals,
            Ok(Known::Pending(elapsed)) => return Others::Pending(elapsed),
            Err(_) => return Others::Unknown,
        };
        let of = |(name, outputs): (&String, &BTreeSet<StorePath>)| {
            let outputs: Vec<StorePath> = outputs.iter().cloned().collect();
            let mut others = match &index {
                Some(index) => index.names_of(&outputs),
                None => BTreeSet::new(),
            };
            let same = outputs.iter().filter_map(|one| literals.by_output.get(one));
            others.extend(same.flatten().cloned());
            let others = others.iter().map(String::as_str);
            let matched = denied.matched(name, record.real_name(name), others);
            (!matched.is_empty()).then(|| (name.clone(), matched))
        };
        Others::Known {
            names: origin.outputs.iter().filter_map(of).collect(),
            may_grow: index.is_none()
                && self.expects_index
                && (denied.has_wildcards() || literals.has_sets),
        }
    }

    async fn literals(
        &self,
        look_up: LookUp,
        denied: &DeniedPatterns,
        patience: Patience,
    ) -> Answer<Arc<Literals>, Unjudged> {
        let key = Fingerprint::new("literals-1")
            .part(&self.source)
            .part(&look_up.pin.revision)
            .part(look_up.system.nix())
            // It has names that patterns match. There is a pattern.
            .part(if look_up.index.is_some() {
                denied.header()
            } else {
                ""
            })
            .list(denied.literals().iter())
            .hex();
        let start = |running: &[()]| {
            if patience.only_when_idle && !running.is_empty() {
                return Err(Unjudged);
            }
            let (denied, one_at_a_time) = (denied.clone(), Arc::clone(&self.one_at_a_time));
            let find = async move {
                // Pulls wait for evaluations, too. It is never closed.
                let _permit = one_at_a_time.acquire().await;
                match look_up.find(denied).await {
                    Ok(literals) => (Ok(Arc::new(literals)), Lifetime::fresh(FRESH)),
                    Err(reason) => {
                        let revision = look_up.pin.revision;
                        tracing::warn!(
                            revision,
                            reason,
                            "cannot tell which packages the policy denies: images of this package set are \
                             refused to callers for whom a rule denies packages"
                        );
                        (Err(Unjudged), Lifetime::fresh(RETRY))
                    }
                }
            };
            Ok(find.boxed())
        };
        self.literals.get(&key, patience.wait, (), start).await
    }
}

impl LookUp {
    /// What the literals are, and the names that match a pattern and that an index could not describe.
    async fn find(&self, denied: DeniedPatterns) -> Result<Literals, String> {
        let (mut literals, names) = match &self.index {
            None => (
                Literals::default(),
                denied.literals().iter().cloned().collect(),
            ),
            Some(index) => {
                let index = Arc::clone(index);
                let known = unblock(move || Literals::known(&index, &denied)).await;
                known.map_err(|error| format!("cannot read the index: {error}"))?
            }
        };
        for chunk in names.chunks(CHUNK) {
            literals.add(self.evaluate(chunk).await?);
        }
        Ok(literals)
    }

    /// Names of which none is left out.
    async fn evaluate(&self, names: &[String]) -> Result<Vec<(String, Resolution)>, String> {
        if !self.pin.path.exists() {
            return Err("the package set is no longer in the Nix store".to_owned());
        }
        let set = |writes| PackageSet {
            nix: &*self.nix,
            pin: &self.pin,
            system: self.system,
            writes,
        };
        let owned = |(name, found): (&str, Resolution)| (name.to_owned(), found);
        let mut all = Vec::new();
        // What reads its own writes can only be evaluated with them.
        let left: Vec<String> = match set(Writes::Nothing).find(names).await {
            Ok(findings) => {
                let broken = findings.broken.iter().map(|(name, _)| *name);
                let left = broken.chain(findings.not_looked_at).map(str::to_owned);
                let left = left.collect();
                all.extend(findings.found.into_iter().map(owned));
                left
            }
            Err(_) => names.to_vec(),
        };
        if left.is_empty() {
            return Ok(all);
        }
        let findings = set(Writes::Derivations).find(&left).await;
        let findings = findings.map_err(|error| chain(&error).to_string())?;
        match findings.not_looked_at.len() {
            0 => {}
            count => return Err(format!("{count} names are left after too many that fail")),
        }
        all.extend(findings.found.into_iter().map(owned));
        Ok(all)
    }
}

impl Literals {
    /// What an index knows of names, and the names that Nix has to be asked for: an index is made with less
    /// memory than a pull has, and without writing to the store; it has no names that lead through a package,
    /// and none of sets that it did not look into.
    fn known(index: &Index, denied: &DeniedPatterns) -> io::Result<(Self, Vec<String>)> {
        let mut literals = Self::default();
        let failed = |name: &str| denied.matches(name);
        let mut left: BTreeSet<String> = index.failed(failed).map(str::to_owned).collect();
        for name in denied.literals() {
            if let Some(derivation) = index.derivation(name)? {
                let outputs = derivation.outputs.into_iter().map(|one| one.path);
                literals.insert(name, outputs);
                continue;
            }
            // All names at the top were looked at, and those beside a name that is known.
            if let Some((parent, _)) = name.rsplit_once('.')
                && !index.lists(parent)
            {
                left.insert(name.clone());
            }
        }
        Ok((literals, left.into_iter().collect()))
    }

    fn add(&mut self, found: Vec<(String, Resolution)>) {
        for (name, resolution) in found {
            match resolution {
                Resolution::Derivation(derivation) => {
                    let outputs = derivation.outputs.into_iter().map(|one| one.path);
                    self.insert(&name, outputs.chain(derivation.identity));
                }
                Resolution::NotADerivation { .. } => self.has_sets = true,
                Resolution::Unknown { .. } | Resolution::Refused => {}
            }
        }
    }

    fn insert(&mut self, name: &str, outputs: impl Iterator<Item = StorePath>) {
        for output in outputs {
            let names = self.by_output.entry(output).or_default();
            names.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
