//! Settings of Nix: [`NixArgs`] → [`NixSettings`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::nix::{EvalPermissions, NixOptions, NixSettings, NixpkgsConfig, Proxy, Sandbox};
use crate::process::{Netrc, NetworkSettings};
use crate::telemetry::redact::{keep_nix_option, keep_url};

/// The arguments for Nix.
#[derive(Args, Clone)]
pub(crate) struct NixArgs {
    /// Seconds that one derivation may take to build
    #[arg(
        long,
        env = "NIX_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 3600
    )]
    pub(crate) nix_timeout: u64,
    /// A setting of Nix, `name=value`; separated by `;` in the variable
    #[arg(
        long = "nix-option",
        env = "NIXGATE_NIX_OPTIONS",
        value_name = "OPTION",
        value_delimiter = ';'
    )]
    pub(crate) nix_options: Vec<String>,
    /// Build without a sandbox where none works: builds then see this machine
    #[arg(long, env = "NIXGATE_ALLOW_UNSANDBOXED")]
    pub(crate) allow_unsandboxed: bool,
    /// Build as the user who owns the Nix store, which happens without a daemon and build users: a
    /// package's build can then change every other package
    #[arg(long, env = "NIXGATE_ALLOW_SHARED_BUILD_USER")]
    pub(crate) allow_shared_build_user: bool,
    /// Refuse to start with a weakness: a Nix with known vulnerabilities, downloads that reach this
    /// machine, or an `--allow-…` flag
    #[arg(long, env = "NIXGATE_STRICT")]
    pub(crate) strict: bool,
    /// Version of Nix to which a distribution has added later security fixes, as `nix --version` prints
    /// it, such as `2.26.3`
    #[arg(long, env = "NIXGATE_PATCHED_NIX", value_name = "VERSION")]
    pub(crate) patched_nix: Option<String>,
    /// Seconds that an evaluation of the package set may take
    #[arg(
        long,
        env = "NIXGATE_EVAL_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 60
    )]
    pub(crate) eval_timeout: u64,
    /// MiB of memory that an evaluation may take
    #[arg(
        long,
        env = "NIXGATE_EVAL_MEMORY",
        value_name = "MIB",
        default_value_t = 4096
    )]
    pub(crate) eval_memory: u64,
    /// Prefixes of URIs that the package set may fetch while it is evaluated, separated by spaces
    #[arg(
        long,
        env = "NIXGATE_ALLOWED_URIS",
        value_name = "URIS",
        value_delimiter = ' '
    )]
    pub(crate) allowed_uris: Vec<String>,
    /// Let the package set build while it is evaluated, and read the outputs
    #[arg(long, env = "NIXGATE_IMPORT_FROM_DERIVATION")]
    pub(crate) import_from_derivation: bool,
    /// File with the unfree and insecure packages that [nixpkgs](nixpkgs.md) may serve, and with overlays
    #[arg(long, env = "NIXGATE_NIXPKGS_CONFIG", value_name = "FILE")]
    pub(crate) nixpkgs_config: Option<PathBuf>,
    /// Fetch packages from binary caches only, and build nothing: a package that no cache has is refused
    #[arg(long, env = "NIXGATE_ONLY_FROM_CACHES")]
    pub(crate) only_from_caches: bool,
    /// Proxy of Nix and git, for http and https; by default that of the usual variables
    #[arg(
        long,
        env = "NIXGATE_PROXY",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) proxy: Option<String>,
    /// Let Nix and builds reach only the proxy, with a network namespace of their own; requires root or
    /// `CAP_SYS_ADMIN`, and no nix-daemon
    #[arg(long, env = "NIXGATE_PROXY_ONLY")]
    pub(crate) proxy_only: bool,
    /// Certificates that Nix and git trust, PEM; by default the system's
    #[arg(long, env = "NIX_SSL_CERT_FILE", value_name = "FILE")]
    pub(crate) ca_bundle: Option<PathBuf>,
    /// Credentials for downloads of Nix and git, in curl's netrc format
    #[arg(long, env = "NIXGATE_NETRC", value_name = "FILE")]
    pub(crate) netrc: Option<PathBuf>,
}

/// Settings of Nix that nixgate sets itself, and what to do instead.
const OWN: [(&str, &str); 7] = [
    ("restrict-eval", "evaluation is always restricted"),
    ("pure-eval", "evaluation is always restricted"),
    ("nix-path", "a package set reads nothing but itself"),
    ("allowed-uris", "set NIXGATE_ALLOWED_URIS"),
    (
        "allow-import-from-derivation",
        "set NIXGATE_IMPORT_FROM_DERIVATION",
    ),
    ("netrc-file", "set NIXGATE_NETRC"),
    (
        "allow-unsafe-native-code-during-evaluation",
        "evaluation is always restricted",
    ),
];

impl NixArgs {
    /// # Errors
    /// When a setting is invalid; the error names it and says what to do.
    pub(crate) fn validate(self, max_builds: usize) -> Result<NixSettings> {
        for (name, value) in [
            ("NIX_TIMEOUT", self.nix_timeout),
            ("NIXGATE_EVAL_TIMEOUT", self.eval_timeout),
        ] {
            ensure!(value > 0, "{name} must be greater than 0");
        }
        // The garbage collector of Nix's heap starts with up to 384 MiB.
        ensure!(
            self.eval_memory >= 512,
            "NIXGATE_EVAL_MEMORY is {}: it must be at least 512, with which Nix starts",
            self.eval_memory
        );
        for (given, variable) in [
            (self.allow_unsandboxed, "NIXGATE_ALLOW_UNSANDBOXED"),
            (
                self.allow_shared_build_user,
                "NIXGATE_ALLOW_SHARED_BUILD_USER",
            ),
        ] {
            ensure!(!(self.strict && given), "{}", not_strict(variable));
        }
        let sandbox = match self.allow_unsandboxed {
            true => Sandbox::Wanted,
            false => Sandbox::Required {
                shared_user: self.allow_shared_build_user,
            },
        };
        let only_proxy = self.proxy_only.then(|| {
            let proxy = self.proxy.as_deref().and_then(Proxy::parse);
            proxy.context(
                "NIXGATE_PROXY_ONLY needs a proxy. Set NIXGATE_PROXY to one of the form http://host:port",
            )
        });
        self.proxy.as_deref().into_iter().for_each(keep_url);
        let written = self.nix_options.iter().map(|option| option.trim());
        let options = written
            .filter(|option| !option.is_empty())
            .map(option)
            .collect::<Result<_>>()?;
        ensure!(
            !(self.only_from_caches && self.import_from_derivation),
            "NIXGATE_ONLY_FROM_CACHES and NIXGATE_IMPORT_FROM_DERIVATION contradict each other: the latter \
             builds. Remove one of them"
        );
        let uris = self.allowed_uris.into_iter();
        let file =
            |name: &str, file: Option<PathBuf>| file.map(|file| absolute(name, &file)).transpose();
        Ok(NixSettings {
            options: NixOptions(options),
            sandbox,
            strict: self.strict,
            patched: self.patched_nix,
            only_proxy: only_proxy.transpose()?,
            derivation_timeout: self.nix_timeout,
            eval_timeout: Duration::from_secs(self.eval_timeout),
            eval_memory: self.eval_memory,
            eval_permissions: EvalPermissions {
                allowed_uris: uris.filter(|uri| !uri.is_empty()).collect(),
                import_from_derivation: self.import_from_derivation,
            },
            nixpkgs_config: self.nixpkgs_config.map_or_else(
                || Ok(NixpkgsConfig::default()),
                |file| NixpkgsConfig::open(&file),
            )?,
            only_caches: self.only_from_caches,
            network: NetworkSettings {
                proxy: self.proxy,
                ca_bundle: file("NIX_SSL_CERT_FILE", self.ca_bundle)?,
                netrc: file("NIXGATE_NETRC", self.netrc)?.map(netrc).transpose()?,
                namespace: None,
            },
            max_concurrent: max_builds,
        })
    }
}

/// The error for a setting that contradicts `--strict`.
pub(super) fn not_strict(variable: &str) -> String {
    format!("NIXGATE_STRICT and {variable} contradict each other. Remove one of them")
}

/// Parses a setting of Nix.
fn option(written: &str) -> Result<(String, String)> {
    let Some((name, value)) = written.split_once('=') else {
        bail!("the Nix option \"{written}\" must have the form name=value");
    };
    let (name, value) = (name.trim(), value.trim());
    keep_nix_option(name, value);
    let own = name.strip_prefix("extra-").unwrap_or(name);
    if let Some((_, instead)) = OWN.iter().find(|(known, _)| *known == own) {
        bail!("NIXGATE_NIX_OPTIONS cannot set {name}: {instead}");
    }
    let safe = match own {
        "sandbox" => value == "true",
        "sandbox-fallback" => value == "false",
        _ => true,
    };
    ensure!(
        safe,
        "the Nix option {name}={value} would let builds see this machine. Remove it; where no sandbox works, \
         pass --allow-unsandboxed (NIXGATE_ALLOW_UNSANDBOXED)"
    );
    Ok((name.to_owned(), value.to_owned()))
}

fn netrc(file: PathBuf) -> Result<Netrc> {
    let helper = std::env::current_exe();
    let helper =
        helper.context("cannot find this program's path, by which git reads NIXGATE_NETRC")?;
    Ok(Netrc { file, helper })
}

/// An absolute path, since Nix may run in another folder.
fn absolute(name: &str, file: &Path) -> Result<PathBuf> {
    // Without resolving links: for containers the file is a link, whose target changes with each update.
    std::fs::metadata(file)
        .and_then(|_| std::path::absolute(file))
        .with_context(|| format!("cannot open {name} {}", file.display()))
}
