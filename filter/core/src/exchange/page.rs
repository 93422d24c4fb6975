//! A page of a list (distribution spec, "Listing Tags"; the catalog of Docker's registry is cut in the
//! same way).

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::{JSON, Reply, query};

/// The page that `path` asks for by `n` and `last`, of these texts, as a reply with the body that
/// `body` makes of them. An `n` that is no number is ignored, as other parameters are that nobody
/// understands.
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
        // Without a last text, for n=0, there is no next page to name, as the spec says.
        if let (true, Some(last)) = (more, texts.last()) {
            let next = query::with(path, &[("n", &n.to_string()), ("last", last)]);
            headers.push(("link", format!("<{next}>; rel=\"next\"")));
        }
    }
    Reply::new(200, headers, body(texts).to_string().into_bytes())
}

/// Clients that make the query of the next page themselves write a name's slashes so. No other
/// character of a name or tag is one that has to be encoded.
fn with_slashes(text: &str) -> Cow<'_, str> {
    if text.contains('%') {
        text.replace("%2F", "/").replace("%2f", "/").into()
    } else {
        text.into()
    }
}

/// The spec's "lexical (i.e. case-insensitive alphanumeric order)", made total: tags that differ
/// by case alone would otherwise hide each other behind `last`.
fn order(a: &str, b: &str) -> Ordering {
    let folded = |text: &str| text.to_ascii_lowercase();
    folded(a).cmp(&folded(b)).then_with(|| a.cmp(b))
}
