//! Which commit a branch or tag of a remote repository is.

use std::time::Duration;

use super::PinError;
use crate::nix::{Command, run};

/// How long a repository may take to list its branches and tags.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// A commit and a ref that holds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// Full name, such as `refs/heads/main`.
    pub(super) reference: String,
    /// 40 hexadecimal digits.
    pub(super) id: String,
}

/// The branches and tags of a repository, as `git ls-remote` lists them.
#[derive(Debug, Default)]
pub(super) struct Refs(String);

/// Asks a repository for its branches and tags, and for nothing else: forges list their merge
/// requests too, by the hundred thousand.
pub(super) async fn refs(url: &str) -> Result<Refs, PinError> {
    let command = Command {
        program: "git",
        arguments: [
            "ls-remote",
            "--",
            url,
            "HEAD",
            "refs/heads/*",
            "refs/tags/*",
        ]
        .map(Into::into)
        .into(),
    };
    let output = run(command, LIMIT).await?;
    Ok(Refs(String::from_utf8_lossy(&output).into_owned()))
}

impl Refs {
    /// Finds the commit of a branch, a tag, or `latest`, which is the default branch.
    ///
    /// A commit's own id is found only when a branch or tag points at it: forges serve any commit
    /// of any fork under a repository's name, so a bare id proves nothing.
    pub(super) fn find(&self, wanted: &str) -> Result<Commit, PinError> {
        choose(&self.0, wanted).ok_or_else(|| {
            PinError::TagUnknown(format!(
                "the package repository has no branch or tag \"{wanted}\""
            ))
        })
    }
}

/// Chooses among the lines of `git ls-remote`: `<id>\t<ref>`.
fn choose(listing: &str, wanted: &str) -> Option<Commit> {
    let refs: Vec<_> = listing
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(_, name)| {
            *name == "HEAD"
                || ["refs/heads/", "refs/tags/"]
                    .iter()
                    .any(|kind| name.starts_with(kind))
        })
        .collect();
    let named = |name: &str| refs.iter().find(|(_, reference)| *reference == name);
    let branch = |name: &str| named(&format!("refs/heads/{name}"));
    let found = if wanted == "latest" {
        let head = named("HEAD")?;
        refs.iter()
            .find(|(id, name)| *id == head.0 && name.starts_with("refs/heads/"))
    } else {
        branch(wanted)
            // An annotated tag is listed twice; the peeled line has the commit.
            .or_else(|| named(&format!("refs/tags/{wanted}^{{}}")))
            .or_else(|| named(&format!("refs/tags/{wanted}")))
            .or_else(|| {
                refs.iter()
                    .find(|(id, name)| *id == wanted && *name != "HEAD")
            })
    };
    found.map(|(id, name)| Commit {
        reference: name.trim_end_matches("^{}").to_owned(),
        id: (*id).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccccccccccc";

    fn check(wanted: &str, expected: Option<(&str, &str)>) {
        let listing = format!(
            "{A}\tHEAD\n{A}\trefs/heads/main\n{B}\trefs/heads/next\n{C}\trefs/pull/1/head\n\
             {C}\trefs/tags/v1\n{B}\trefs/tags/v1^{{}}\n{A}\trefs/tags/v2\n"
        );
        let expected = expected.map(|(reference, id)| Commit {
            reference: reference.to_owned(),
            id: id.to_owned(),
        });
        assert_eq!(choose(&listing, wanted), expected, "{wanted}");
    }

    #[test]
    fn branches_tags_and_their_commits_are_found() {
        check("latest", Some(("refs/heads/main", A)));
        check("next", Some(("refs/heads/next", B)));
        check("v1", Some(("refs/tags/v1", B)));
        check("v2", Some(("refs/tags/v2", A)));
        check(B, Some(("refs/heads/next", B)));
    }

    #[test]
    fn what_no_branch_or_tag_points_at_is_not_found() {
        check("nope", None);
        check("HEAD", None);
        check("pull/1/head", None);
        check("dddddddddddddddddddddddddddddddddddddddd", None);
    }
}
