//! Patterns of a policy, against the definition of what they mean: slow, and obviously right.
//!
//! The input is a pattern, a newline, and a text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixgate_core::policy::{Glob, Reach};

/// Longer input would only make the oracle slow: its time is exponential.
const LONGEST: usize = 24;

/// What a pattern without braces means.
fn means(pattern: &[char], text: &[char], reach: Reach) -> bool {
    let reaches = |c: &char| reach == Reach::Anything || *c != '.';
    match pattern {
        [] => text.is_empty(),
        // A row of them, one by one, would take hours.
        ['*', '*', ..] => means(&pattern[1..], text, reach),
        ['*', rest @ ..] => {
            let taken = text.iter().take_while(|c| reaches(c)).count();
            (0..=taken).any(|taken| means(rest, &text[taken..], reach))
        }
        ['?', rest @ ..] => {
            matches!(text, [c, behind @ ..] if reaches(c) && means(rest, behind, reach))
        }
        [wanted, rest @ ..] => {
            matches!(text, [c, behind @ ..] if c == wanted && means(rest, behind, reach))
        }
    }
}

/// The patterns that braces stand for: the first pair is written out, then the rest.
fn written_out(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return vec![pattern.to_owned()];
    };
    let (choices, behind) = rest.split_once('}').expect("a pattern that was taken");
    let choices = choices.split(',');
    choices
        .flat_map(|choice| written_out(&format!("{before}{choice}{behind}")))
        .collect()
}

fuzz_target!(|input: &str| {
    let Some((pattern, text)) = input.split_once('\n') else {
        return;
    };
    if pattern.len() > LONGEST || text.len() > LONGEST {
        return;
    }
    for reach in [Reach::OneAttribute, Reach::Anything] {
        let Ok(globs) = Glob::parse(pattern, reach) else {
            continue;
        };
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let text_chars = chars(text);
        let expected = written_out(pattern)
            .iter()
            .any(|pattern| means(&chars(pattern), &text_chars, reach));
        let found = globs.iter().any(|glob| glob.matches(text));
        assert_eq!(found, expected, "{pattern:?} {text:?} {reach:?}");
    }
});
