//! The commit of a branch or tag of a remote repository.

use std::ffi::OsString;
use std::time::Duration;

use super::allowed_refs::AllowedRefs;
use super::{DEFAULT, PinError};
use crate::nix::Nix;

/// How long listing the refs of a repository may take.
pub(super) const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// A commit and a ref that contains it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// Full name, such as `refs/heads/main`.
    pub(super) reference: String,
    /// 40 hexadecimal digits.
    pub(super) id: String,
}

/// The allowed refs of a repository, as `git ls-remote` lists them: each with its commit. `HEAD` is there
/// twice, also with `ref: ` and the ref that it stands for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refs(Vec<(String, String)>);

/// Asks a repository for its allowed refs alone: forges also list merge requests, by the hundred
/// thousand.
pub(super) async fn refs(
    nix: &dyn Nix,
    url: &str,
    allowed: &AllowedRefs,
) -> Result<Refs, PinError> {
    let mut arguments: Vec<OsString> = ["ls-remote", "--symref", "--", url, "HEAD"]
        .map(Into::into)
        .into();
    arguments.extend(allowed.patterns().map(Into::into));
    let output = nix.git(arguments, LIST_TIMEOUT).await?;
    Ok(Refs::of(&String::from_utf8_lossy(&output), allowed))
}

impl Refs {
    /// Keeps the lines of allowed refs. Git also lists refs whose names end like a pattern.
    fn of(listing: &str, allowed: &AllowedRefs) -> Self {
        let usable = |name: &str| name == "HEAD" || allowed.allow(name.trim_end_matches("^{}"));
        let refs = listing.lines().filter_map(|line| line.split_once('\t'));
        let refs = refs.filter(|(_, name)| usable(name));
        Self(
            refs.map(|(id, name)| (id.to_owned(), name.to_owned()))
                .collect(),
        )
    }

    /// Whether the repository lists a ref of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(_, listed)| listed == name)
    }

    /// The commit of a branch, of a tag, or of `latest`, the default branch; or a commit itself when
    /// a ref points at it.
    ///
    /// # Errors
    /// [`PinError::TagUnknown`].
    pub(super) fn find(&self, tag: &str) -> Result<Commit, PinError> {
        choose(&self.0, tag).ok_or_else(|| {
            PinError::TagUnknown(match (is_commit(tag), tag) {
                (true, _) => format!(
                    "no allowed branch or tag of the package repository contains the commit \
                     {tag}: see NIXGATE_GIT_REFS"
                ),
                (false, DEFAULT) => "the package repository has no default branch, or does not \
                                     allow it: pull by the name of a branch or tag"
                    .to_owned(),
                (false, _) => format!("the package repository has no branch or tag \"{tag}\""),
            })
        })
    }
}

/// Whether a tag is the id of a commit: 40 hexadecimal digits.
pub(super) fn is_commit(tag: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    tag.len() == 40 && tag.bytes().all(digit)
}

/// Whether a ref's name is safe to pass to any program. Whoever can push chooses names, and another ref
/// may contain the same commit.
pub(super) fn is_plain(reference: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    reference.bytes().all(plain)
}

fn choose(refs: &[(String, String)], tag: &str) -> Option<Commit> {
    let named = |name: &str| refs.iter().find(|(_, reference)| reference == name);
    let branch = |name: &str| named(&format!("refs/heads/{name}"));
    let found = if tag == DEFAULT {
        // `ref: refs/heads/main\tHEAD`. Some repositories have no HEAD, or one without a target.
        let head = refs.iter().find_map(|(target, name)| {
            let target = target.strip_prefix("ref: ")?;
            (name == "HEAD").then(|| named(target))?
        });
        head.or_else(|| branch("main")).or_else(|| branch("master"))
    } else if is_commit(tag) {
        // Never a branch with that name.
        let at_commit = |(id, name): &&(String, String)| id == tag && name != "HEAD";
        let mut refs = refs.iter().filter(at_commit).peekable();
        let first = refs.peek().copied();
        refs.find(|(_, name)| is_plain(name)).or(first)
    } else {
        branch(tag)
            // An annotated tag is listed twice; the peeled line has the commit.
            .or_else(|| named(&format!("refs/tags/{tag}^{{}}")))
            .or_else(|| named(&format!("refs/tags/{tag}")))
    };
    found.map(|(id, name)| Commit {
        reference: name.trim_end_matches("^{}").to_owned(),
        id: id.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccccccccccc";
    const D: &str = "dddddddddddddddddddddddddddddddddddddddd";

    fn check(wanted: &str, expected: Option<(&str, &str)>) {
        let listing = format!(
            "ref: refs/heads/main\tHEAD\n{A}\tHEAD\n{A}\trefs/heads/!first\n{C}\trefs/heads/{A}\n\
             {A}\trefs/heads/main\n{B}\trefs/heads/next\n{D}\trefs/pull/1/head\n\
             {C}\trefs/tags/v1\n{B}\trefs/tags/v1^{{}}\n{A}\trefs/tags/v2\n"
        );
        let expected = expected.map(|(reference, id)| Commit {
            reference: reference.to_owned(),
            id: id.to_owned(),
        });
        let Refs(refs) = Refs::of(&listing, &AllowedRefs::default());
        assert_eq!(choose(&refs, wanted), expected, "{wanted}");
    }

    #[test]
    fn branches_tags_and_their_commits_are_found() {
        check("latest", Some(("refs/heads/main", A)));
        check("next", Some(("refs/heads/next", B)));
        check("v1", Some(("refs/tags/v1", B)));
        check("v2", Some(("refs/tags/v2", A)));
        check(B, Some(("refs/heads/next", B)));
        check(A, Some(("refs/heads/main", A)));
    }

    #[test]
    fn what_no_allowed_ref_points_at_is_not_found() {
        check("nope", None);
        check("HEAD", None);
        check("pull/1/head", None);
        check("eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee", None);
        // Only the ref of a merge request points at it.
        check(D, None);
    }

    #[test]
    fn without_a_head_the_usual_names_are_the_default_branch() {
        for (listing, expected) in [
            (format!("{A}\trefs/heads/main\n"), Some(A)),
            (
                format!("{B}\trefs/heads/x\n{A}\trefs/heads/master"),
                Some(A),
            ),
            // It points at a branch that is not allowed.
            (
                format!("ref: refs/heads/x\tHEAD\n{C}\tHEAD\n{A}\trefs/heads/main"),
                Some(A),
            ),
            (format!("{B}\trefs/heads/x"), None),
        ] {
            let Refs(refs) = Refs::of(&listing, &AllowedRefs::default());
            let found = choose(&refs, "latest").map(|commit| commit.id);
            assert_eq!(found.as_deref(), expected, "{listing}");
        }
    }

    #[test]
    fn only_forty_digits_are_a_commit() {
        assert!(is_commit(A));
        for tag in ["main", &A[1..], &A.to_uppercase(), &"g".repeat(40)] {
            assert!(!is_commit(tag), "{tag}");
        }
    }
}
