//! Globs: `*`, `?` and `{a,b}`. They have no regex engine, which would be most of the wasm module.
//!
//! Parsing expands braces, so a glob has only literal characters, `?` (one character) and `*` (any
//! number of them). [`Reach`] says which characters these two match.

use std::fmt;
use std::sync::Arc;

use super::PolicyError;

/// The characters that `*` and `?` match.
///
/// `allow` with `python3*` means the interpreters and not `python3packages.requests`; `deny` with
/// `*-unwrapped` means it at every depth. Each reading lets less through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every character but the dot.
    OneAttribute,
    /// Every character.
    Anything,
}

const MAX_ALTERNATIVES: usize = 256;
/// In bytes. Names have at most 255, claims few more.
const MAX_LENGTH: usize = 1024;

/// One pattern without braces. Rules and the sets of all their globs share the texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: Arc<str>,
    reach: Reach,
}

impl Glob {
    /// Expands a pattern: to one glob, or to several when it has braces.
    ///
    /// # Errors
    /// When it is empty or too long, or its braces don't match, are nested or expand too far.
    pub fn parse(pattern: &str, reach: Reach) -> Result<Vec<Self>, PolicyError> {
        if pattern.is_empty() || pattern.len() > MAX_LENGTH {
            return Err(PolicyError(format!(
                "a pattern must have 1 to {MAX_LENGTH} bytes"
            )));
        }
        let texts = alternatives(pattern)?;
        Ok(texts
            .into_iter()
            .map(|text| Self {
                text: text.into(),
                reach,
            })
            .collect())
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        let reaches = |character| self.reaches(character);
        self.walk(text, reaches, reaches)
    }

    /// Whether this surely matches all that `other` matches. It matches the text of `other`, whose
    /// wildcards count as characters that only wildcards match.
    pub fn covers(&self, other: &Self) -> bool {
        let wider = self.reach == Reach::Anything || other.reach == Reach::OneAttribute;
        let any = |character| match character {
            '*' | '?' => wider,
            character => self.reaches(character),
        };
        let one = |character| character != '*' && any(character);
        self.walk(&other.text, one, any)
    }

    /// Matches a text. `?` takes a character that is `one`, `*` takes several that are `any`.
    fn walk(&self, text: &str, one: impl Fn(char) -> bool, any: impl Fn(char) -> bool) -> bool {
        // Only the latest `*` has to be tried again: it can take what an earlier one would give up.
        // So the time is at most the product of the two lengths.
        let (mut pattern, mut rest) = (self.text.chars(), text.chars());
        let mut again = None;
        loop {
            let mut ahead = pattern.clone();
            let wanted = ahead.next();
            if wanted == Some('*') {
                pattern = ahead;
                again = Some((pattern.clone(), rest.clone()));
                continue;
            }
            let mut after = rest.clone();
            let found = after.next();
            let fits = match (wanted, found) {
                (None, None) => return true,
                (Some('?'), Some(found)) => one(found),
                (Some(wanted), Some(found)) => wanted == found,
                _ => false,
            };
            if fits {
                (pattern, rest) = (ahead, after);
                continue;
            }
            // The latest `*` takes one character more, if it may.
            let Some((behind, taken)) = &mut again else {
                return false;
            };
            match taken.next() {
                Some(next) if any(next) => {}
                _ => return false,
            }
            (pattern, rest) = (behind.clone(), taken.clone());
        }
    }

    /// The text, wildcards included.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The literal text that every match begins with.
    pub fn prefix(&self) -> &str {
        let end = self.text.find(['*', '?']).unwrap_or(self.text.len());
        self.text.get(..end).unwrap_or_default()
    }

    /// The literal text that every match ends with.
    pub fn suffix(&self) -> &str {
        let start = self.text.rfind(['*', '?']);
        let start = start.map_or(0, |wildcard| wildcard.saturating_add(1));
        self.text.get(start..).unwrap_or_default()
    }

    /// Whether only one text matches.
    pub fn is_literal(&self) -> bool {
        self.prefix().len() == self.text.len()
    }

    fn reaches(&self, character: char) -> bool {
        match self.reach {
            Reach::OneAttribute => character != '.',
            Reach::Anything => true,
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Expands braces.
fn alternatives(pattern: &str) -> Result<Vec<String>, PolicyError> {
    let unbalanced = || PolicyError(format!("the braces of \"{pattern}\" don't match"));
    let mut written = vec![String::new()];
    let mut rest = pattern;
    while let Some((literal, behind)) = rest.split_once('{') {
        let (group, behind) = behind.split_once('}').ok_or_else(unbalanced)?;
        if literal.contains('}') {
            return Err(unbalanced());
        }
        if group.contains('{') {
            return Err(PolicyError(format!(
                "the braces of \"{pattern}\" are nested: write several patterns"
            )));
        }
        written = written
            .iter()
            .flat_map(|head| {
                group
                    .split(',')
                    .map(move |choice| format!("{head}{literal}{choice}"))
            })
            .collect();
        if written.len() > MAX_ALTERNATIVES {
            return Err(PolicyError(format!(
                "the braces of \"{pattern}\" expand to more than {MAX_ALTERNATIVES} patterns"
            )));
        }
        rest = behind;
    }
    if rest.contains('}') {
        return Err(unbalanced());
    }
    for text in &mut written {
        text.push_str(rest);
    }
    if written.iter().any(String::is_empty) {
        return Err(PolicyError(format!(
            "an alternative of \"{pattern}\" is empty"
        )));
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str, reach: Reach) -> bool {
        Glob::parse(pattern, reach)
            .unwrap()
            .iter()
            .any(|glob| glob.matches(text))
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, expected) in [
            ("git", "git", true),
            ("git", "gitea", false),
            ("git", "legit", false),
            ("git*", "gitea", true),
            ("*", "", true),
            ("?", "", false),
            ("python3?", "python310", false),
            ("python3??", "python310", true),
            ("*-unwrapped", "gcc-unwrapped", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("go_1_{22,23}", "go_1_23", true),
            ("go_1_{22,23}", "go_1_24", false),
            ("{a,b}{c,d}", "bd", true),
            ("node{,js}", "node", true),
        ] {
            let seen = matches(pattern, text, Reach::Anything);
            assert_eq!(seen, expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_dot_is_a_border_where_it_is_to_be() {
        for (pattern, text, inside, anywhere) in [
            ("python3*", "python3packages.requests", false, true),
            ("python3packages.*", "python3packages.requests", true, true),
            ("a?b", "a.b", false, true),
            ("*-unwrapped", "llvm.clang-unwrapped", false, true),
            ("a.b", "a.b", true, true),
        ] {
            assert_eq!(matches(pattern, text, Reach::OneAttribute), inside);
            assert_eq!(matches(pattern, text, Reach::Anything), anywhere);
        }
    }

    #[test]
    fn a_pattern_covers_what_is_narrower() {
        for (wide, narrow, inside, anywhere) in [
            ("git", "git", true, true),
            ("git*", "git", true, true),
            ("git*", "git-?", true, true),
            ("git", "git*", false, false),
            ("g?t", "g*t", false, false),
            ("*", "*", true, true),
            ("a.*", "a.b*", true, true),
            ("a*", "a.b*", false, true),
            ("*-unwrapped", "gcc*-unwrapped", true, true),
        ] {
            let glob = |text: &str, reach| Glob::parse(text, reach).unwrap().remove(0);
            let narrow = glob(narrow, Reach::OneAttribute);
            for (reach, expected) in [(Reach::OneAttribute, inside), (Reach::Anything, anywhere)] {
                assert_eq!(
                    glob(wide, reach).covers(&narrow),
                    expected,
                    "{wide} {narrow}"
                );
            }
        }
        let everything = Glob::parse("*", Reach::Anything).unwrap().remove(0);
        let attribute = Glob::parse("*", Reach::OneAttribute).unwrap().remove(0);
        assert!(everything.covers(&attribute) && !attribute.covers(&everything));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (pattern, part) in [
            ("", "1 to 1024"),
            ("{a", "don't match"),
            ("a}", "don't match"),
            ("a}{b}", "don't match"),
            ("{a,{b,c}}", "are nested"),
            ("{,a}", "is empty"),
            (
                "{a,b,c,d}{a,b,c,d}{a,b,c,d}{a,b,c,d}{a,b,c,d}",
                "more than 256",
            ),
        ] {
            let error = Glob::parse(pattern, Reach::Anything).unwrap_err();
            assert!(error.to_string().contains(part), "{pattern}: {error}");
        }
    }

    /// The definition, as it would be told: slow, and obviously right.
    fn oracle(pattern: &[char], text: &[char], reach: Reach) -> bool {
        let reaches = |c: &char| reach == Reach::Anything || *c != '.';
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len())
                .any(|n| text[..n].iter().all(reaches) && oracle(rest, &text[n..], reach)),
            ['?', rest @ ..] => {
                matches!(text, [c, behind @ ..] if reaches(c) && oracle(rest, behind, reach))
            }
            [wanted, rest @ ..] => {
                matches!(text, [c, behind @ ..] if c == wanted && oracle(rest, behind, reach))
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn matching_is_what_the_oracle_says(
            pattern in "[ab.*?]{1,8}",
            text in "[ab.]{0,10}",
            inside: bool,
        ) {
            let reach = if inside { Reach::OneAttribute } else { Reach::Anything };
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = oracle(&chars(&pattern), &chars(&text), reach);
            prop_assert_eq!(matches(&pattern, &text, reach), expected);
        }

        #[test]
        fn what_a_pattern_covers_it_matches(
            wide in "[ab.*?]{1,5}",
            narrow in "[ab.*?]{1,5}",
            text in "[ab.]{0,6}",
            wide_inside: bool,
            narrow_inside: bool,
        ) {
            let reach = |inside| if inside { Reach::OneAttribute } else { Reach::Anything };
            let glob = |text: &str, inside| Glob::parse(text, reach(inside)).unwrap().remove(0);
            let (wide, narrow) = (glob(&wide, wide_inside), glob(&narrow, narrow_inside));
            if wide.covers(&narrow) && narrow.matches(&text) {
                prop_assert!(wide.matches(&text));
            }
        }

        #[test]
        fn any_text_parses_or_is_refused(pattern: String, text: String) {
            if let Ok(globs) = Glob::parse(&pattern, Reach::Anything) {
                for glob in globs {
                    let matches = glob.matches(&text);
                    prop_assert!(!matches || text.starts_with(glob.prefix()));
                    prop_assert!(!matches || text.ends_with(glob.suffix()));
                }
            }
        }
    }
}
