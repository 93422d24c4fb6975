//! The htpasswd file: a user and a bcrypt hash on each line, as `htpasswd -B` writes it.
//!
//! Hashes of other kinds (MD5, SHA-1, crypt, plain text) are guessed by the million a second once
//! the file is lost, so a file that has one is refused, by the line.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result, bail, ensure};

use crate::files::reload;

/// What bcrypt hashes begin with; `$2x$` is for a defect of 2011.
const KINDS: [&str; 3] = ["$2y$", "$2b$", "$2a$"];

/// From this cost on, a check takes a processor for more than a second: a twentieth of one with 10, and
/// twice as long with each one more.
const SLOW_COST: u32 = 15;

/// Users and their hashes.
#[derive(Default)]
pub(super) struct Htpasswd {
    /// Sorted by user.
    entries: Vec<(String, String)>,
    /// Where in `entries` a user is.
    places: HashMap<String, usize>,
}

impl Htpasswd {
    /// Reads the content of a file.
    ///
    /// # Errors
    /// When a line is not of a user and a bcrypt hash, by its number, and when the last one does not
    /// end. What a line says is not repeated.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut entries = Vec::new();
        for (number, line) in reload::lines(text)? {
            let (user, hash) = line
                .split_once(':')
                .filter(|(user, _)| !user.is_empty())
                .with_context(|| format!("line {number} is not of the form user:hash"))?;
            let is_known = KINDS.iter().any(|kind| hash.starts_with(kind));
            let parts = hash.parse::<bcrypt::HashParts>().ok();
            let cost = parts.filter(|_| is_known).map(|parts| parts.get_cost());
            let cost = cost.with_context(|| {
                format!("line {number} has no bcrypt hash: make the entry by `htpasswd -B -C 10`")
            })?;
            if let Some(seconds) = slow(cost) {
                tracing::warn!(
                    user,
                    cost,
                    "each login of this user, and wrong ones of others, take a processor for about \
                     {seconds} s: make the entry again by `htpasswd -B -C 10`"
                );
            }
            entries.push((user.to_owned(), hash.to_owned()));
        }
        ensure!(!entries.is_empty(), "there is no entry in it");
        entries.sort();
        for pair in entries.windows(2) {
            if let [(one, _), (other, _)] = pair
                && one == other
            {
                bail!("it has more than one entry for the user {one:?}");
            }
        }
        let users = entries.iter().enumerate();
        let places = users.map(|(place, (user, _))| (user.clone(), place));
        Ok(Self {
            places: places.collect(),
            entries,
        })
    }

    /// Whether there is such a user.
    pub(super) fn has(&self, user: &str) -> bool {
        self.places.contains_key(user)
    }

    /// Whether this is the user's password. It takes as long as a hash does, many milliseconds.
    ///
    /// For a user that there isn't, another's hash does, always the same for one name: so neither
    /// the time nor, where hashes differ in cost, its steadiness tells who has an entry.
    pub(super) fn check(&self, user: &str, password: &str) -> bool {
        let place = self.places.get(user).copied();
        let some = place.unwrap_or_else(|| place_of(user, self.entries.len()));
        let right = self
            .entries
            .get(some)
            .is_some_and(|(_, hash)| bcrypt::verify(password, hash).unwrap_or(false));
        right && place.is_some()
    }
}

/// For about how many seconds a check of this cost takes a processor, when that is long.
fn slow(cost: u32) -> Option<u64> {
    (cost >= SLOW_COST).then(|| (1 << (cost - 10).min(32)) / 20)
}

fn place_of(user: &str, places: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    (hasher.finish() % places.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lowest cost, for speed.
    fn entry(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    #[test]
    fn only_the_right_password_of_the_right_user_opens() {
        let file = format!("# staff\n\n{}{}", entry("alice", "a"), entry("bob", "b:"));
        let users = Htpasswd::parse(&file).unwrap();
        assert!(users.check("alice", "a") && users.check("bob", "b:"));
        for (user, password) in [
            ("alice", "b:"),
            ("alice", ""),
            ("Alice", "a"),
            ("", "a"),
            // Some entry's hash is tried for a name that has none: its password opens nothing.
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
    fn what_apache_wrote_is_read() {
        // htpasswd -nbB -C 4 alice secret
        let line = "alice:$2y$04$mZNQ0cz.00VZfMlhlcwmruxYt8i1vrhtJ3/H8DZC1/hGzlGrTJ3fu\n";
        let users = Htpasswd::parse(line).unwrap();
        assert!(users.check("alice", "secret"));
        assert!(!users.check("alice", "Secret"));
    }

    #[test]
    fn a_cost_that_takes_seconds_is_known() {
        let seconds = [10, 14, 15, 16, 20, 31].map(slow);
        let expected = [None, None, Some(1), Some(3), Some(51), Some(104_857)];
        assert_eq!(seconds, expected);
    }

    #[test]
    fn a_line_that_is_wrong_is_named_and_not_repeated() {
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
        assert!(half.to_string().contains("half of a file"), "{half}");
    }
}
