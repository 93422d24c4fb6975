//! A whole policy, against its definition: whether a caller without identity may have some packages.
//!
//! The input is lines: `+pattern` allows, `-pattern` denies, and the last is the name of an image.
//! All patterns together are one rule, so that what is found among many (by hash, by pairs of
//! letters) is compared with what each matches alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixgate_core::distribution::{Repository, Tag};
use nixgate_core::policy::{Glob, Policy, Reach, Request};
use nixgate_core::{PackageSet, package_set};
use serde_json::json;

fuzz_target!(|input: &str| {
    let Some((patterns, name)) = input.rsplit_once('\n') else {
        return;
    };
    let listed = |sign: char| -> Vec<&str> {
        let lines = patterns.lines();
        lines.filter_map(|line| line.strip_prefix(sign)).collect()
    };
    let (allow, deny) = (listed('+'), listed('-'));
    // What is rewritten before it is compared has tests of its own.
    let is_plain = |pattern: &&str| !pattern.contains(['@', '_', '{']) && pattern.is_ascii();
    if !allow.iter().chain(&deny).all(is_plain) {
        return;
    }
    let rule = json!({"name": "one", "allow": allow, "deny": deny});
    let policy = json!({"revision": "1", "default": "deny", "rules": [rule]});
    let Ok(policy) = Policy::parse(policy.to_string().as_bytes()) else {
        return;
    };
    let Some(packages) = Repository::parse(name)
        .ok()
        .and_then(|it| PackageSet::of(&it).ok())
    else {
        return;
    };
    let some = |patterns: &[&str], reach: Reach, package: &str| {
        let globs = patterns.iter().map(|pattern| pattern.to_ascii_lowercase());
        let mut globs = globs.flat_map(|pattern| Glob::parse(&pattern, reach).unwrap_or_default());
        globs.any(|glob| glob.matches(package))
    };
    let may = packages.packages().all(|package| {
        let allowed =
            package_set::is_in_every_image(package) || some(&allow, Reach::OneAttribute, package);
        allowed && !some(&deny, Reach::Anything, package)
    });
    let tag = Tag::latest();
    let written = packages.packages().count();
    let request = Request {
        image: &packages.into(),
        written,
        tag: Some(&tag),
    };
    let verdict = policy.judge_name(&request, &Vec::new());
    assert_eq!(verdict.allows(), may, "{input:?}");
});
