//! Resolves names to derivations; for an image, reports those that Nix refuses.
//!
//! ```text
//!   all names, one evaluation ──ok──► a resolution each, and the reasons of refusals
//!        │ fails: Nix code can't catch every error
//!        ▼
//!   no names ──fails──► the package set itself is broken
//!        │ ok
//!        ▼
//!   halves, quarters … ──► the names that can't be evaluated
//! ```

use nixgate_core::distribution::{Error, ErrorKind};
use nixgate_core::package_set::System;

use super::{ImageRequest, errors, suggestions};
use crate::index::Index;
use crate::nix::{Derivation, Nix, NixError, Resolution, Writes, reason};
use crate::process::ProcessError;
use crate::source::Pin;

/// Evaluations to find broken packages. To find one among 100 takes 14.
const MAX_EVALUATIONS: usize = 40;
/// Refused packages whose reason is looked up: each takes an evaluation.
const MAX_EXPLAINED: usize = 8;

/// The derivations of an image's packages, in their order. Reports all wrong names at once.
///
/// The index, if there is one, knows better which names were meant.
pub(super) async fn resolve(
    nix: &dyn Nix,
    image: &ImageRequest,
    index: Option<&Index>,
) -> Result<Vec<Derivation>, Error> {
    let set = PackageSet {
        nix,
        pin: &image.pin,
        system: image.system,
        writes: Writes::Derivations,
    };
    let Findings {
        found,
        broken,
        not_looked_at,
    } = set.find(&image.packages).await?;
    let (mut derivations, mut unknown, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut explained = 0;
    for (name, resolution) in found {
        match resolution {
            Resolution::Derivation(derivation) => derivations.push(derivation),
            Resolution::Unknown { near } => {
                unknown.push((name, index.map_or(near, |index| index.near(name))));
            }
            Resolution::NotADerivation { kind } => {
                let article = match kind.as_str() {
                    "int" => "an",
                    _ => "a",
                };
                // Nix says "lambda".
                let kind = kind.replace("lambda", "function");
                refused.push(format!("{name} ({article} {kind}, not a package)"));
            }
            Resolution::Refused => {
                explained += 1;
                let reason = match explained <= MAX_EXPLAINED {
                    true => nix.explain(&image.pin.path, image.system, name).await,
                    false => Ok(None),
                };
                let reason = reason
                    .map_err(|error| errors::evaluation(error, &image.pin))?
                    .unwrap_or_else(|| {
                        let system = image.system.nix();
                        format!(
                            "its evaluation fails: unfree, insecure, broken, or not for {system}"
                        )
                    });
                refused.push(format!("{name} ({reason})"));
            }
        }
    }
    // Whoever corrects one sort of names is not to meet the next one only then.
    let mut others = Vec::new();
    if !broken.is_empty() {
        let broken = broken
            .iter()
            .map(|(name, reason)| format!("{name} ({reason})"));
        let broken = broken.collect::<Vec<_>>().join(", ");
        others.push(format!(
            "Nix cannot evaluate {broken}. Tell the package set's maintainers"
        ));
    }
    if !not_looked_at.is_empty() {
        let (number, names) = (not_looked_at.len(), not_looked_at.join(", "));
        others.push(format!("{number} names not looked at: {names}"));
    }
    if !unknown.is_empty() {
        let error = suggestions::unknown(&unknown);
        return Err(and(error, &others));
    }
    if !refused.is_empty() {
        let message = format!("refused by the package set: {}", refused.join(", "));
        return Err(and(Error::new(ErrorKind::Denied, message), &others));
    }
    if !others.is_empty() {
        return Err(Error::new(ErrorKind::BuildFailed, others.join(". ")));
    }
    Ok(derivations)
}

/// The same error with further sentences.
fn and(mut error: Error, others: &[String]) -> Error {
    for other in others {
        error.message.push_str(". ");
        error.message.push_str(other);
    }
    error
}

/// The package set in which names are looked up.
#[derive(Clone, Copy)]
pub(super) struct PackageSet<'a> {
    pub(super) nix: &'a dyn Nix,
    pub(super) pin: &'a Pin,
    pub(super) system: System,
    pub(super) writes: Writes,
}

/// What Nix says of names.
#[derive(Default)]
pub(super) struct Findings<'a> {
    /// Resolutions by name.
    pub(super) found: Vec<(&'a str, Resolution)>,
    /// The names whose evaluation fails, with the reasons.
    pub(super) broken: Vec<(&'a str, String)>,
    /// The names that were left when there were too many evaluations.
    pub(super) not_looked_at: Vec<&'a str>,
}

impl PackageSet<'_> {
    /// Looks up names, in one evaluation when none of them makes it fail.
    ///
    /// # Errors
    /// When it is not the fault of single names.
    pub(super) async fn find<'a>(&self, names: &'a [String]) -> Result<Findings<'a>, Error> {
        match self.evaluate(names).await {
            Ok(found) => Ok(Findings {
                found: names.iter().map(String::as_str).zip(found).collect(),
                ..Findings::default()
            }),
            Err(error @ NixError::Process(ProcessError::Failed { .. })) => {
                self.search(names, error).await
            }
            Err(error) => Err(errors::evaluation(error, self.pin)),
        }
    }

    async fn evaluate(&self, names: &[String]) -> Result<Vec<Resolution>, NixError> {
        let set = &self.pin.path;
        self.nix.resolve(set, self.system, names, self.writes).await
    }

    /// Bisects the names that make an evaluation fail; `failure` is that of all names. Names beyond
    /// [`MAX_EVALUATIONS`] are left out.
    async fn search<'a>(
        &self,
        names: &'a [String],
        failure: NixError,
    ) -> Result<Findings<'a>, Error> {
        if !self.pin.path.exists() {
            let message = "the package set has disappeared from the builder's Nix store. Pull again: it is \
                           then fetched again";
            return Err(Error::new(ErrorKind::BuilderUnready, message));
        }
        if let Err(error) = self.evaluate(&[]).await {
            let NixError::Process(ProcessError::Failed { stderr, .. }) = &error else {
                return Err(errors::evaluation(error, self.pin));
            };
            let reason = reason(stderr).unwrap_or_else(|| error.to_string());
            let message =
                format!("Nix cannot evaluate the package set: {reason}. Tell its maintainers");
            return Err(Error::new(ErrorKind::BuildFailed, message));
        }
        // Depth first, so that the evaluations find at least some names.
        let halves = |names: &'a [String]| {
            let (left, right) = names.split_at(names.len() / 2);
            [right, left]
        };
        let mut findings = Findings::default();
        let mut pending = halves(names).to_vec();
        for _ in 0..MAX_EVALUATIONS {
            let Some(names) = pending.pop() else {
                break;
            };
            match (self.evaluate(names).await, names) {
                (Ok(found), _) => {
                    let found = names.iter().map(String::as_str).zip(found);
                    findings.found.extend(found);
                }
                (Err(NixError::Process(ProcessError::Failed { stderr, .. })), [name]) => {
                    let reason =
                        reason(&stderr).unwrap_or_else(|| "Nix gives no reason".to_owned());
                    findings.broken.push((name, reason));
                }
                (Err(NixError::Process(ProcessError::Failed { .. })), _) => {
                    pending.extend(halves(names));
                }
                (Err(error), _) => return Err(errors::evaluation(error, self.pin)),
            }
        }
        if findings.broken.is_empty() {
            return Err(errors::evaluation(failure, self.pin));
        }
        let left = pending.into_iter().flatten().map(String::as_str);
        findings.not_looked_at = left.collect();
        Ok(findings)
    }
}

#[cfg(test)]
mod tests;
