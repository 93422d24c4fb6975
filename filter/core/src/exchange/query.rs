//! The query of a request's path. It never changes the route. Redirects and links keep unknown parameters,
//! since clients may need them.
//!
//! Nothing is decoded: the known values need no encoding.

use std::fmt::Write;

use crate::distribution::split_query;

/// The first value of a parameter.
pub(super) fn value<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = split_query(path);
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The path with these parameters set.
pub(super) fn with(path: &str, parameters: &[(&str, &str)]) -> String {
    let (path, query) = split_query(path);
    let others = query.unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split('=').next();
        !pair.is_empty() && parameters.iter().all(|(own, _)| name != Some(own))
    });
    let mut new = format!("{path}?");
    for pair in others {
        new.push_str(pair);
        new.push('&');
    }
    for (index, (name, value)) in parameters.iter().enumerate() {
        let separator = if index > 0 { "&" } else { "" };
        // Writing to a string does not fail.
        let _ = write!(new, "{separator}{name}={value}");
    }
    new
}
