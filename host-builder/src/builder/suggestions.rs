//! Suggestions for unknown packages.
//!
//! They are in the error's detail, apart from the message: with a policy, a caller may not learn the
//! names of a package set.

use nixgate_core::distribution::{Error, ErrorKind};
use serde_json::{Map, Value, json};

/// The similarity of a suggestion, from 0 to 1: one wrong letter in three is enough, two in four are not.
const MIN_SIMILARITY: f64 = 0.6;
/// Suggestions for one name.
const MAX_SUGGESTIONS: usize = 3;

/// The key of the suggestions in an error's detail.
const SIMILAR: &str = "similar";

/// The error for unknown packages, each with similar names of the package set.
pub(crate) fn unknown(unknown: &[(&str, Vec<String>)]) -> Error {
    let names: Vec<&str> = unknown.iter().map(|(name, _)| *name).collect();
    let similar = unknown.iter().filter_map(|(name, near)| {
        let similar = most_similar(name, near);
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

/// Moves the suggestions into the message, or removes them if the caller may not know the names.
#[must_use]
pub(crate) fn for_caller(mut error: Error, may_know_names: bool) -> Error {
    let Some(detail) = error.detail.as_object_mut() else {
        return error;
    };
    let Some(similar) = detail.remove(SIMILAR) else {
        return error;
    };
    let unknown = detail.get("unknown").and_then(Value::as_array);
    let is_alone = unknown.is_some_and(|unknown| unknown.len() == 1);
    if may_know_names {
        let names = similar.as_object().into_iter().flatten();
        let meant = names.map(|(name, similar)| {
            let similar = similar.as_array().into_iter().flatten();
            let similar: Vec<&str> = similar.filter_map(Value::as_str).collect();
            match is_alone {
                true => similar.join(", "),
                false => format!("{name}: {}", similar.join(", ")),
            }
        });
        let meant: Vec<String> = meant.collect();
        error.message = format!("{}. Did you mean {}?", error.message, meant.join("; "));
        detail.insert(SIMILAR.to_owned(), similar);
    }
    error
}

/// The most similar names, best first.
fn most_similar<'a>(name: &str, near: &'a [String]) -> Vec<&'a str> {
    let scored = near.iter().map(|other| {
        let similarity = strsim::normalized_damerau_levenshtein(name, other);
        (similarity, other.as_str())
    });
    let mut scored: Vec<_> = scored
        .filter(|(score, _)| *score >= MIN_SIMILARITY)
        .collect();
    scored.sort_by(|(one, a), (other, b)| other.total_cmp(one).then_with(|| a.cmp(b)));
    let best = scored.into_iter().take(MAX_SUGGESTIONS);
    best.map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown_names() -> Error {
        let near = ["hello", "help", "htop", "tree"].map(str::to_owned);
        unknown(&[("hotp", near.to_vec()), ("zzz", Vec::new())])
    }

    #[test]
    fn a_caller_who_may_know_names_gets_the_most_similar_ones() {
        let error = for_caller(unknown_names(), true);
        assert_eq!(
            error.message,
            "the package set has no hotp, zzz. Did you mean hotp: htop?"
        );
        let detail = json!({ "unknown": ["hotp", "zzz"], "similar": { "hotp": ["htop"] } });
        assert_eq!(error.detail, detail);
    }

    #[test]
    fn a_name_that_stands_alone_is_not_repeated() {
        let error = for_caller(unknown(&[("hotp", vec!["htop".to_owned()])]), true);
        assert_eq!(
            error.message,
            "the package set has no hotp. Did you mean htop?"
        );
    }

    #[test]
    fn other_callers_get_no_names() {
        let error = for_caller(unknown_names(), false);
        assert_eq!(error.message, "the package set has no hotp, zzz");
        assert_eq!(error.detail, json!({ "unknown": ["hotp", "zzz"] }));
    }

    #[test]
    fn without_similar_names_there_are_no_suggestions() {
        let nothing = unknown(&[("zzz", vec!["zoo".to_owned()])]);
        assert_eq!(nothing.detail, json!({ "unknown": ["zzz"] }));
        assert_eq!(for_caller(nothing.clone(), true).message, nothing.message);
    }
}
