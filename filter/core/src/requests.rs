//! What a registry is asked, well and badly put, and what it answers: one table for the core, the
//! filter and the whole stack, so that none of them answers otherwise than the others.
//!
//! The spec says what a name, a tag and a digest are, and nothing of the ways in which HTTP lets
//! one write the same path. nixgate reads a path in one way: as it was sent, without decoding,
//! merging slashes or removing dots. What is then not of the grammar is refused by the part that
//! is wrong; where no part can be told, there is no such endpoint.

use crate::distribution::{Code, Digest};

/// Who answers a request, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The edge alone, with this status and, for an error, this code.
    Edge(u16, Option<Code>),
    /// The edge by what the builder told it, now or before.
    Builder(u16, Option<Code>),
    /// Whoever is behind Envoy's own route.
    Elsewhere,
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Case {
    /// `:method`. What is said of `GET` holds for `HEAD`, but for the body.
    pub method: &'static str,
    /// `:path`
    pub path: String,
    /// What it is answered with.
    pub answer: Answer,
}

/// The table, for a registry whose package set has `git`, and no package called `f` and a number, or
/// by many of that letter.
pub fn requests() -> Vec<Case> {
    use Answer::{Builder, Edge, Elsewhere};
    let name = |code| Edge(400, Some(code));
    let (bad_name, bad_tag, bad_digest) = (
        name(Code::NameInvalid),
        name(Code::ManifestInvalid),
        name(Code::DigestInvalid),
    );
    let no_endpoint = Edge(404, Some(Code::NameUnknown));
    let push = Edge(405, Some(Code::Unsupported));
    let found = Builder(200, None);

    let digest = Digest::of(b"no blob of any image").to_string();
    let upper = digest.to_uppercase().replace("SHA256", "sha256");
    let long = |length: usize| "f".repeat(length);
    let many = |count: usize| {
        let names: Vec<_> = (0..count).map(|number| format!("f{number}")).collect();
        names.join("/")
    };
    // Two are in every image.
    let most = crate::package_set::MAX_PACKAGES.saturating_sub(2);

    let mut cases = Vec::new();
    let mut add = |method, rows: Vec<(String, Answer)>| {
        cases.extend(rows.into_iter().map(|(path, answer)| Case {
            method,
            path,
            answer,
        }));
    };
    add(
        "GET",
        vec![
            // Is there a registry?
            ("/v2".to_owned(), Edge(200, None)),
            ("/v2/".to_owned(), Edge(200, None)),
            ("/v2?ns=docker.io".to_owned(), Edge(200, None)),
            ("/v2//".to_owned(), no_endpoint),
            // Manifests.
            ("/v2/git/manifests/latest".to_owned(), found),
            ("/v2/git/manifests/latest?".to_owned(), found),
            ("/v2/git/manifests/latest?ns=x/y&z=%2F%".to_owned(), found),
            ("/v2/cacert/git/git/manifests/latest".to_owned(), found),
            (
                "/v2/git/manifests/no-such-tag".to_owned(),
                Builder(404, Some(Code::ManifestUnknown)),
            ),
            (
                format!("/v2/git/manifests/{digest}"),
                Builder(404, Some(Code::ManifestUnknown)),
            ),
            (
                "/v2/manifests/manifests/manifests".to_owned(),
                Builder(404, Some(Code::ManifestUnknown)),
            ),
            ("/v2/git/manifests/".to_owned(), bad_tag),
            ("/v2/git/manifests/.x".to_owned(), bad_tag),
            ("/v2/git/manifests/latest;v=1".to_owned(), bad_tag),
            ("/v2/git/manifests/l%61test".to_owned(), bad_tag),
            ("/v2/git/manifests/%".to_owned(), bad_tag),
            (
                format!("/v2/git/manifests/{}", digest.replace(':', "%3A")),
                bad_tag,
            ),
            (format!("/v2/git/manifests/{}", long(129)), bad_tag),
            (format!("/v2/git/manifests/{upper}"), bad_digest),
            ("/v2/git/manifests/sha256:0".to_owned(), bad_digest),
            ("/v2/git/manifests/latest/".to_owned(), no_endpoint),
            ("/v2/git/manifests//latest".to_owned(), no_endpoint),
            ("/v2/git/manifests".to_owned(), no_endpoint),
            // Names.
            ("/v2//manifests/latest".to_owned(), bad_name),
            ("/v2//git/manifests/latest".to_owned(), bad_name),
            ("/v2/git//manifests/latest".to_owned(), bad_name),
            ("/v2/shell//git/manifests/latest".to_owned(), bad_name),
            ("/v2/Git/manifests/latest".to_owned(), bad_name),
            ("/v2/g%69t/manifests/latest".to_owned(), bad_name),
            ("/v2/shell%2Fgit/manifests/latest".to_owned(), bad_name),
            ("/v2/git%/manifests/latest".to_owned(), bad_name),
            ("/v2/git;v=1/manifests/latest".to_owned(), bad_name),
            ("/v2/./git/manifests/latest".to_owned(), bad_name),
            ("/v2/x/../git/manifests/latest".to_owned(), bad_name),
            ("/v2/arm64/amd64/manifests/latest".to_owned(), bad_name),
            ("/v2/git.out.out/manifests/latest".to_owned(), bad_name),
            // As long as a name may be with what is in every image, `cacert/` and `/iana-etc`.
            (
                format!("/v2/{}/manifests/latest", long(4080)),
                Builder(404, Some(Code::ManifestUnknown)),
            ),
            (format!("/v2/{}/manifests/latest", long(4081)), bad_name),
            (format!("/v2/{}/manifests/latest", long(4096)), bad_name),
            (format!("/v2/{}/manifests/latest", long(4097)), bad_name),
            (
                format!("/v2/{}/manifests/latest", many(most)),
                Builder(404, Some(Code::ManifestUnknown)),
            ),
            (
                format!("/v2/{}/manifests/latest", many(most.saturating_add(1))),
                bad_name,
            ),
            // Blobs.
            (
                format!("/v2/git/blobs/{digest}"),
                Builder(404, Some(Code::BlobUnknown)),
            ),
            (format!("/v2/git/blobs/{upper}"), bad_digest),
            ("/v2/git/blobs/latest".to_owned(), bad_digest),
            ("/v2/git/blobs/".to_owned(), bad_digest),
            (
                format!("/v2/git/blobs/{}", digest.replace(':', "%3A")),
                bad_digest,
            ),
            (format!("/v2/Git/blobs/{digest}"), bad_name),
            (format!("/v2/git/blobs/{digest}/"), no_endpoint),
            // Tags.
            ("/v2/git/tags/list".to_owned(), found),
            ("/v2/git/tags/list?n=1&last=a".to_owned(), found),
            ("/v2/git/tags/list?n=x".to_owned(), found),
            ("/v2/Git/tags/list".to_owned(), bad_name),
            ("/v2/arm64/amd64/tags/list".to_owned(), bad_name),
            ("/v2/git/tags/list/".to_owned(), no_endpoint),
            ("/v2/git/tags/latest".to_owned(), no_endpoint),
            ("/v2/tags/list".to_owned(), no_endpoint),
            // Referrers.
            (format!("/v2/git/referrers/{digest}"), Edge(200, None)),
            (
                format!("/v2/git/referrers/{digest}?artifactType=x"),
                Edge(200, None),
            ),
            (format!("/v2/git/referrers/{upper}"), bad_digest),
            ("/v2/git/referrers/latest".to_owned(), bad_digest),
            (format!("/v2/Git/referrers/{digest}"), bad_name),
            (format!("/v2/arm64/amd64/referrers/{digest}"), bad_name),
            (format!("/v2/referrers/{digest}"), no_endpoint),
            // What else may be asked for.
            (
                "/v2/_catalog".to_owned(),
                Edge(404, Some(Code::Unsupported)),
            ),
            (
                "/v2/_catalog?n=100".to_owned(),
                Edge(404, Some(Code::Unsupported)),
            ),
            ("/v2/_catalog/".to_owned(), no_endpoint),
            ("/v2/_oci/ext/discover".to_owned(), no_endpoint),
            ("/v2/git".to_owned(), no_endpoint),
            ("/v2/git/blobs/uploads/".to_owned(), no_endpoint),
            ("/v2/../healthz".to_owned(), no_endpoint),
            ("/v2/%2e%2e/healthz".to_owned(), no_endpoint),
            // Not a registry's.
            ("/".to_owned(), Elsewhere),
            ("/v1/".to_owned(), Elsewhere),
            ("/V2/".to_owned(), Elsewhere),
            ("/v2x/git/manifests/latest".to_owned(), Elsewhere),
            ("/v2;x/git/manifests/latest".to_owned(), Elsewhere),
            ("/v2%2Fgit/manifests/latest".to_owned(), Elsewhere),
            ("//v2/git/manifests/latest".to_owned(), Elsewhere),
            ("/x/../v2/git/manifests/latest".to_owned(), Elsewhere),
            ("/healthz".to_owned(), Elsewhere),
        ],
    );
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        add(
            method,
            vec![
                ("/v2/".to_owned(), push),
                ("/v2/git/manifests/latest".to_owned(), push),
                (format!("/v2/git/manifests/{digest}"), push),
                (format!("/v2/git/blobs/{digest}"), push),
                ("/v2/git/blobs/uploads/".to_owned(), push),
                (
                    format!("/v2/git/blobs/uploads/?mount={digest}&from=shell"),
                    push,
                ),
                ("/v2/git/blobs/uploads/1234-5678".to_owned(), push),
                ("/v2/Git/manifests/latest".to_owned(), push),
                ("/v2/_catalog".to_owned(), push),
                ("/elsewhere".to_owned(), Elsewhere),
            ],
        );
    }
    cases
}
