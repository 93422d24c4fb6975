//! The headers between the edge and the builder, beyond those of HTTP and the OCI spec.
//!
//! ```text
//!   edge → builder    GET /v2/<canonical name>/manifests/<reference>
//!                     Nixgate-Token: <secret>        without one the builder answers 403
//!                     Prefer: wait=20                RFC 7240: answer within 20 s, 202 if still building
//!                     Prefer: return=minimal         a blob's location, not its bytes
//!                     Prefer: similar-names          of unknown packages, those that may be meant
//!                     Nixgate-Rules: {"name":{…}}    the policy's rules with facts ([`FactRules`])
//!                     Nixgate-Rule: data-team        the policy's rule that let the caller in, whose
//!                                                    turn a build takes; left out when none had to
//!                     Nixgate-Client-Address: <ip>   with a login: whose it is, for the log. The route
//!                                                    adds it, not the filter
//!                     X-Request-Id: 5f0c2d1e-…       Envoy's id of the request, for the builder's log
//!
//!   builder → edge    Nixgate-Builder: <version>     on every answer; without it, it is Envoy's own
//!                     Nixgate-Refuses: token         the edge's token is none that it takes: nothing
//!                                                    is said of the image
//!                     Cache-Control: max-age=<s>     how long the edge may repeat the answer
//!                     Nixgate-Building-For: <s>      with 202: how long the build has run
//!                     Nixgate-Source: git <commit>   with a manifest by tag: the package set that it
//!                                                    is made of; the manifest says it too. Clients
//!                                                    get it as well
//!                     Nixgate-Facts: [{…}]           with a manifest or a blob: the images of the
//!                                                    name that have it ([`ImageFacts`])
//! ```
//!
//! `GET /v2/_catalog` is answered by a [`Catalog`], in which the facts are with each name.
//!
//! [`FactRules`]: crate::policy::FactRules
//! [`ImageFacts`]: crate::policy::ImageFacts

use serde::{Deserialize, Serialize};

use crate::Seconds;

/// The edge's secret, sent with every request to the builder and stripped from what clients send.
pub const TOKEN: &str = "nixgate-token";
/// The builder's version, on every answer of a builder. Envoy's own answers (no connection,
/// callout timed out) look like ordinary responses but for this.
pub const BUILDER: &str = "nixgate-builder";
/// What the builder refuses, when it refuses the edge and not the image. Clients' requests have no
/// say in a header of an answer, and a refusal of an image never has this one.
pub const REFUSES: &str = "nixgate-refuses";
/// Its value, when it is the edge's token.
pub const REFUSES_TOKEN: &str = "token";
/// With `202`: for how many seconds the build has run.
pub const BUILDING_FOR: &str = "nixgate-building-for";
/// The fact parts of the policy's rules, which the builder judges.
pub const RULES: &str = "nixgate-rules";
/// The policy's rule that let the caller in, by its name: builds are fair between these.
pub const RULE: &str = "nixgate-rule";
/// With a login: the address of the client, as Envoy knows it.
pub const CLIENT_ADDRESS: &str = "nixgate-client-address";
/// What the builder says of the images that an answer belongs to.
pub const FACTS: &str = "nixgate-facts";
/// With a manifest by tag: which package set the tag means.
pub const SOURCE: &str = "nixgate-source";
/// Envoy's id of the request: by it, access log, refusals and the builder's log speak of one.
pub const REQUEST_ID: &str = "x-request-id";
/// Envoy's own header for the path before a rewrite; its access log prefers it to `:path`.
pub const ORIGINAL_PATH: &str = "x-envoy-original-path";
/// RFC 7240.
pub const PREFER: &str = "prefer";
/// What clients send and the builder must not see when a request continues to it: who they are,
/// which is the edge's business, and what the builder would take for a wish of the edge.
pub const CLIENT_ONLY: [&str; 7] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-forwarded-client-cert",
    PREFER,
    RULE,
    RULES,
];

/// What a request prefers (RFC 7240). Unknown preferences are ignored, as the RFC demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `wait=<seconds>`: answer within this time, with `202` when the work is not done by then.
    pub wait: Option<Seconds>,
    /// `return=minimal`: of a blob, say where it is rather than send it.
    pub minimal: bool,
    /// `similar-names`: say of an unknown package which ones may have been meant. Not where a policy
    /// is to decide who may know of them.
    pub similar: bool,
}

impl Preferences {
    /// Reads the `Prefer` headers. Of a preference that is given twice, the first counts.
    pub fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut preferences = Self::default();
        for item in headers.into_iter().flat_map(|header| header.split(',')) {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "wait" if preferences.wait.is_none() => preferences.wait = value.parse().ok(),
                "return" => preferences.minimal |= value.eq_ignore_ascii_case("minimal"),
                "similar-names" => preferences.similar = true,
                _ => {}
            }
        }
        preferences
    }

    /// The header's value, empty when nothing is preferred.
    pub fn header(self) -> String {
        let wait = self.wait.map(|seconds| format!("wait={seconds}"));
        let minimal = self.minimal.then(|| "return=minimal".to_owned());
        let similar = self.similar.then(|| "similar-names".to_owned());
        wait.into_iter()
            .chain(minimal)
            .chain(similar)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Whether a `Range` header asks for several parts. Edge and builder must agree: a store of objects
/// answers such a request with the whole, so the edge sends nobody there, and the builder reads the
/// parts itself.
pub fn is_of_several_ranges(range: &str) -> bool {
    range.contains(',')
}

/// `max-age` of the `Cache-Control` headers, in seconds; none when the answer may not be kept
/// (`no-store`) or nothing is said.
pub fn max_age<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Seconds> {
    let mut age = None;
    for directive in headers.into_iter().flat_map(|header| header.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" => return None,
            "max-age" => age = value.trim().parse().ok(),
            _ => {}
        }
    }
    age
}

/// What a builder answers when it is asked for its catalog: the whole list, of which the edge shows
/// each caller a part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The names of which there are images.
    pub repositories: Vec<CatalogItem>,
}

/// A name of which there are images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogItem {
    /// The name, as short as it can be written.
    pub name: String,
    /// What the policy has to know of its images, as [`FACTS`] says it.
    pub facts: String,
}

impl Catalog {
    /// Reads the body; none when it is no catalog.
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_survive_the_wire() {
        for wait in [None, Some(0), Some(20)] {
            for minimal in [false, true] {
                for similar in [false, true] {
                    let preferences = Preferences {
                        wait,
                        minimal,
                        similar,
                    };
                    assert_eq!(
                        Preferences::parse([preferences.header().as_str()]),
                        preferences
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for (header, expected) in [
            ("", Preferences::default()),
            (
                "respond-async, wait=\"7\"",
                Preferences {
                    wait: Some(7),
                    minimal: false,
                    similar: false,
                },
            ),
            ("wait=-1", Preferences::default()),
            (
                "WAIT = 3, wait=4, return=representation",
                Preferences {
                    wait: Some(3),
                    minimal: false,
                    similar: false,
                },
            ),
        ] {
            assert_eq!(Preferences::parse([header]), expected, "{header}");
        }
    }

    #[test]
    fn no_store_beats_any_age() {
        assert_eq!(max_age(["public, max-age=300"]), Some(300));
        assert_eq!(max_age(["max-age=300", "no-store"]), None);
        assert_eq!(max_age(["max-age=-1"]), None);
        assert_eq!(max_age([]), None);
    }
}
