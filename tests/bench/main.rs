//! `make bench`: the edge beside Envoy itself, docker-registry and nginx, on this machine.
//!
//! ```text
//!   wrk ──► Envoy + filter ──► builder ──► S3, or files        ours
//!    └────► Envoy: direct_response, redirect, nginx            theirs
//!    └────► docker-registry
//!    └────► Envoy + filter without a policy, Envoy without the filter
//! ```
//!
//! Both sides get the same requests, over as many connections, from the same wrk, and each Envoy
//! has as many workers as the machine has processors. They take turns (ours, theirs, theirs, ours,
//! …) so that what else the machine does meets both, and the medians over all pairs count. Before
//! anything is measured, both sides' answers are compared.
//!
//! Results go to stdout as a table, progress to stderr. Nothing here can fail for being slow.

mod comparison;
mod judging;
mod peers;
mod policies;
mod scene;
mod wrk;

use std::env;

use anyhow::Result;

use comparison::{Comparison, Measure};
use scene::Scene;

/// Connections that are kept busy at once.
const MANY: u16 = 32;

fn main() -> Result<()> {
    eprintln!("building the images to pull");
    let scene = Scene::set()?;
    let direct = scene.manifest_beside_direct_response()?;
    let redirect = scene.blob_beside_redirect()?;
    let tag = scene.manifest_beside_registry("latest")?;
    let digest = scene.manifest_beside_registry(&scene.digest)?;
    let stream = scene.stream_beside_nginx()?;
    let policy = scene.policy_beside_none()?;
    let app = scene.other_route("Host: app.corp", "/index.html")?;
    let status = scene.other_route("Host: other.corp", "/status")?;

    let mut comparisons = Vec::new();
    for (what, goal, pair) in [
        ("manifest by tag / Envoy `direct_response`", "≥ 0.9", direct),
        ("blob redirect / Envoy `redirect`", "≥ 0.9", redirect),
        ("manifest by tag / docker-registry", "≥ 15", tag),
        ("manifest by digest / docker-registry", "≥ 15", digest),
        ("manifest under 200 rules / under none", "≥ 0.9", policy),
        ("another service, with nixgate / without", "≥ 0.98", app),
        (
            "Envoy's own answer, with nixgate / without",
            "≥ 0.98",
            status,
        ),
    ] {
        for keep_alive in [true, false] {
            comparisons.push(Comparison {
                what,
                goal,
                measure: Measure::Requests,
                pair: pair.clone(),
                connections: MANY,
                keep_alive,
            });
        }
    }
    for connections in [1, 4] {
        comparisons.push(Comparison {
            what: "blob of 146 MB / nginx behind Envoy",
            goal: "≥ 0.9",
            measure: Measure::Bytes,
            pair: stream.clone(),
            connections,
            keep_alive: true,
        });
    }

    // `make bench` measures all; `-- policy` only what has that in its name.
    let wanted = env::args().nth(1).unwrap_or_default();
    comparisons.retain(|one| one.what.contains(&wanted));

    println!("{}", scene.machine());
    println!();
    println!("{}", comparison::HEAD);
    for comparison in comparisons {
        eprintln!("measuring: {}", comparison.name());
        println!("{}", comparison.run()?);
    }
    eprintln!("measuring: a policy of 1,000 rules with 10,000 patterns");
    println!();
    println!("{}", judging::table(&scene.judging()?)?);
    Ok(())
}
