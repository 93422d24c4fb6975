//! The URL of a flake, and the tags that follow from it.
//!
//! | written | tags |
//! | --- | --- |
//! | `path:/folder`, or `/folder` | `latest` |
//! | `git+https://…`, `git+ssh://…`, `git+file://…`, with `?dir=` | branches, tags and commits, as of a git repository |
//! | anything else that Nix takes: `github:…`, `https://….tar.gz`; and git with `?ref=` or `?rev=` | `latest` |

use std::fmt;
use std::path::Path;

use anyhow::{Result, ensure};

use super::git::Commit;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlakeUrl {
    /// In Nix's syntax.
    url: String,
    /// The URL of the git repository whose refs are tags, if there is one.
    repository: Option<String>,
    /// The folder of the flake in its source; empty for the top.
    dir: String,
}

impl FlakeUrl {
    /// # Errors
    /// A sentence that names the setting and the mistake.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let url = match text.strip_prefix('/') {
            Some(_) => format!("path:{text}"),
            None => text.to_owned(),
        };
        ensure!(
            url.contains(':') && !url.starts_with("flake:") && !url.starts_with("path:."),
            "NIXGATE_FLAKE is \"{text}\": set the URL of a flake, such as path:/folder, \
             git+https://host/repository or github:owner/repository. A registry's name has another \
             meaning on each machine"
        );
        ensure!(
            !url.contains('#'),
            "NIXGATE_FLAKE is \"{text}\": remove the part after #. All packages of a flake are served"
        );
        ensure!(
            !url.contains(|c: char| c.is_whitespace() || c.is_control()),
            "NIXGATE_FLAKE is \"{text}\": remove the spaces"
        );
        let (address, query) = url.split_once('?').unwrap_or((&url, ""));
        let parameter = |wanted: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value)
        };
        let dir = parameter("dir").unwrap_or_default().to_owned();
        let is_pinned = parameter("ref").or_else(|| parameter("rev")).is_some();
        let repository = address.strip_prefix("git+").filter(|_| !is_pinned);
        Ok(Self {
            repository: repository.map(str::to_owned),
            dir,
            url,
        })
    }

    /// Whether it is a folder of this machine.
    pub(crate) fn is_folder(&self) -> bool {
        self.url.starts_with("path:")
    }

    /// The folder of this machine that it is.
    pub(super) fn folder(&self) -> Option<&Path> {
        let path = self.url.strip_prefix("path:")?;
        // Nix decodes it and may be told more by a query: only Nix knows such a folder.
        let is_plain = path.starts_with('/') && !path.contains(['?', '%']);
        is_plain.then(|| Path::new(path))
    }

    /// The git repository whose refs are tags, in git's syntax.
    pub(crate) fn repository(&self) -> Option<&str> {
        self.repository.as_deref()
    }

    pub(crate) fn dir(&self) -> &str {
        &self.dir
    }

    /// The URL of the flake at a commit.
    pub(super) fn at(&self, commit: Option<&Commit>) -> String {
        let Some(Commit { reference, id }) = commit else {
            return self.url.clone();
        };
        let joint = match self.url.contains('?') {
            true => '&',
            false => '?',
        };
        // Whoever can push a branch chooses its name, which may contain `&`.
        let reference: Vec<String> = reference
            .split('/')
            .map(|part| form_urlencoded::byte_serialize(part.as_bytes()).collect())
            .collect();
        format!("{}{joint}ref={}&rev={id}", self.url, reference.join("/"))
    }
}

impl fmt::Display for FlakeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_branch_changes_no_other_parameter() {
        let commit = Commit {
            reference: "refs/heads/!x&rev=b#c".to_owned(),
            id: "a".repeat(40),
        };
        let fetched = FlakeUrl::parse("git+https://h/r")
            .unwrap()
            .at(Some(&commit));
        let expected = format!(
            "git+https://h/r?ref=refs/heads/%21x%26rev%3Db%23c&rev={}",
            commit.id
        );
        assert_eq!(fetched, expected);
    }

    #[test]
    fn repositories_folders_and_fetched_urls_of_flakes() {
        let commit = Commit {
            reference: "refs/heads/main".to_owned(),
            id: "a".repeat(40),
        };
        let a = &commit.id;
        for (text, repository, dir, fetched) in [
            ("/srv/set", None, "", "path:/srv/set".to_owned()),
            ("path:/srv?dir=x", None, "x", "path:/srv?dir=x".to_owned()),
            (
                "git+https://h/r",
                Some("https://h/r"),
                "",
                format!("git+https://h/r?ref=refs/heads/main&rev={a}"),
            ),
            (
                "git+file:///r?dir=sub",
                Some("file:///r"),
                "sub",
                format!("git+file:///r?dir=sub&ref=refs/heads/main&rev={a}"),
            ),
            (
                "git+ssh://h/r?ref=x",
                None,
                "",
                "git+ssh://h/r?ref=x".to_owned(),
            ),
            ("github:o/r", None, "", "github:o/r".to_owned()),
        ] {
            let url = FlakeUrl::parse(text).unwrap();
            assert_eq!((url.repository(), url.dir()), (repository, dir), "{text}");
            let commit = repository.map(|_| &commit);
            assert_eq!(url.at(commit), fetched);
        }
    }

    #[test]
    fn urls_that_depend_on_the_machine_are_refused() {
        for text in [
            "nixpkgs",
            "flake:nixpkgs",
            "./set",
            "path:./set",
            "/a#b",
            "/a b",
        ] {
            let error = FlakeUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains("NIXGATE_FLAKE"), "{error}");
        }
    }
}
