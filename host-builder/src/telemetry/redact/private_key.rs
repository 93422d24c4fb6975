//! Removes a private key that comes line by line, as builds print it.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::REDACTED;

/// Lines after the first that are removed if no end comes: RSA with 16384 bits has 200.
const LINES: usize = 200;

static BEGIN: LazyLock<Regex> = LazyLock::new(|| border("BEGIN"));
static END: LazyLock<Regex> = LazyLock::new(|| border("END"));

fn border(name: &str) -> Regex {
    let border = format!("-----{name} [A-Z ]*PRIVATE KEY-----");
    Regex::new(&border).expect("the pattern is right: a test compiles it")
}

/// Filters the lines of one program.
#[derive(Debug, Default)]
pub(crate) struct KeyLines {
    /// Inside a key: further lines that may belong to it.
    left: usize,
}

impl KeyLines {
    /// The next line, without parts of a key.
    pub(crate) fn without<'a>(&mut self, line: &'a str) -> Cow<'a, str> {
        let is_border = line.contains("PRIVATE KEY-----");
        if self.left == 0 && !is_border {
            return Cow::Borrowed(line);
        }
        let mut kept = String::new();
        let mut rest = line;
        loop {
            if self.left > 0 {
                kept.push_str(REDACTED);
                let Some(end) = END.find(rest) else {
                    self.left -= 1;
                    break;
                };
                self.left = 0;
                rest = &rest[end.end()..];
            }
            let Some(begin) = BEGIN.find(rest) else {
                kept.push_str(rest);
                break;
            };
            kept.push_str(&rest[..begin.start()]);
            rest = &rest[begin.end()..];
            // Includes this line.
            self.left = 1 + LINES;
        }
        Cow::Owned(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(lines: &[&str]) -> Vec<String> {
        let mut key = KeyLines::default();
        let lines = lines.iter().map(|line| key.without(line).into_owned());
        lines.collect()
    }

    #[test]
    fn a_key_goes_with_all_its_lines_and_nothing_else_does() {
        let lines = [
            "before",
            "+ cat key: -----BEGIN EC PRIVATE KEY-----",
            "c2VjcmV0",
            "",
            "-----END EC PRIVATE KEY----- after",
            "-----BEGIN PRIVATE KEY-----x-----END PRIVATE KEY-----, -----BEGIN PRIVATE KEY-----",
            "c2VjcmV0-----END PRIVATE KEY-----",
            "-----BEGIN CERTIFICATE-----",
            "the end is -----END PRIVATE KEY-----",
        ];
        let expected = [
            "before",
            "+ cat key: [redacted]",
            "[redacted]",
            "[redacted]",
            "[redacted] after",
            "[redacted], [redacted]",
            "[redacted]",
            "-----BEGIN CERTIFICATE-----",
            "the end is -----END PRIVATE KEY-----",
        ];
        assert_eq!(without(&lines), expected);
    }

    #[test]
    fn a_key_without_an_end_hides_a_bounded_number_of_lines() {
        let mut lines = vec!["-----BEGIN PRIVATE KEY-----"];
        lines.extend(["line"; LINES + 1]);
        let lines = without(&lines);
        assert!(lines[..=LINES].iter().all(|line| line == REDACTED));
        assert_eq!(lines[LINES + 1], "line");
    }
}
