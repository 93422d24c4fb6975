//! The refs of a repository that images may be made of.
//!
//! Forges list more than branches and tags: each merge request is a ref, with a commit that anybody
//! may have written. So only refs that match the administrator's patterns count, and only commits that
//! such a ref contains.

use anyhow::{Result, ensure};

/// Patterns of full names, such as `refs/heads/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AllowedRefs(Vec<String>);

impl Default for AllowedRefs {
    fn default() -> Self {
        Self(["refs/heads/*", "refs/tags/*"].map(str::to_owned).into())
    }
}

impl AllowedRefs {
    /// Parses patterns, each with at most one `*`, which matches anything.
    ///
    /// # Errors
    /// A sentence that names the setting and what is wrong with it.
    pub(crate) fn parse(patterns: &[String]) -> Result<Self> {
        let given = patterns.iter().filter(|pattern| !pattern.is_empty());
        let patterns: Vec<_> = given.cloned().collect();
        ensure!(
            !patterns.is_empty(),
            "NIXGATE_GIT_REFS has no pattern: set refs/heads/* and refs/tags/* for all branches and \
             tags"
        );
        for pattern in &patterns {
            // Git gives other characters a meaning (git-check-ref-format).
            let fit = |c: char| c.is_ascii_graphic() && !r"~^:?[\+".contains(c);
            ensure!(
                pattern.starts_with("refs/")
                    && pattern.chars().all(fit)
                    && !pattern.contains("..")
                    && pattern.matches('*').count() <= 1,
                "NIXGATE_GIT_REFS has the invalid pattern \"{pattern}\": write the full name of a \
                 ref, with one * at most, such as refs/heads/release-*"
            );
        }
        Ok(Self(patterns))
    }

    pub(crate) fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether a ref matches, by its full name.
    pub(crate) fn allow(&self, reference: &str) -> bool {
        self.patterns()
            .any(|pattern| match pattern.split_once('*') {
                None => pattern == reference,
                Some((before, after)) => {
                    reference.len() >= before.len() + after.len()
                        && reference.starts_with(before)
                        && reference.ends_with(after)
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(patterns: &[&str]) -> Result<AllowedRefs> {
        AllowedRefs::parse(
            &patterns
                .iter()
                .map(|&one| one.to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_ref_is_allowed_when_a_pattern_matches_it() {
        let allowed = parse(&["refs/heads/release-*", "refs/tags/v1", "refs/heads/*/ok"]).unwrap();
        for (reference, expected) in [
            ("refs/heads/release-1", true),
            ("refs/heads/release-", true),
            ("refs/heads/main", false),
            ("refs/tags/v1", true),
            ("refs/tags/v10", false),
            ("refs/heads/a/ok", true),
            ("refs/heads/ok", false),
            ("refs/pull/1/head", false),
            ("HEAD", false),
        ] {
            assert_eq!(allowed.allow(reference), expected, "{reference}");
        }
        assert!(AllowedRefs::default().allow("refs/heads/main"));
        assert!(!AllowedRefs::default().allow("refs/pull/1/head"));
    }

    #[test]
    fn a_pattern_that_means_something_else_to_git_is_refused() {
        for pattern in [
            "main",
            "--upload-pack=x",
            "refs/heads/*:refs/x/*",
            "+refs/heads/*",
            "^refs/heads/x",
            "refs/*/*",
            "refs/heads/a..b",
            "refs/heads/a b",
        ] {
            let error = parse(&[pattern]).unwrap_err().to_string();
            assert!(error.contains("NIXGATE_GIT_REFS"), "{error}");
        }
        assert!(parse(&[""]).is_err());
    }
}
