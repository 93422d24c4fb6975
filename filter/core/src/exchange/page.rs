//! A page of a list (distribution spec, "Listing Tags"; the catalog of Docker's registry is cut in the
//! same way).

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::{JSON, Reply, query};

/// The page of these texts that `path` requests by `n` and `last`; `body` makes the reply's body. An `n` that
/// is not a number is ignored, like unknown parameters.
pub(super) fn of(
    path: &str,
    mut texts: Vec<String>,
    body: impl FnOnce(Vec<String>) -> Value,
) -> Reply {
    texts.sort_unstable_by(|a, b| order(a, b));
    texts.dedup();
    if let Some(last) = query::value(path, "last").map(with_slashes) {
        texts.retain(|text| order(text, &last).is_gt());
    }
    let mut headers = vec![("content-type", JSON.to_owned())];
    if let Some(n) = query::value(path, "n").and_then(|n| n.parse().ok()) {
        let more = texts.len() > n;
        texts.truncate(n);
        // With n=0 there is no last text, and so no link, as the spec says.
        if let (true, Some(last)) = (more, texts.last()) {
            let next = query::with(path, &[("n", &n.to_string()), ("last", last)]);
            headers.push(("link", format!("<{next}>; rel=\"next\"")));
        }
    }
    Reply::new(200, headers, body(texts).to_string().into_bytes())
}

/// Decodes slashes, which clients encode when they build the query of the next page themselves. No other
/// character of a name or tag needs encoding.
fn with_slashes(text: &str) -> Cow<'_, str> {
    if text.contains('%') {
        text.replace("%2F", "/").replace("%2f", "/").into()
    } else {
        text.into()
    }
}

/// The spec's "lexical (i.e. case-insensitive alphanumeric order)", as a total order: otherwise `last` would
/// skip tags that differ by case alone.
fn order(a: &str, b: &str) -> Ordering {
    let folded = |text: &str| text.to_ascii_lowercase();
    folded(a).cmp(&folded(b)).then_with(|| a.cmp(b))
}
