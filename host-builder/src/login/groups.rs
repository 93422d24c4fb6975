//! The groups file in the format of Apache's `AuthGroupFile`: lines `group: user user`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use crate::files::reload;

/// The groups of each user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    of: BTreeMap<String, BTreeSet<String>>,
}

impl Groups {
    /// A group on several lines has the users of all of them.
    ///
    /// # Errors
    /// When a line has no group, by its number; when the last line has no end.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut groups = Self::default();
        for (number, line) in reload::lines(text)? {
            let (group, users) = line
                .split_once(':')
                .map(|(group, users)| (group.trim(), users))
                .filter(|(group, _)| !group.is_empty() && !group.contains(char::is_whitespace))
                .with_context(|| format!("line {number} is not of the form group: user user"))?;
            for user in users.split_whitespace() {
                let of_user = groups.of.entry(user.to_owned()).or_default();
                of_user.insert(group.to_owned());
            }
        }
        Ok(groups)
    }

    /// The groups of a user, sorted.
    pub(super) fn of(&self, user: &str) -> Vec<String> {
        let groups = self.of.get(user).into_iter().flatten();
        groups.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_in_the_groups_that_list_them() {
        let groups = Groups::parse(
            "# teams\n\nweb-team: bob\ndata-team:\talice bob\nweb-team: carol\nempty:\n",
        )
        .unwrap();
        assert_eq!(groups.of("alice"), ["data-team"]);
        assert_eq!(groups.of("bob"), ["data-team", "web-team"]);
        assert_eq!(groups.of("carol"), ["web-team"]);
        assert!(groups.of("dave").is_empty());
    }

    #[test]
    fn an_invalid_line_is_named_by_its_number() {
        for line in ["alice bob", ": alice", "two words: alice"] {
            let error = Groups::parse(&format!("a: b\n{line}\n")).unwrap_err();
            assert!(error.to_string().contains("line 2"), "{line}: {error}");
        }
    }

    #[test]
    fn an_incomplete_file_is_refused() {
        let whole = "data-team: alice bob\nweb-team: carol\n";
        for end in 0..whole.len() {
            let half = Groups::parse(&whole[..end]);
            // A file may end after any line.
            assert_eq!(half.is_ok(), whole[..end].ends_with('\n'), "{end}");
        }
    }
}
