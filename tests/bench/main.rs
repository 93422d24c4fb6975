//! `make bench`: the edge beside Envoy itself, docker-registry and nginx, on this machine.
//!
//! ```text
//!   wrk ──► Envoy + filter ──► builder ──► S3, or files        ours
//!    └────► Envoy: direct_response, redirect, nginx            theirs
//!    └────► docker-registry
//! ```
//!
//! Both sides get the same requests, over as many connections, from the same wrk, and each Envoy
//! has as many workers as the machine has processors. They take turns (ours, theirs, theirs, ours,
//! …) so that what else the machine does meets both, and the medians over all pairs count. Before
//! anything is measured, both sides' answers are compared.
//!
//! Results go to stdout as a table, progress to stderr. Nothing here can fail for being slow.

mod comparison;
mod peers;
mod scene;
mod wrk;

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

    let mut comparisons = Vec::new();
    for (what, goal, pair) in [
        ("manifest by tag / Envoy `direct_response`", "≥ 0.9", direct),
        ("blob redirect / Envoy `redirect`", "≥ 0.9", redirect),
        ("manifest by tag / docker-registry", "≥ 15", tag),
        ("manifest by digest / docker-registry", "≥ 15", digest),
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

    println!("{}", scene.machine());
    println!();
    println!("{}", comparison::HEAD);
    for comparison in comparisons {
        eprintln!("measuring: {}", comparison.name());
        println!("{}", comparison.run()?);
    }
    Ok(())
}
