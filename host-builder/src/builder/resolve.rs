//! Resolves an image's names to derivations, and reports those that Nix refuses.
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

use super::{ImageRequest, errors, suggestions};
use crate::index::Index;
use crate::nix::{Derivation, Nix, NixError, Resolution, reason};
use crate::process::ProcessError;

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
    let names = image.packages.iter().map(String::as_str);
    let Findings {
        found,
        broken,
        not_looked_at,
    } = match evaluate(nix, image, &image.packages).await {
        Ok(found) => Findings {
            found: names.zip(found).collect(),
            ..Findings::default()
        },
        Err(error @ NixError::Process(ProcessError::Failed { .. })) => {
            search(nix, image, error).await?
        }
        Err(error) => return Err(errors::evaluation(error, &image.pin)),
    };
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
        let broken = broken.join(", ");
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

async fn evaluate(
    nix: &dyn Nix,
    image: &ImageRequest,
    names: &[String],
) -> Result<Vec<Resolution>, NixError> {
    nix.resolve(&image.pin.path, image.system, names).await
}

#[derive(Default)]
struct Findings<'a> {
    /// Resolutions by name.
    found: Vec<(&'a str, Resolution)>,
    /// The names whose evaluation fails, with the reasons.
    broken: Vec<String>,
    /// The names that were left when there were too many evaluations.
    not_looked_at: Vec<&'a str>,
}

/// Bisects the names that make an evaluation fail; `failure` is that of all names. Names beyond
/// [`MAX_EVALUATIONS`] are left out: the image fails anyway.
async fn search<'a>(
    nix: &dyn Nix,
    image: &'a ImageRequest,
    failure: NixError,
) -> Result<Findings<'a>, Error> {
    if !image.pin.path.exists() {
        let message = "the package set has disappeared from the builder's Nix store. Pull again: it is \
                       then fetched again";
        return Err(Error::new(ErrorKind::BuilderUnready, message));
    }
    if let Err(error) = evaluate(nix, image, &[]).await {
        let NixError::Process(ProcessError::Failed { stderr, .. }) = &error else {
            return Err(errors::evaluation(error, &image.pin));
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
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    let mut pending = halves(&image.packages).to_vec();
    for _ in 0..MAX_EVALUATIONS {
        let Some(names) = pending.pop() else {
            break;
        };
        match (evaluate(nix, image, names).await, names) {
            (Ok(resolutions), _) => {
                found.extend(names.iter().map(String::as_str).zip(resolutions));
            }
            (Err(NixError::Process(ProcessError::Failed { stderr, .. })), [name]) => {
                let reason = reason(&stderr).unwrap_or_else(|| "Nix gives no reason".to_owned());
                broken.push(format!("{name} ({reason})"));
            }
            (Err(NixError::Process(ProcessError::Failed { .. })), _) => {
                pending.extend(halves(names));
            }
            (Err(error), _) => return Err(errors::evaluation(error, &image.pin)),
        }
    }
    if broken.is_empty() {
        return Err(errors::evaluation(failure, &image.pin));
    }
    let not_looked_at = pending.into_iter().flatten().map(String::as_str);
    Ok(Findings {
        found,
        broken,
        not_looked_at: not_looked_at.collect(),
    })
}

#[cfg(test)]
mod tests;
