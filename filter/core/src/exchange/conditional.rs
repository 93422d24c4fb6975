//! `If-None-Match` (RFC 9110, 13.1.2): a client that has the manifest already gets `304`.

/// The entity tags that a client has, from all its headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IfNoneMatch(Vec<String>);

impl IfNoneMatch {
    /// Reads the headers. Tags are compared weakly, as the RFC demands, so `W/` is dropped; and
    /// the quotes as well, since Docker's registry takes digests without them. A comma inside of
    /// quotes would split a tag that is not nixgate's, whose parts then match nothing.
    pub(super) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Self {
        let tags = headers.into_iter().flat_map(|header| header.split(','));
        let tags = tags.map(|tag| {
            let tag = tag.trim();
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            tag.trim_matches('"').to_owned()
        });
        Self(tags.filter(|tag| !tag.is_empty()).collect())
    }

    /// Whether the client has the document with this digest; `*` stands for any.
    pub(super) fn has(&self, digest: &str) -> bool {
        self.0.iter().any(|tag| tag == "*" || tag == digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_tag_is_understood() {
        for (headers, has) in [
            (&[][..], false),
            (&[""], false),
            (&["*"], true),
            (&["\"sha256:0\""], true),
            (&["W/\"sha256:0\""], true),
            (&["sha256:0"], true),
            (&["\"x\" , W/\"y\",\"sha256:0\""], true),
            (&["\"x\"", "\"sha256:0\""], true),
            (&["\"x\"", "\"sha256:00\"", "\"a,b\""], false),
        ] {
            let condition = IfNoneMatch::parse(headers.iter().copied());
            assert_eq!(condition.has("sha256:0"), has, "{headers:?}");
        }
    }
}
