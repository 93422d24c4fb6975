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
use nixgate_core::package_set::{System, with_parents};
use nixgate_core::policy::DeniedPatterns;

use super::resolve::PackageSet;
use crate::closure::StorePath;
use crate::fingerprint::Fingerprint;
use crate::index::{Index, Indexes};
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
        let index = self.indexes.of(&origin.revision, record.system).await;
        self.found(record, origin, index, denied, patience).await
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
            .part(if look_up.index.is_some() { "index" } else { "" })
            .list(denied.literals().iter())
            .hex();
        let names: Vec<String> = denied.literals().iter().cloned().collect();
        let start = |running: &[()]| {
            if patience.only_when_idle && !running.is_empty() {
                return Err(Unjudged);
            }
            let find = async move {
                match look_up.find(names).await {
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
    /// What names are.
    async fn find(&self, names: Vec<String>) -> Result<Literals, String> {
        let (mut literals, names, must) = match &self.index {
            None => (Literals::default(), names, true),
            Some(index) => {
                let index = Arc::clone(index);
                let known = tokio::task::spawn_blocking(move || Literals::known(&index, names));
                let known = known.await.map_err(io::Error::other).flatten();
                known.map_err(|error| format!("cannot read the index: {error}"))?
            }
        };
        for chunk in names.chunks(CHUNK) {
            match self.evaluate(chunk).await {
                Ok(found) => literals.add(found),
                // Nobody could tell them apart from names that the set lacks.
                Err(_) if !must => break,
                Err(reason) => return Err(reason),
            }
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
    /// What an index knows of names, the names that Nix has to be asked for, and whether it must answer.
    fn known(index: &Index, names: Vec<String>) -> io::Result<(Self, Vec<String>, bool)> {
        let (mut literals, mut left, mut must) = (Self::default(), Vec::new(), false);
        for name in names {
            // All packages at the top are in the index.
            let has_parent = name.contains('.');
            if let Some(derivation) = index.derivation(&name)? {
                literals.insert(&name, derivation.outputs.into_iter().map(|one| one.path));
            } else if has_parent {
                for parent in with_parents(&name).skip(1) {
                    must |= index.derivation(parent)?.is_some();
                }
                left.push(name);
            }
        }
        Ok((literals, left, must))
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
