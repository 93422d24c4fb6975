//! Valid and invalid requests with their answers: one table for the core, the filter and the whole stack, so
//! that all of them answer alike.
//!
//! HTTP has several spellings of a path, about which the spec says nothing. nixgate reads a path as it was
//! sent, without decoding, merging slashes or removing dots. An error names the part that violates the
//! grammar; without such a part, there is no such endpoint.

use crate::distribution::{Code, Digest};

/// The sender of an answer, with status and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The edge alone, with this status and, for an error, this code.
    Edge(u16, Option<Code>),
    /// The edge, with the builder's answer, now or from the cache.
    Builder(u16, Option<Code>),
    /// The upstream of Envoy's own route.
    Elsewhere,
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Case {
    /// `:method`. The answers to `GET` are those to `HEAD` without the body.
    pub method: &'static str,
    /// `:path`
    pub path: String,
    /// Its answer.
    pub answer: Answer,
}

/// The table, for a registry whose package set has `git`, and no package called `f` and a number, or
/// by many of that letter.
pub fn requests() -> Vec<Case> {
    use Answer::{Builder, Edge, Elsewhere};
    let name = Edge(400, Some(Code::NameInvalid));
    let tag = Edge(400, Some(Code::ManifestInvalid));
    let digest = Edge(400, Some(Code::DigestInvalid));
    let no_endpoint = Edge(404, Some(Code::NameUnknown));
    let no_catalog = Edge(404, Some(Code::Unsupported));
    let push = Edge(405, Some(Code::Unsupported));
    let base = Edge(200, None);
    let found = Builder(200, None);
    let no_manifest = Builder(404, Some(Code::ManifestUnknown));
    let no_blob = Builder(404, Some(Code::BlobUnknown));

    let valid = Digest::of(b"no blob of any image").to_string();
    let upper = valid.to_uppercase().replace("SHA256", "sha256");
    let encoded = valid.replace(':', "%3A");
    let write = |path: &str| {
        let path = path.replace("{digest}", &valid);
        path.replace("{upper}", &upper)
            .replace("{encoded}", &encoded)
    };
    let of_name = |name: String, answer| (format!("/v2/{name}/manifests/latest"), answer);
    let long = |length: usize| "f".repeat(length);
    let many = |count: usize| {
        let names: Vec<_> = (0..count).map(|number| format!("f{number}")).collect();
        names.join("/")
    };
    // Two are in every image.
    let most = crate::package_set::MAX_PACKAGES.saturating_sub(2);

    let read = [
        // Is there a registry?
        ("/v2", base),
        ("/v2/", base),
        ("/v2?ns=docker.io", base),
        ("/v2//", no_endpoint),
        // Manifests.
        ("/v2/git/manifests/latest", found),
        ("/v2/git/manifests/latest?", found),
        ("/v2/git/manifests/latest?ns=x/y&z=%2F%", found),
        ("/v2/cacert/git/git/manifests/latest", found),
        ("/v2/git/manifests/no-such-tag", no_manifest),
        ("/v2/git/manifests/{digest}", no_manifest),
        ("/v2/manifests/manifests/manifests", no_manifest),
        ("/v2/git/manifests/", tag),
        ("/v2/git/manifests/.x", tag),
        ("/v2/git/manifests/latest;v=1", tag),
        ("/v2/git/manifests/l%61test", tag),
        ("/v2/git/manifests/%", tag),
        ("/v2/git/manifests/{encoded}", tag),
        ("/v2/git/manifests/{upper}", digest),
        ("/v2/git/manifests/sha256:0", digest),
        ("/v2/git/manifests/latest/", no_endpoint),
        ("/v2/git/manifests//latest", no_endpoint),
        ("/v2/git/manifests", no_endpoint),
        // Names.
        ("/v2//manifests/latest", name),
        ("/v2//git/manifests/latest", name),
        ("/v2/git//manifests/latest", name),
        ("/v2/shell//git/manifests/latest", name),
        ("/v2/Git/manifests/latest", name),
        ("/v2/g%69t/manifests/latest", name),
        ("/v2/shell%2Fgit/manifests/latest", name),
        ("/v2/git%/manifests/latest", name),
        ("/v2/git;v=1/manifests/latest", name),
        ("/v2/./git/manifests/latest", name),
        ("/v2/x/../git/manifests/latest", name),
        ("/v2/arm64/amd64/manifests/latest", name),
        ("/v2/git.out.out/manifests/latest", name),
        // Blobs.
        ("/v2/git/blobs/{digest}", no_blob),
        ("/v2/git/blobs/{upper}", digest),
        ("/v2/git/blobs/latest", digest),
        ("/v2/git/blobs/", digest),
        ("/v2/git/blobs/{encoded}", digest),
        ("/v2/Git/blobs/{digest}", name),
        ("/v2/git/blobs/{digest}/", no_endpoint),
        // Tags.
        ("/v2/git/tags/list", found),
        ("/v2/git/tags/list?n=1&last=a", found),
        ("/v2/git/tags/list?n=x", found),
        ("/v2/Git/tags/list", name),
        ("/v2/arm64/amd64/tags/list", name),
        ("/v2/git/tags/list/", no_endpoint),
        ("/v2/git/tags/latest", no_endpoint),
        ("/v2/tags/list", no_endpoint),
        // Referrers.
        ("/v2/git/referrers/{digest}", base),
        ("/v2/git/referrers/{digest}?artifactType=x", base),
        ("/v2/git/referrers/{upper}", digest),
        ("/v2/git/referrers/latest", digest),
        ("/v2/Git/referrers/{digest}", name),
        ("/v2/arm64/amd64/referrers/{digest}", name),
        ("/v2/referrers/{digest}", no_endpoint),
        // Other paths of the registry.
        ("/v2/_catalog", no_catalog),
        ("/v2/_catalog?n=100", no_catalog),
        ("/v2/_catalog/", no_endpoint),
        ("/v2/_oci/ext/discover", no_endpoint),
        ("/v2/git", no_endpoint),
        ("/v2/git/blobs/uploads/", no_endpoint),
        ("/v2/../healthz", no_endpoint),
        ("/v2/%2e%2e/healthz", no_endpoint),
        // Not a registry's.
        ("/", Elsewhere),
        ("/v1/", Elsewhere),
        ("/V2/", Elsewhere),
        ("/v2x/git/manifests/latest", Elsewhere),
        ("/v2;x/git/manifests/latest", Elsewhere),
        ("/v2%2Fgit/manifests/latest", Elsewhere),
        ("//v2/git/manifests/latest", Elsewhere),
        ("/x/../v2/git/manifests/latest", Elsewhere),
        ("/healthz", Elsewhere),
    ];
    let bounds = [
        (format!("/v2/git/manifests/{}", long(129)), tag),
        // As long as a name may be with what is in every image, `cacert/` and `/iana-etc`.
        of_name(long(4080), no_manifest),
        of_name(long(4081), name),
        of_name(long(4096), name),
        of_name(long(4097), name),
        of_name(many(most), no_manifest),
        of_name(many(most.saturating_add(1)), name),
    ];
    let written = [
        ("/v2/", push),
        ("/v2/git/manifests/latest", push),
        ("/v2/git/manifests/{digest}", push),
        ("/v2/git/blobs/{digest}", push),
        ("/v2/git/blobs/uploads/", push),
        ("/v2/git/blobs/uploads/?mount={digest}&from=shell", push),
        ("/v2/git/blobs/uploads/1234-5678", push),
        ("/v2/Git/manifests/latest", push),
        ("/v2/_catalog", push),
        ("/elsewhere", Elsewhere),
    ];
    let case = |method, (path, answer): (&str, Answer)| Case {
        method,
        path: write(path),
        answer,
    };
    let mut cases: Vec<_> = read.map(|row| case("GET", row)).into();
    cases.extend(bounds.map(|(path, answer)| case("GET", (&path, answer))));
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        cases.extend(written.map(|row| case(method, row)));
    }
    cases
}
