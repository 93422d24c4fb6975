//! The htpasswd file: lines of a user and a bcrypt hash, as `htpasswd -B` writes them.
//!
//! Other hashes (MD5, SHA-1, crypt, plain text) can be guessed by the million a second once the file
//! leaks, so a file with one is refused.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result, bail, ensure};

use crate::files::reload;

/// Prefixes of bcrypt hashes. `$2x$` marks hashes with a defect of 2011.
const PREFIXES: [&str; 3] = ["$2y$", "$2b$", "$2a$"];

/// From this cost on, a check takes more than a second of processor time. Cost 10 takes 0.05 s, and each
/// step doubles it.
const SLOW_COST: u32 = 15;

/// Users and their hashes, sorted by user.
pub(super) struct Htpasswd(Vec<(String, String)>);

impl Htpasswd {
    /// # Errors
    /// When a line is invalid, by its number and without its text; when the last line has no end.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut entries = Vec::new();
        for (number, line) in reload::lines(text)? {
            let (user, hash) = line
                .split_once(':')
                .filter(|(user, _)| !user.is_empty())
                .with_context(|| format!("line {number} is not of the form user:hash"))?;
            let is_known = PREFIXES.iter().any(|prefix| hash.starts_with(prefix));
            let parts = hash.parse::<bcrypt::HashParts>().ok();
            let cost = parts.filter(|_| is_known).map(|parts| parts.get_cost());
            let cost = cost.with_context(|| {
                format!(
                    "line {number} has no bcrypt hash: create the entry with `htpasswd -B -C 10`"
                )
            })?;
            if let Some(seconds) = slow(cost) {
                tracing::warn!(
                    user,
                    cost,
                    "each login of this user, and failed logins of others, take about {seconds} s of \
                     processor time: create the entry again with `htpasswd -B -C 10`"
                );
            }
            entries.push((user.to_owned(), hash.to_owned()));
        }
        ensure!(!entries.is_empty(), "the file has no entry");
        entries.sort();
        for pair in entries.windows(2) {
            if let [(one, _), (other, _)] = pair
                && one == other
            {
                bail!("the file has more than one entry for the user {one:?}");
            }
        }
        Ok(Self(entries))
    }

    pub(super) fn has(&self, user: &str) -> bool {
        self.index_of(user).is_ok()
    }

    /// Whether this is the user's password. It takes the time of a hash, many milliseconds.
    ///
    /// For an unknown user, another user's hash is checked, the same one for each name: so neither the
    /// time nor its variation, where hashes differ in cost, tells which users exist.
    pub(super) fn check(&self, user: &str, password: &str) -> bool {
        let index = self.index_of(user);
        let (_, hash) = &self.0[index.unwrap_or_else(|_| stand_in(user, self.0.len()))];
        bcrypt::verify(password, hash).unwrap_or(false) && index.is_ok()
    }

    fn index_of(&self, user: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(known, _)| known.as_str().cmp(user))
    }
}

/// The seconds of processor time of a check of this cost, if it is slow.
fn slow(cost: u32) -> Option<u64> {
    (cost >= SLOW_COST).then(|| (1 << (cost - 10).min(32)) / 20)
}

fn stand_in(user: &str, entries: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    (hasher.finish() % entries.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lowest cost, for speed.
    fn entry(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    #[test]
    fn only_the_right_password_of_the_right_user_is_accepted() {
        let file = format!("# staff\n\n{}{}", entry("alice", "a"), entry("bob", "b:"));
        let users = Htpasswd::parse(&file).unwrap();
        assert!(users.check("alice", "a") && users.check("bob", "b:"));
        for (user, password) in [
            ("alice", "b:"),
            ("alice", ""),
            ("Alice", "a"),
            ("", "a"),
            // An unknown user is checked against some entry, whose password opens nothing.
            ("carol", "a"),
            ("carol", "b:"),
            ("dave", "a"),
            ("dave", "b:"),
        ] {
            assert!(!users.check(user, password), "{user} {password}");
        }
        assert!(users.has("bob") && !users.has("carol"));
    }

    #[test]
    fn a_file_that_apache_wrote_is_read() {
        // htpasswd -nbB -C 4 alice secret
        let line = "alice:$2y$04$mZNQ0cz.00VZfMlhlcwmruxYt8i1vrhtJ3/H8DZC1/hGzlGrTJ3fu\n";
        let users = Htpasswd::parse(line).unwrap();
        assert!(users.check("alice", "secret"));
        assert!(!users.check("alice", "Secret"));
    }

    #[test]
    fn costs_that_take_seconds_are_recognised() {
        let seconds = [10, 14, 15, 16, 20, 31].map(slow);
        let expected = [None, None, Some(1), Some(3), Some(51), Some(104_857)];
        assert_eq!(seconds, expected);
    }

    #[test]
    fn an_invalid_line_is_named_by_its_number_without_its_text() {
        for (line, part) in [
            ("alice:$apr1$c4bZ$hidden", "line 2 has no bcrypt hash"),
            ("alice:{SHA}hidden", "line 2 has no bcrypt hash"),
            ("alice:hidden", "line 2 has no bcrypt hash"),
            ("alice:$2y$10$hidden", "line 2 has no bcrypt hash"),
            ("alice hidden", "line 2 is not of the form"),
            (":hidden", "line 2 is not of the form"),
        ] {
            let file = format!("{}{line}\n", entry("bob", "b"));
            let error = Htpasswd::parse(&file).err().expect(line).to_string();
            assert!(error.contains(part) && !error.contains("hidden"), "{error}");
        }
        let twice = format!("{}{}", entry("bob", "b"), entry("bob", "c"));
        let error = Htpasswd::parse(&twice).err().unwrap().to_string();
        assert!(error.contains("\"bob\""), "{error}");
        assert!(Htpasswd::parse("# nobody\n").is_err());
        let half = Htpasswd::parse(entry("bob", "b").trim_end()).err().unwrap();
        assert!(half.to_string().contains("incomplete"), "{half}");
    }
}
