//! Unknown packages, and those that may have been meant.
//!
//! The names are kept apart from the message: who may know what a package set has is for the policy to
//! say, and the edge asks for them only where it has none.

use nixgate_core::distribution::{Error, ErrorKind};
use serde_json::{Map, Value, json};

/// Of two names, how much alike they are at least, from 0 to 1, for one to be meant by the other: one
/// wrong letter in three is, two in four are not.
const ALIKE: f64 = 0.6;
/// Names that are told for one.
const MOST: usize = 3;

/// The key of an error's detail with the names.
const SIMILAR: &str = "similar";

/// An image's unknown packages, each with the names that the package set has near it.
pub(crate) fn unknown(unknown: &[(&str, Vec<String>)]) -> Error {
    let names: Vec<&str> = unknown.iter().map(|(name, _)| *name).collect();
    let similar = unknown.iter().filter_map(|(name, near)| {
        let similar = most_alike(name, near);
        (!similar.is_empty()).then(|| ((*name).to_owned(), json!(similar)))
    });
    let similar: Map<String, Value> = similar.collect();
    let mut detail = json!({ "unknown": names });
    if let (Some(detail), false) = (detail.as_object_mut(), similar.is_empty()) {
        detail.insert(SIMILAR.to_owned(), Value::Object(similar));
    }
    let message = format!("the package set has no {}", names.join(", "));
    Error::new(ErrorKind::ManifestUnknown, message).with_detail(detail)
}

/// The error for somebody who may know of similar names, or may not.
#[must_use]
pub(crate) fn told(mut error: Error, may_know: bool) -> Error {
    let Some(detail) = error.detail.as_object_mut() else {
        return error;
    };
    let Some(similar) = detail.remove(SIMILAR) else {
        return error;
    };
    if may_know {
        let names = similar.as_object().into_iter().flatten();
        let meant = names.map(|(name, similar)| {
            let similar = similar.as_array().into_iter().flatten();
            let similar: Vec<&str> = similar.filter_map(Value::as_str).collect();
            format!("{name}: {}", similar.join(", "))
        });
        let meant: Vec<String> = meant.collect();
        error.message = format!("{}. Did you mean {}?", error.message, meant.join("; "));
        detail.insert(SIMILAR.to_owned(), similar);
    }
    error
}

/// Those of the names that are most like a name, the likest first.
fn most_alike<'a>(name: &str, near: &'a [String]) -> Vec<&'a str> {
    let alike = near.iter().map(|other| {
        let alike = strsim::normalized_damerau_levenshtein(name, other);
        (alike, other.as_str())
    });
    let mut alike: Vec<_> = alike.filter(|(alike, _)| *alike >= ALIKE).collect();
    alike.sort_by(|(one, a), (other, b)| other.total_cmp(one).then_with(|| a.cmp(b)));
    alike.into_iter().take(MOST).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> Error {
        let near = ["hello", "help", "htop", "tree"].map(str::to_owned);
        unknown(&[("hotp", near.to_vec()), ("zzz", Vec::new())])
    }

    #[test]
    fn the_likest_names_are_told_to_who_may_know_them() {
        let told = told(error(), true);
        assert_eq!(
            told.message,
            "the package set has no hotp, zzz. Did you mean hotp: htop?"
        );
        let detail = json!({ "unknown": ["hotp", "zzz"], "similar": { "hotp": ["htop"] } });
        assert_eq!(told.detail, detail);
    }

    #[test]
    fn nobody_else_learns_of_them() {
        let told = told(error(), false);
        assert_eq!(told.message, "the package set has no hotp, zzz");
        assert_eq!(told.detail, json!({ "unknown": ["hotp", "zzz"] }));
    }

    #[test]
    fn what_is_like_nothing_says_so_by_silence() {
        let nothing = unknown(&[("zzz", vec!["zoo".to_owned()])]);
        assert_eq!(nothing.detail, json!({ "unknown": ["zzz"] }));
        assert_eq!(told(nothing.clone(), true).message, nothing.message);
    }
}
