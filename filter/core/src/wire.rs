//! The headers between the edge and the builder, beyond those of HTTP and the OCI spec.
//!
//! ```text
//!   edge → builder    GET /v2/<canonical name>/manifests/<reference>
//!                     Nixgate-Token: v1:<time>:<hex> the request, signed by the secret ([`signature`]);
//!                                                    without it the builder answers 403. Who knows the
//!                                                    secret, as the route for logins, may send it instead
//!                     Prefer: wait=20                RFC 7240: answer within 20 s, 202 if still building
//!                     Prefer: return=minimal         a blob's location, not its bytes
//!                     Prefer: similar-names          suggest names for unknown packages
//!                     Nixgate-Rules: {"name":{…}}    the policy's rules with facts ([`FactRules`])
//!                     Nixgate-Denied: git xorg.*     the packages that the policy's rules deny ([`DeniedNames`])
//!                     Nixgate-Rule: data-team        the policy's rule that grants access: builds are
//!                                                    fair between rules; missing if none is needed
//!                     Nixgate-Client-Address: <ip>   with a login: the client's address, for the log.
//!                                                    The route adds it, not the filter
//!                     Nixgate-Status: accepted       the edge reads this header of the answer
//!                     X-Request-Id: 5f0c2d1e-…       Envoy's id of the request, for the builder's log
//!
//!   builder → edge    Nixgate-Builder: <version>     on every answer; without it, the answer is Envoy's
//!                     Nixgate-Time: <seconds>        on every answer: the builder's clock
//!                     Nixgate-Refuses: token         the edge's token is wrong; the answer says
//!                                                    nothing about the image
//!                     Nixgate-Refuses: time          the signature is too old: sign anew, by the time
//!                                                    of this answer
//!                     422, Nixgate-Status: 503       the client's status, when it is a 5xx that is no
//!                                                    fault of this builder: a build was killed
//!                     Cache-Control: max-age=<s>     how long the edge may cache the answer
//!                     Nixgate-Building-For: <s>      with 202: how long the build has run
//!                     Nixgate-Source: git <commit>   with a manifest by tag: its package set, also in
//!                                                    the manifest. Clients get it as well
//!                     Nixgate-Facts: [{…}]           with a manifest or a blob: the images of the
//!                                                    name that have it ([`ImageFacts`])
//! ```
//!
//! # Errors that are no fault of the builder
//!
//! A build that was killed is `503` for the client. On the way from builder to edge it is not: there, Envoy
//! takes a `5xx` for a sick builder. Outlier detection would eject the builder for everybody because of five
//! greedy packages, and a retry policy would ask for each of them again. So the builder answers [`NO_FAULT`], with
//! the client's status in [`STATUS`] and all else as the client gets it; the edge answers the client with
//! that status. `ErrorKind::is_fault_of_the_builder` says which errors these are.
//!
//! The builder does so only for a request that says that its sender reads the header: a callout of the edge.
//! A request that the edge lets through goes past it on its way back, so its answer is for the client.
//!
//! The answer to `GET /v2/_catalog` is a [`Catalog`], which has the facts of each name.
//!
//! [`signature`]: crate::signature
//! [`DeniedNames`]: crate::policy::DeniedNames
//! [`FactRules`]: crate::policy::FactRules
//! [`ImageFacts`]: crate::policy::ImageFacts

use serde::{Deserialize, Serialize};

use crate::Seconds;

/// The edge's proof that a request comes from it; stripped from what clients send.
pub const TOKEN: &str = "nixgate-token";
/// The builder's version, on every answer of a builder. Envoy's own answers (no connection, timeout) look
/// like ordinary responses without it.
pub const BUILDER: &str = "nixgate-builder";
/// What the builder refuses, when it refuses the edge and not the image.
pub const REFUSES: &str = "nixgate-refuses";
/// Its value, when it is the edge's token.
pub const REFUSES_TOKEN: &str = "token";
/// Its value, when it is the time of the edge's signature.
pub const REFUSES_TIME: &str = "time";
/// The time of the builder's clock, in seconds since the epoch.
pub const TIME: &str = "nixgate-time";
/// The client's status, with an answer of [`NO_FAULT`]. In a request, that its sender reads this.
pub const STATUS: &str = "nixgate-status";
/// Its value in a request.
pub const STATUS_ACCEPTED: &str = "accepted";
/// The status between builder and edge of an error that is a `5xx` for the client, and no fault of the
/// builder. No error has this status itself.
pub const NO_FAULT: u16 = 422;
/// With `202`: for how many seconds the build has run.
pub const BUILDING_FOR: &str = "nixgate-building-for";
/// The fact parts of the policy's rules, which the builder evaluates.
pub const RULES: &str = "nixgate-rules";
/// The patterns of the packages that the policy's rules deny.
pub const DENIED: &str = "nixgate-denied";
/// The name of the policy's rule that grants access: builds are fair between rules.
pub const RULE: &str = "nixgate-rule";
/// With a login: the address of the client, as Envoy knows it.
pub const CLIENT_ADDRESS: &str = "nixgate-client-address";
/// The facts of the images that an answer belongs to.
pub const FACTS: &str = "nixgate-facts";
/// With a manifest by tag: its package set.
pub const SOURCE: &str = "nixgate-source";
/// Envoy's id of the request, in the access log, in refusals and in the builder's log.
pub const REQUEST_ID: &str = "x-request-id";
/// Envoy's own header for the path before a rewrite; its access log prefers it to `:path`.
pub const ORIGINAL_PATH: &str = "x-envoy-original-path";
/// RFC 7240.
pub const PREFER: &str = "prefer";
/// Headers of clients that are removed before a request continues to the builder: their credentials, and
/// those that the builder would take for the edge's.
pub const CLIENT_ONLY: [&str; 9] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-forwarded-client-cert",
    PREFER,
    DENIED,
    RULE,
    RULES,
    STATUS,
];

/// The preferences of a request (RFC 7240). Unknown ones are ignored, as the RFC demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `wait=<seconds>`: answer within this time, with `202` when the work is not done by then.
    pub wait: Option<Seconds>,
    /// `return=minimal`: answer a blob with its location instead of its bytes.
    pub minimal: bool,
    /// `similar-names`: suggest names for unknown packages. Off under a policy, which decides who may know
    /// of a package.
    pub similar: bool,
}

impl Preferences {
    /// Parses the `Prefer` headers. The first of two equal preferences counts.
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

    /// The header's value, empty without preferences.
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

/// Whether a `Range` header has several ranges. Edge and builder must agree: object stores answer these
/// with the whole blob, so the edge forwards them and the builder reads the ranges itself.
pub fn is_of_several_ranges(range: &str) -> bool {
    range.contains(',')
}

/// `max-age` of the `Cache-Control` headers, in seconds; none without it, and with `no-store`.
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

/// The builder's whole catalog, of which the edge shows each caller a part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The names with images.
    pub repositories: Vec<CatalogItem>,
}

/// A name with images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogItem {
    /// The shortest form of the name.
    pub name: String,
    /// The facts of its images, in the format of [`FACTS`].
    pub facts: String,
}

impl Catalog {
    /// Parses the body; none when it is malformed.
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
