//! Real programs on loopback, for the end-to-end tests.
//!
//! ```text
//!   clients ──────────► stack ── envoy ──► builder ──► Nix, files or s3
//!                         │            └─► stub_builder, for its bad days
//!   with TLS and a login: gateway ── envoy ──► builder, and the keys of a company's issuer
//!   skopeo, podman,       │
//!   containerd, http      │      └──► docker_registry, nginx (for what is not ours)
//!                         │    ingress ── an Envoy that has services of others, with us or without
//!                         │    company ── the same with a listener of our own, by delivered files
//!                         └── process, ports, scratch, install, poll, sign
//!
//!   package sets from elsewhere: git_https (nginx), git_ssh (dropbear, in a namespace), archive_server
//!   a Nix store with a daemon:   nix_daemon, in a namespace
//!   packages like nixpkgs':      shaped_set; a binary cache that has them: binary_cache
//! ```

pub mod admin;
pub mod archive_server;
pub mod binary_cache;
pub mod builder;
pub mod certificate;
pub mod clients;
pub mod company;
pub mod described;
pub mod docker_registry;
pub mod envoy;
pub mod gated_set;
pub mod gateway;
pub mod git_https;
pub mod git_ssh;
pub mod http;
pub mod http2;
pub mod ingress;
pub mod install;
pub mod issuer;
pub mod limited_filter;
pub mod namespace;
pub mod nginx;
pub mod nix_daemon;
pub mod poll;
pub mod ports;
pub mod process;
pub mod raw;
pub mod s3;
pub mod scratch;
pub mod served_set;
pub mod shaped_set;
pub mod sign;
pub mod stack;
pub mod storm;
pub mod stub_builder;
pub mod unbuilt_set;
