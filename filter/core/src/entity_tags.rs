//! The entity tags of `If-None-Match` and `If-Match` (RFC 9110, 8.8.3 and 13.1). A digest is a strong
//! entity tag.

/// The entity tags that a client names, from all its headers of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntityTags(Vec<EntityTag>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct EntityTag {
    is_weak: bool,
    opaque: String,
}

impl EntityTags {
    /// Parses the headers. Quotes may be missing, since Docker's registry accepts digests without them. A
    /// comma inside quotes splits a tag, but no tag of nixgate's has one.
    pub fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Self {
        let tags = headers.into_iter().flat_map(|header| header.split(','));
        let tags = tags.map(|tag| {
            let tag = tag.trim();
            let weak = tag.strip_prefix("W/");
            EntityTag {
                is_weak: weak.is_some(),
                opaque: weak.unwrap_or(tag).trim_matches('"').to_owned(),
            }
        });
        Self(tags.filter(|tag| !tag.opaque.is_empty()).collect())
    }

    /// Whether one of them matches this digest, weak or not, as for `If-None-Match`; `*` matches any.
    pub fn has(&self, digest: &str) -> bool {
        self.0.iter().any(|tag| tag.is(digest))
    }

    /// As [`EntityTags::has`] for strong tags only, as for `If-Match`.
    pub fn has_strong(&self, digest: &str) -> bool {
        self.0.iter().any(|tag| tag.is(digest) && !tag.is_weak)
    }
}

impl EntityTag {
    fn is(&self, digest: &str) -> bool {
        self.opaque == "*" || self.opaque == digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_tag_is_understood() {
        for (headers, has, has_strong) in [
            (&[][..], false, false),
            (&[""], false, false),
            (&["*"], true, true),
            (&["\"sha256:0\""], true, true),
            (&["W/\"sha256:0\""], true, false),
            (&["sha256:0"], true, true),
            (&["\"x\" , W/\"y\",\"sha256:0\""], true, true),
            (&["\"x\"", "\"sha256:0\""], true, true),
            (&["\"x\"", "\"sha256:00\"", "\"a,b\""], false, false),
        ] {
            let tags = EntityTags::parse(headers.iter().copied());
            assert_eq!(tags.has("sha256:0"), has, "{headers:?}");
            assert_eq!(tags.has_strong("sha256:0"), has_strong, "{headers:?}");
        }
    }
}
