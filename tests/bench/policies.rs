//! Policies as large as a company's, made up: so many teams, with ten patterns each.
//!
//! Of ten patterns six are plain names, two have a wildcard at the end, one at the beginning and one
//! at both. Who asks is in one team; what is asked for, a rule for everybody allows, as it does in
//! most companies, or some team's. One rule asks for a header besides, so that callers can differ in it
//! (`callers.lua`).

use nixgate_core::policy::{Attribute, Known, Policy, Request};
use nixgate_core::{PackageSet, distribution::Repository, distribution::Tag, package_set};
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Patterns of each rule.
const PATTERNS: usize = 10;
/// What is asked for: an image of seven packages.
pub(crate) const IMAGE: &str = "shell/git";

/// A policy of so many rules, by which the `team` may have these packages.
pub(crate) fn policy(rules: usize, team: &str, packages: &[&str]) -> Value {
    let everybody = json!({"name": "everybody", "allow": ["@shell", "git"], "deny": ["*-broken"]});
    let ours = json!({
        "name": "ours", "subject": subject(team), "allow": packages, "systems": ["x86_64-linux"],
    });
    let robots = json!({
        "name": "robots", "subject": {"header": {"name": "x-bench-caller", "glob": "robot-*"}},
        "allow": ["robots"],
    });
    let others = (0..rules.saturating_sub(3)).map(|number| {
        // The kinds of patterns are spread over allow and deny; all are other packages.
        let pattern = |index: usize| {
            let word = word(number * PATTERNS + index);
            match index {
                0..6 => word,
                6..8 => format!("{word}*"),
                8 => format!("*-{word}"),
                _ => format!("*{word}*"),
            }
        };
        let allow: Vec<_> = (0..PATTERNS)
            .filter(|index| index % 5 != 0)
            .map(pattern)
            .collect();
        let deny: Vec<_> = (0..PATTERNS).step_by(5).map(pattern).collect();
        json!({
            "name": format!("team-{number}"), "subject": subject(&format!("team-{number}")),
            "allow": allow, "deny": deny, "max_packages": 12, "message": "Ask #platform.",
        })
    });
    let rules: Vec<_> = [everybody, ours, robots]
        .into_iter()
        .chain(others)
        .collect();
    json!({"revision": "bench", "default": "deny", "rules": rules})
}

fn subject(team: &str) -> Value {
    json!({"jwt_claim": {"path": ["groups"], "type": "list", "glob": team}})
}

/// A made-up name of a package, of 5 to 14 letters and digits, another for each number.
fn word(number: usize) -> String {
    // A multiplicative generator (Lehmer): seeded, so that each run measures the same.
    let mut state = (number as u64 + 1) * 48_271 % 0x7fff_ffff;
    let mut next = |bound: u64| {
        state = state * 48_271 % 0x7fff_ffff;
        state % bound
    };
    let length = 5 + next(10);
    let letters = (0..length).map(|_| char::from(b'a' + u8::try_from(next(26)).unwrap_or(0)));
    letters.chain(number.to_string().chars().take(1)).collect()
}

/// How long one judgement takes, natively: of a name that is allowed, and of one that is refused.
/// The fastest of many rounds, since what else the machine does only adds.
pub(crate) fn judgement(policy: &Policy) -> [Duration; 2] {
    [IMAGE, "git/no-such-package"].map(|name| {
        let repository = Repository::parse(name).expect("a name");
        let packages = PackageSet::of(&repository).expect("a name of one platform");
        let image = packages.into();
        let tag = Tag::latest();
        let request = Request {
            image: &image,
            written: package_set::written(&repository),
            tag: Some(&tag),
        };
        let known = |attribute: &Attribute| match attribute {
            Attribute::JwtClaim { .. } => {
                Known::Values(vec!["staff".to_owned(), "ours".to_owned()])
            }
            _ => Known::Unknown,
        };
        let identity = policy.attributes().iter().map(known).collect();
        let round = || {
            const TIMES: u32 = 200;
            let start = Instant::now();
            for _ in 0..TIMES {
                black_box(policy.judge_name(black_box(&request), black_box(&identity)));
            }
            start.elapsed() / TIMES
        };
        (0..50).map(|_| round()).min().unwrap_or_default()
    })
}
