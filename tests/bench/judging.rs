//! What a very large policy costs.
//!
//! Of requests that are judged anew, since each is of another caller or under a condition, and of
//! repeated ones, whose verdict is part of the copy. Envoy's processor time for each, with the policy and
//! without, has all that the policy costs: reading who asks, judging the name, the facts, and telling
//! the access log.

use std::time::Duration;

use anyhow::Result;
use nixgate_tests::live::envoy::Envoy;

use crate::comparison::{PAIRS, RUN, WARM_UP, median};
use crate::policies;
use crate::scene::Judging;
use crate::wrk::{self, Besides};

const CONNECTIONS: u16 = 16;
/// What no manifest has.
const CONDITION: &str = "If-None-Match: \"x\"";

/// The table.
///
/// # Errors
/// When an Envoy does not answer.
pub(crate) fn table(judging: &Judging<'_>) -> Result<String> {
    let [allowed, refused] = policies::judgement(&judging.policy).map(|it| it.as_secs_f64() * 1e6);
    let mut lines = vec![
        "| 1,000 rules, 10,000 patterns: µs of processor time | without a policy | with it | more |"
            .to_owned(),
        "| --- | ---: | ---: | ---: |".to_owned(),
        format!("| judging a name of seven packages, allowed (native) | | | {allowed:.1} |"),
        format!("| judging a name that is refused (native) | | | {refused:.1} |"),
    ];
    for (what, besides) in [
        (
            "Envoy, for a request of another caller each time",
            Besides::Callers,
        ),
        ("Envoy, for a conditional one", Besides::Header(CONDITION)),
        ("Envoy, for a repeated one", Besides::Nothing),
    ] {
        let [without, with, more] = costs(judging, besides)?;
        lines.push(format!(
            "| {what} | {without:.1} | {with:.1} | **{more:.1}** |"
        ));
    }
    Ok(lines.join("\n"))
}

/// Processor time for each request in microseconds: without a policy, with it, and how much more
/// that is. Medians of runs in turns.
fn costs(judging: &Judging<'_>, besides: Besides<'_>) -> Result<[f64; 3]> {
    let [plain, large] = judging.envoys;
    let [plain_url, large_url] = &judging.urls;
    cost(plain, plain_url, besides, WARM_UP)?;
    cost(large, large_url, besides, WARM_UP)?;
    let mut pairs = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        let without = cost(plain, plain_url, besides, RUN)?;
        pairs.push((without, cost(large, large_url, besides, RUN)?));
    }
    Ok([
        median(pairs.iter().map(|(without, _)| *without)),
        median(pairs.iter().map(|(_, with)| *with)),
        median(pairs.iter().map(|(without, with)| with - without)),
    ])
}

fn cost(envoy: &Envoy, url: &str, besides: Besides<'_>, time: Duration) -> Result<f64> {
    let before = envoy.processor_time()?;
    let load = wrk::run(url, besides, CONNECTIONS, true, time)?;
    let used = envoy.processor_time()?.saturating_sub(before);
    Ok(used.as_secs_f64() * 1e6 / (load.requests * time.as_secs_f64()))
}
