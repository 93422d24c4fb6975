//! The names of a package set that patterns may match, for commands.
//!
//! They are those of the index, if that is complete. Otherwise they are looked for:
//!
//! ```text
//!   the set ──► its names ──────────────────────────► git, python3, python3packages …
//!                  │ sets that a pattern reaches into
//!                  └──► the names inside ───────────► python3packages.requests …
//! ```
//!
//! A whole nixpkgs is never evaluated: names are listed without their values, and only sets that a
//! pattern reaches into are opened. A name whose evaluation fails beyond catching is found by bisection
//! and left out. Each such name takes many evaluations, so their number is bounded: then the names that
//! are left are not looked at, and the index says which.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nixgate_core::PackageSet;
use nixgate_core::distribution::Repository;
use nixgate_core::package_set::{System, canonical_path};
use nixgate_core::policy::{Glob, Reach};

use super::file::{Index, State};
use super::survey::{AttributePath, reachable};
use crate::nix::{Attribute, Nix, NixError};
use crate::process::ProcessError;
use crate::telemetry::logging::chain;

/// Paths per evaluation: they are one argument of a process, and the kernel's limit is 128 KiB.
const PATHS_AT_ONCE: usize = 1000;

/// Evaluations that may fail. To find one bad name among a thousand takes ten of them.
const MAX_FAILURES: usize = 200;
/// Names that [`Listing::not_looked_at`] lists.
const NAMES_LISTED: usize = 20;

/// See the module. Names are in lower case, as in images' names.
pub(crate) struct Listing {
    /// Then the rest is empty.
    index: Option<Arc<Index>>,
    nix: Arc<dyn Nix>,
    source: PathBuf,
    system: System,
    names: BTreeMap<String, AttributePath>,
    /// Evaluations that failed.
    failures: usize,
    /// Names that were left when there were too many of these.
    not_looked_at: BTreeSet<String>,
}

impl Listing {
    /// Lists the names of a package set, whose index may be known.
    ///
    /// # Errors
    /// When Nix can't evaluate the set.
    pub(crate) async fn list(
        index: Option<Arc<Index>>,
        nix: Arc<dyn Nix>,
        source: &Path,
        system: System,
    ) -> Result<Self, NixError> {
        let seen = match index {
            Some(_) => Vec::new(),
            None => nix.look(source, system, &[Vec::new()]).await?,
        };
        let mut listing = Self {
            index,
            nix,
            source: source.to_owned(),
            system,
            names: BTreeMap::new(),
            failures: 0,
            not_looked_at: BTreeSet::new(),
        };
        if let [Attribute::Set { names }] = &seen[..] {
            listing.add(&[], names);
        }
        Ok(listing)
    }

    /// Lists the names inside of sets that a pattern may reach into.
    ///
    /// # Errors
    /// When Nix can't run.
    pub(crate) async fn look_into(&mut self, patterns: &[&Glob]) -> Result<(), NixError> {
        let reached = |name: &str| patterns.iter().any(|glob| reaches_into(glob, name));
        let paths: Vec<AttributePath> = self
            .names
            .iter()
            .filter(|(name, path)| path.len() == 1 && reached(name))
            .map(|(_, path)| path.clone())
            .collect();
        for (path, seen) in self.look(paths).await? {
            if let Attribute::Set { names } = seen {
                self.add(&path, &names);
            }
        }
        Ok(())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let indexed = self.index.iter().flat_map(|index| index.names());
        let indexed = indexed.map(|(name, _)| name);
        indexed.chain(self.names.keys().map(String::as_str))
    }

    /// All names of a package, as far as they are known.
    pub(crate) fn same(&self, name: &str) -> BTreeSet<String> {
        let index = self.index.as_ref();
        let mut same = index.map_or_else(BTreeSet::new, |index| index.same(name));
        same.insert(name.to_owned());
        same
    }

    /// A sentence about the names that nobody knows anything of, if there are any.
    pub(crate) fn not_looked_at(&self) -> Option<String> {
        let number = self.not_looked_at.len();
        let listed: Vec<&str> = self.not_looked_at.iter().map(String::as_str).collect();
        let listed = &listed[..number.min(NAMES_LISTED)];
        let more = match number > NAMES_LISTED {
            true => ", and others",
            false => "",
        };
        (number > 0).then(|| {
            format!(
                "{number} names not looked at, since {MAX_FAILURES} evaluations of the package set \
                 failed: {}{more}",
                listed.join(", ")
            )
        })
    }

    /// Those of these names that are packages, whether or not Nix would refuse them, as it does unfree
    /// ones. Of the names of one package, one, as far as the index tells.
    ///
    /// # Errors
    /// When Nix can't run.
    pub(crate) async fn packages(
        &mut self,
        names: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, NixError> {
        if let Some(index) = &self.index {
            let is_package = |name: &&String| {
                matches!(index.state(name), Some(State::Package | State::Unusable))
            };
            // The name that a user would write: `git`, not `gitAndTools.git`.
            let rank = |name: &str| (name.matches('.').count(), name.len(), name.to_owned());
            let is_first = |name: &&String| {
                let same = index.same(name);
                let mut others = same.iter().filter(|other| names.contains(*other));
                !others.any(|other| rank(other) < rank(name))
            };
            let packages = names.iter().filter(is_package).filter(is_first);
            return Ok(packages.cloned().collect());
        }
        let paths = names.iter();
        let paths = paths.filter_map(|name| Some((self.names.get(name)?.clone(), name.clone())));
        let mut paths: BTreeMap<AttributePath, String> = paths.collect();
        let mut seen = self.look(paths.keys().cloned().collect()).await?;
        seen.retain(|(_, attribute)| *attribute == Attribute::Package);
        let packages = seen.iter().filter_map(|(path, _)| paths.remove(path));
        Ok(packages.collect())
    }

    /// Adds the names inside of a path.
    fn add(&mut self, inside: &[String], names: &[String]) {
        for name in reachable(names.to_vec()) {
            let mut path = inside.to_vec();
            path.push(name);
            let canonical = canonical_path(&path.join("."));
            if can_be_pulled(&canonical) {
                self.names.insert(canonical, path);
            }
        }
    }

    /// The attributes at these paths, without those whose evaluation fails beyond catching.
    async fn look(
        &mut self,
        paths: Vec<AttributePath>,
    ) -> Result<Vec<(AttributePath, Attribute)>, NixError> {
        let all = paths.len();
        // Breadth first, so that the largest parts without a bad name come before the search for it.
        let mut pending: VecDeque<Vec<AttributePath>> =
            paths.chunks(PATHS_AT_ONCE).map(<[_]>::to_vec).collect();
        let mut found = Vec::new();
        while let Some(mut paths) = pending.pop_front() {
            if self.failures >= MAX_FAILURES {
                let names = paths.iter().map(|path| canonical_path(&path.join(".")));
                self.not_looked_at.extend(names);
                continue;
            }
            let seen = self.nix.look(&self.source, self.system, &paths).await;
            if let Err(NixError::Process(ProcessError::Failed { .. })) = &seen {
                self.failures += 1;
                let (looked, failures) = (found.len(), self.failures);
                tracing::info!(
                    looked,
                    all,
                    failures,
                    "looking for names that Nix cannot evaluate"
                );
            }
            match seen {
                Ok(seen) => found.extend(paths.into_iter().zip(seen)),
                Err(NixError::Process(ProcessError::Failed { .. })) if paths.len() > 1 => {
                    let half = paths.split_off(paths.len() / 2);
                    pending.extend([paths, half]);
                }
                Err(error @ NixError::Process(ProcessError::Failed { .. })) => {
                    let path = paths.concat().join(".");
                    tracing::warn!(
                        path,
                        error = chain(&error),
                        "leaving out a package that Nix cannot evaluate"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// Whether an image's name can have this component, and it is no meta-package's.
fn can_be_pulled(name: &str) -> bool {
    let repository = Repository::parse(name).ok();
    let set = repository.and_then(|repository| PackageSet::of(&repository).ok());
    set.is_some_and(|set| set.packages().any(|package| package == name))
}

/// Whether a pattern may match a name inside of the set `name`.
fn reaches_into(glob: &Glob, name: &str) -> bool {
    let text = glob.to_string();
    match text.split_once('.') {
        // Up to its first dot, a pattern matches the outermost set alone.
        Some((outer, _)) if !outer.contains('*') || !crosses_dots(glob) => {
            let outer = Glob::parse(outer, Reach::OneAttribute);
            outer.is_ok_and(|globs| globs.iter().any(|glob| glob.matches(name)))
        }
        None if !crosses_dots(glob) => false,
        _ => {
            let (inside, prefix) = (format!("{name}."), glob.prefix());
            inside.starts_with(prefix) || prefix.starts_with(&inside)
        }
    }
}

/// Whether a wildcard of the pattern may match a dot.
fn crosses_dots(glob: &Glob) -> bool {
    let probe = glob.to_string().replace(['*', '?'], ".");
    !glob.is_literal() && glob.matches(&probe)
}

#[cfg(test)]
mod tests;
