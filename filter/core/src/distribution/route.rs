//! Parses a path as one of the registry's endpoints (distribution spec, "Endpoints").

use super::reference::parse_digest;
use super::{Digest, Error, ErrorKind, Reference, Repository};

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/<name>/manifests/<reference>`
    Manifest {
        /// The image's name.
        repository: Repository,
        /// The manifest.
        reference: Reference,
    },
    /// `/v2/<name>/blobs/<digest>`
    Blob {
        /// The image's name.
        repository: Repository,
        /// The blob.
        digest: Digest,
    },
    /// `/v2/<name>/tags/list`
    Tags {
        /// The image's name.
        repository: Repository,
    },
    /// `/v2/<name>/referrers/<digest>`
    Referrers {
        /// The image's name.
        repository: Repository,
        /// The manifest.
        digest: Digest,
    },
    /// `/v2/_catalog`
    Catalog,
    /// Not under `/v2`, or not below the prefix: not for nixgate.
    Elsewhere,
}

impl Route {
    /// Parses a request's path. The query is ignored (containerd's mirrors add `?ns=`).
    ///
    /// The name is everything before the last two segments, so a package may be called `manifests`.
    /// Nothing is decoded or normalised: the grammar needs neither percent-encoding nor dot segments, and
    /// a filter before this one can't read the path differently.
    ///
    /// # Errors
    /// [`ErrorKind::NameInvalid`], [`ErrorKind::DigestInvalid`] or [`ErrorKind::TagInvalid`] for a
    /// route with bad parts, [`ErrorKind::RouteUnknown`] for anything else.
    pub fn parse(path: &str) -> Result<Self, Error> {
        Self::parse_below(None, path)
    }

    /// As [`Route::parse`] for a registry below `/v2/<prefix>/`: other paths, except `/v2/` itself, are
    /// [`Route::Elsewhere`]. The repository comes without the prefix.
    ///
    /// # Errors
    /// As [`Route::parse`].
    pub fn parse_below(prefix: Option<&Repository>, path: &str) -> Result<Self, Error> {
        let (path, _) = split_query(path);
        let Some(rest) = path.strip_prefix("/v2") else {
            return Ok(Self::Elsewhere);
        };
        let rest = match rest.strip_prefix('/') {
            Some(rest) => rest,
            None if rest.is_empty() => return Ok(Self::Base),
            None => return Ok(Self::Elsewhere),
        };
        if rest.is_empty() {
            return Ok(Self::Base);
        }
        let rest = match prefix {
            None => rest,
            Some(prefix) => match rest.strip_prefix(prefix.as_str()) {
                Some(rest) if rest.starts_with('/') => rest.get(1..).unwrap_or_default(),
                _ => return Ok(Self::Elsewhere),
            },
        };
        let mut segments = rest.rsplitn(3, '/');
        let last = segments.next().unwrap_or_default();
        match (segments.next(), segments.next()) {
            (Some("manifests"), Some(name)) => Ok(Self::Manifest {
                repository: Repository::parse(name)?,
                reference: Reference::parse(last)?,
            }),
            (Some("blobs"), Some(name)) => Ok(Self::Blob {
                repository: Repository::parse(name)?,
                digest: parse_digest(last)?,
            }),
            (Some("tags"), Some(name)) if last == "list" => Ok(Self::Tags {
                repository: Repository::parse(name)?,
            }),
            (Some("referrers"), Some(name)) => Ok(Self::Referrers {
                repository: Repository::parse(name)?,
                digest: parse_digest(last)?,
            }),
            // An extension of Docker's; no repository can have this name.
            (None, None) if last == "_catalog" => Ok(Self::Catalog),
            _ => Err(Error::new(
                ErrorKind::RouteUnknown,
                format!("no such endpoint: {}", path.escape_debug()),
            )),
        }
    }
}

/// A path and its query, without the question mark between them.
pub(crate) fn split_query(path: &str) -> (&str, Option<&str>) {
    match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(path: &str, expected: Expect) {
        check_under(None, path, expected);
    }

    fn check_under(prefix: Option<&str>, path: &str, expected: Expect) {
        let prefix = prefix.map(|prefix| Repository::parse(prefix).unwrap());
        let text = match Route::parse_below(prefix.as_ref(), path) {
            Ok(Route::Base) => "base".to_owned(),
            Ok(Route::Elsewhere) => "elsewhere".to_owned(),
            Ok(Route::Catalog) => "catalog".to_owned(),
            Ok(Route::Tags { repository }) => format!("tags of {repository}"),
            Ok(Route::Blob { repository, digest }) => format!("blob {digest} of {repository}"),
            Ok(Route::Referrers { repository, digest }) => {
                format!("referrers to {digest} of {repository}")
            }
            Ok(Route::Manifest {
                repository,
                reference: Reference::Tag(tag),
            }) => {
                format!("manifest {repository} by tag {tag}")
            }
            Ok(Route::Manifest {
                repository,
                reference: Reference::Digest(digest),
            }) => {
                format!("manifest {repository} by digest {digest}")
            }
            Err(error) => format!("{:?}: {}", error.kind, error.message),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn the_routes_of_a_registry() {
        check("/v2/", expect!["base"]);
        check("/v2", expect!["base"]);
        check("/v2/?ns=docker.io", expect!["base"]);
        check(
            "/v2/shell/git/manifests/latest",
            expect!["manifest shell/git by tag latest"],
        );
        check(
            "/v2/git/manifests/latest?ns=x/y",
            expect!["manifest git by tag latest"],
        );
        check(
            "/v2/manifests/manifests/manifests",
            expect!["manifest manifests by tag manifests"],
        );
        check("/v2/shell/git/tags/list?n=5", expect!["tags of shell/git"]);
        check("/v2/_catalog?n=5", expect!["catalog"]);
        check(
            "/v2/git/referrers/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855?artifactType=x",
            expect![
                "referrers to sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 of git"
            ],
        );
        check(
            "/v2/git/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            expect![
                "blob sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 of git"
            ],
        );
    }

    #[test]
    fn a_prefix_leaves_the_other_names_to_others() {
        let check = |path, expected| check_under(Some("corp/nix"), path, expected);
        check("/v2/", expect!["base"]);
        check("/v2", expect!["base"]);
        check(
            "/v2/corp/nix/shell/git/manifests/latest?ns=x",
            expect!["manifest shell/git by tag latest"],
        );
        check(
            "/v2/corp/nix/corp/nix/tags/list",
            expect!["tags of corp/nix"],
        );
        check("/v2/corp/nix/_catalog", expect!["catalog"]);
        check(
            "/v2/corp/nix//git/tags/list",
            expect![[
                r#"NameInvalid: invalid repository name: the component "" must be lowercase letters and digits, separated by single dots, one or two underscores, or dashes"#
            ]],
        );
        check(
            "/v2/corp/nix/manifests/latest",
            expect!["RouteUnknown: no such endpoint: /v2/corp/nix/manifests/latest"],
        );
        for path in [
            "/v2/_catalog",
            "/v2/git/manifests/latest",
            "/v2/Git/manifests/latest",
            "/v2/corp/nixos/manifests/latest",
            "/v2/corp/nix",
            "/v2//corp/nix/git/manifests/latest",
            "/v2/corp%2Fnix/git/manifests/latest",
            "/corp/nix/git/manifests/latest",
        ] {
            check(path, expect!["elsewhere"]);
        }
    }

    #[test]
    fn paths_that_are_not_under_v2_are_elsewhere() {
        for path in ["/", "", "*", "/v1/", "/v22/", "/v2x", "/healthz", "/V2/"] {
            check(path, expect!["elsewhere"]);
        }
    }

    #[test]
    fn bad_parts_are_named() {
        check(
            "/v2/Git/manifests/latest",
            expect![[
                r#"NameInvalid: invalid repository name: the component "Git" must be lowercase letters and digits, separated by single dots, one or two underscores, or dashes"#
            ]],
        );
        check(
            "/v2/git/manifests/a@b",
            expect![[
                r#"TagInvalid: invalid tag "a@b": a tag is at most 128 letters, digits, `_`, `.` and `-`, and starts with neither `.` nor `-`"#
            ]],
        );
        check(
            "/v2/git/blobs/latest",
            expect![[
                r#"DigestInvalid: invalid digest "latest": a digest is `sha256:` followed by 64 lowercase hexadecimal digits"#
            ]],
        );
        check(
            "/v2/git",
            expect!["RouteUnknown: no such endpoint: /v2/git"],
        );
        check(
            "/v2/manifests/latest",
            expect!["RouteUnknown: no such endpoint: /v2/manifests/latest"],
        );
        check(
            "/v2//manifests/latest/",
            expect!["RouteUnknown: no such endpoint: /v2//manifests/latest/"],
        );
    }
}
