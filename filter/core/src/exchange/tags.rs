//! A page of the list of tags (distribution spec, "Listing Tags").
//!
//! The builder sends the whole list, the edge caches it once for an image, and each client gets the page
//! that it requested, under the name that it wrote.

use serde::Deserialize;
use serde_json::json;

use super::{Reply, page};
use crate::distribution::{Tag, split_query};

/// The tags in the builder's list; none when it is malformed.
pub(super) fn parse(list: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct List {
        tags: Vec<String>,
    }
    let List { tags } = serde_json::from_slice(list).ok()?;
    Some(tags)
}

/// The page of the builder's `list` that `path` requests; none when the list is malformed.
pub(super) fn page(path: &str, list: &[u8]) -> Option<Reply> {
    let mut tags = parse(list)?;
    tags.retain(|tag| Tag::parse(tag).is_ok());
    let (route, _) = split_query(path);
    let name = route.strip_prefix("/v2/")?.strip_suffix("/tags/list")?;
    Some(page::of(
        path,
        tags,
        |tags| json!({ "name": name, "tags": tags }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] =
        br#"{"name":"builder's","tags":["latest","B","a","b","not a tag","C","a"]}"#;

    /// The tags of a page, and where the next one is.
    fn tags(query: &str) -> (String, Option<String>) {
        let reply = page(&format!("/v2/nix/git/tags/list{query}"), LIST).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(body["name"], "nix/git");
        let tags = body["tags"].as_array().unwrap();
        let tags: Vec<_> = tags.iter().map(|tag| tag.as_str().unwrap()).collect();
        let link = reply.headers.into_iter().find(|(name, _)| *name == "link");
        (tags.join(" "), link.map(|(_, value)| value))
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let mut path = "/v2/nix/git/tags/list?ns=x&n=2".to_owned();
        let mut all = Vec::new();
        loop {
            let (page, link) = tags(path.strip_prefix("/v2/nix/git/tags/list").unwrap());
            all.push(page);
            let Some(link) = link else { break };
            path = link
                .strip_prefix('<')
                .and_then(|link| link.strip_suffix(">; rel=\"next\""))
                .unwrap()
                .to_owned();
            assert!(path.contains("ns=x"), "{path}");
        }
        assert_eq!(all, ["a B", "b C", "latest"]);
    }

    #[test]
    fn a_page_is_what_was_asked_for() {
        for (query, expected, next) in [
            ("", "a B b C latest", None),
            ("?n=5", "a B b C latest", None),
            ("?n=99999999999999999999", "a B b C latest", None),
            ("?n=-1", "a B b C latest", None),
            ("?n=x", "a B b C latest", None),
            ("?n=0", "", None),
            ("?last=C", "latest", None),
            ("?last=bb", "C latest", None),
            ("?last=zzz", "", None),
            ("?last=", "a B b C latest", None),
            (
                "?n=1&last=a",
                "B",
                Some("</v2/nix/git/tags/list?n=1&last=B>; rel=\"next\""),
            ),
        ] {
            let (page, link) = tags(query);
            assert_eq!(
                (page.as_str(), link.as_deref()),
                (expected, next),
                "{query}"
            );
        }
    }

    #[test]
    fn what_is_no_list_makes_no_page() {
        for list in [&b""[..], b"{}", b"[]", br#"{"tags":[1]}"#] {
            assert_eq!(page("/v2/git/tags/list", list), None);
        }
    }
}
