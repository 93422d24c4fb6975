//! How Nix is run: [`NixArgs`] → [`NixSettings`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::nix::{EvalPermissions, NixOptions, NixSettings, Proxy, Sandbox};
use crate::process::{Netrc, NetworkSettings};
use crate::telemetry::redact::{keep_nix_option, keep_url};

/// How Nix is run, as it was written.
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
    /// Build without a sandbox where none can be had: builds then see this machine
    #[arg(long, env = "NIXGATE_ALLOW_UNSANDBOXED")]
    pub(crate) allow_unsandboxed: bool,
    /// Build as the user who owns the Nix store, as without a daemon and build users: a package's build
    /// can then change every other package
    #[arg(long, env = "NIXGATE_ALLOW_SHARED_BUILD_USER")]
    pub(crate) allow_shared_build_user: bool,
    /// Refuse to start where something is less safe than it could be: with a Nix that has known holes,
    /// with downloads that reach this machine, or with an `--allow-…` flag
    #[arg(long, env = "NIXGATE_STRICT")]
    pub(crate) strict: bool,
    /// A version of Nix that has the fixes of a later one, as distributions make them: what `nix
    /// --version` says of it, such as `2.26.3`
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
    /// URIs that the package set may fetch from while it is evaluated, by their beginnings;
    /// separated by spaces
    #[arg(
        long,
        env = "NIXGATE_ALLOWED_URIS",
        value_name = "URIS",
        value_delimiter = ' '
    )]
    pub(crate) allowed_uris: Vec<String>,
    /// Let the package set build while it is evaluated, and read what was built
    #[arg(long, env = "NIXGATE_IMPORT_FROM_DERIVATION")]
    pub(crate) import_from_derivation: bool,
    /// Proxy of Nix and git, for http and https; that of the usual variables when not given
    #[arg(
        long,
        env = "NIXGATE_PROXY",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) proxy: Option<String>,
    /// Let Nix and builds reach the proxy and nothing else, by a network of their own; needs root, or
    /// `CAP_SYS_ADMIN`, and no nix-daemon
    #[arg(long, env = "NIXGATE_PROXY_ONLY")]
    pub(crate) proxy_only: bool,
    /// Certificates that Nix and git trust, PEM; the system's when not given
    #[arg(long, env = "NIX_SSL_CERT_FILE", value_name = "FILE")]
    pub(crate) ca_bundle: Option<PathBuf>,
    /// Credentials for what Nix and git fetch, as curl's netrc
    #[arg(long, env = "NIXGATE_NETRC", value_name = "FILE")]
    pub(crate) netrc: Option<PathBuf>,
}

/// Settings of Nix that are nixgate's business, and what says the same.
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
    /// Checks what was written; `at_once` is how many images are built at once.
    ///
    /// # Errors
    /// A sentence that names the setting and the remedy.
    pub(crate) fn validate(self, at_once: usize) -> Result<NixSettings> {
        for (name, value) in [
            ("NIX_TIMEOUT", self.nix_timeout),
            ("NIXGATE_EVAL_TIMEOUT", self.eval_timeout),
        ] {
            ensure!(value > 0, "{name} is 0: nothing is done in no time");
        }
        // Nix's garbage collector begins with 384 MiB where a machine has the memory.
        ensure!(
            self.eval_memory >= 512,
            "NIXGATE_EVAL_MEMORY is {}: Nix does not start with less than 512 MiB",
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
        let only = self.proxy_only.then(|| {
            let proxy = self.proxy.as_deref().and_then(Proxy::parse);
            proxy.context(
                "NIXGATE_PROXY_ONLY is set without a proxy to reach: set NIXGATE_PROXY to one of the \
                 form http://host:port",
            )
        });
        self.proxy.as_deref().into_iter().for_each(keep_url);
        let written = self.nix_options.iter().map(|option| option.trim());
        let options = written
            .filter(|option| !option.is_empty())
            .map(option)
            .collect::<Result<_>>()?;
        let uris = self.allowed_uris.into_iter();
        let file =
            |name: &str, file: Option<PathBuf>| file.map(|file| absolute(name, &file)).transpose();
        Ok(NixSettings {
            options: NixOptions(options),
            sandbox,
            strict: self.strict,
            patched: self.patched_nix,
            only: only.transpose()?,
            derivation_timeout: self.nix_timeout,
            eval_time: Duration::from_secs(self.eval_timeout),
            eval_memory: self.eval_memory,
            freedom: EvalPermissions {
                allowed_uris: uris.filter(|uri| !uri.is_empty()).collect(),
                import_from_derivation: self.import_from_derivation,
            },
            egress: NetworkSettings {
                proxy: self.proxy,
                ca_bundle: file("NIX_SSL_CERT_FILE", self.ca_bundle)?,
                netrc: file("NIXGATE_NETRC", self.netrc)?.map(netrc).transpose()?,
                namespace: None,
            },
            at_once,
        })
    }
}

/// Why a setting that gives something up can't be had together with `--strict`.
pub(super) fn not_strict(variable: &str) -> String {
    format!("NIXGATE_STRICT refuses what {variable} gives up: set one of them alone")
}

/// A setting of Nix that the administrator has for it.
fn option(written: &str) -> Result<(String, String)> {
    let Some((name, value)) = written.split_once('=') else {
        bail!("the Nix option \"{written}\" is not of the form name=value");
    };
    let (name, value) = (name.trim(), value.trim());
    keep_nix_option(name, value);
    let own = name.strip_prefix("extra-").unwrap_or(name);
    if let Some((_, instead)) = OWN.iter().find(|(known, _)| *known == own) {
        bail!("the Nix option {name} can't be set by NIXGATE_NIX_OPTIONS: {instead}");
    }
    let safe = match own {
        "sandbox" => value == "true",
        "sandbox-fallback" => value == "false",
        _ => true,
    };
    ensure!(
        safe,
        "the Nix option {name}={value} would have builds see this machine: leave it out, and where \
         no sandbox can be had, pass --allow-unsandboxed (NIXGATE_ALLOW_UNSANDBOXED)"
    );
    Ok((name.to_owned(), value.to_owned()))
}

fn netrc(file: PathBuf) -> Result<Netrc> {
    let reader = std::env::current_exe();
    let reader = reader.context("the path of this program, by which git reads NIXGATE_NETRC")?;
    Ok(Netrc { file, reader })
}

/// Nix does not start where the builder does.
fn absolute(name: &str, file: &Path) -> Result<PathBuf> {
    // Not by its real name: what is mounted for containers is a link, and another folder is behind it
    // after each change.
    std::fs::metadata(file)
        .and_then(|_| std::path::absolute(file))
        .with_context(|| format!("{name} is {}, which can't be found", file.display()))
}
