//! The whole way on real parts: clients → Envoy with the filter → builder → Nix → storage.
//!
//! `make test` installs what these need. Tests that count what the builder does, or break
//! something, start a stack of their own; the rest share one. The Nix store is the machine's, so
//! what one run built is there for the next.

mod altered_paths;
mod bad_days;
mod bad_package_sets;
mod balancers;
mod beside_registry;
mod binary_caches;
mod build_command;
mod build_pages;
mod builder_cluster;
mod caching;
mod catalog;
mod ci_jobs;
mod clock;
mod coalescing;
mod configuration;
mod confined;
mod connections;
mod crafted_names;
mod documentation;
mod each_nix;
mod envoy_check;
mod existing_ingress;
mod explain;
mod facts;
mod faults;
mod git_hosts;
mod guest;
mod hostile_packages;
mod inside;
mod killed_builds;
mod login;
mod logs;
mod long_builds;
mod lost_blobs;
mod make_run;
mod memory;
mod nix_daemon;
mod nix_image;
mod overlays;
mod package_index;
mod pinned_sources;
mod policy;
mod policy_apply;
mod policy_cli;
mod protocol;
mod pulls;
mod queue;
mod ranges;
mod real_nixpkgs;
mod recipes;
mod records;
mod redirects;
mod refusals;
mod registry;
mod sandbox;
mod secrets;
mod shaped_set;
mod shapes;
mod signed_requests;
mod slow_reader;
mod sources;
mod stopping;
mod storm;
mod telemetry;
mod tools_in_any_pod;
mod unchanged_sources;
mod vm_death;
mod website;

use std::sync::OnceLock;

use nixgate_tests::live::stack::Stack;

/// The stack that tests share which only ask.
fn shared() -> &'static Stack {
    static SHARED: OnceLock<Stack> = OnceLock::new();
    SHARED.get_or_init(|| Stack::start().expect("the stack that tests share starts"))
}
