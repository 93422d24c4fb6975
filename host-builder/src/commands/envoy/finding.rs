//! What `nixgate envoy check` can find, and how a finding is printed.

use std::fmt;

use serde::Serialize;

/// How bad a finding is. Errors alone decide on the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// The registry fails, or lets somebody through, or harms another service.
    Error,
    /// It works, until there is load, a failure or an attacker.
    Warning,
    /// What cannot be seen in the configuration.
    Note,
}

macro_rules! checks {
    ($($variant:ident $name:literal: $why:literal),+ $(,)?) => {
        /// The checks, with their names and the reasons for them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(super) enum Check {
            $($variant),+
        }

        impl Check {
            #[cfg(test)]
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            pub(super) fn why(self) -> &'static str {
                match self {
                    $(Self::$variant => $why),+
                }
            }
        }
    };
}

checks! {
    NoFilter "no-filter": "without the filter there is no registry",
    File "file": "Envoy does not start, or keeps its old configuration, when a file that it reads is wrong",
    Resources "resources": "Envoy refuses a file that does not have exactly the one resource it asks for",
    NotDelivered "not-delivered": "until the filter's configuration arrives, Envoy answers every request on its routes with 500",
    Refused "refused": "Envoy refused this update and keeps what it had before, if anything",
    Unseen "unseen": "only a running Envoy knows what a server delivers",
    Settings "settings": "the filter refuses settings that it does not know or that are out of range",
    TokenVariable "token-variable": "the filter needs the token that the builder requires, and gets only the variables that are listed",
    Module "module": "Envoy cannot load the filter without its module",
    ModuleVersion "module-version": "the edge and the builder are tested together only in one version",
    VmId "vm-id": "plugins with one vm_id share one cache, and each may write to it",
    FailurePolicy "failure-policy": "a filter that dies must be replaced, and no request may pass without it meanwhile",
    ReloadConfig "reload-config": "by default Envoy makes no new VM within a second of the last one, and every request in that second fails",
    SharedDelivery "shared-delivery": "a module that can't be loaded blocks updates of all listeners that share the filter",
    DefaultConfig "default-config": "until the filter's configuration arrives, requests are served by another one, or by none",
    OtherServices "other-services": "requests of other services pass the filter, and fail when it does",
    NeverEnabled "never-enabled": "a disabled filter does nothing unless a route enables it",
    RouteWithoutFilter "route-without-filter": "the builder refuses requests that did not pass the filter",
    NotLast "not-last": "the filter answers manifests itself, so filters behind it see nothing but forwarded blobs",
    JwtElsewhere "jwt-elsewhere": "other services would require the registry's tokens",
    LimitElsewhere "limit-elsewhere": "other services and the registry use up one limit together",
    Compressor "compressor": "some clients check the digest of what they received without decompressing it",
    BuilderCluster "builder-cluster": "the filter asks the builder by the name of its cluster",
    RouteTimeout "route-timeout": "a large layer on a slow line takes longer than any limit on the whole answer, and Envoy's default is 15 s",
    IdleTimeout "idle-timeout": "it must spare requests that are held for a build, and end those that wait for a dead filter before containerd and Docker give up after 30 s",
    Retries "retries": "the builder says itself when to ask again; retries multiply its load when it is slow",
    Hedging "hedging": "each hedged request costs the builder another one",
    Mirror "mirror": "the copy of a request has the edge's token and tells another service what is pulled",
    MaxDuration "max-duration": "it ends large layers on slow lines",
    RequestTimeout "request-timeout": "it runs while a request is held for a build",
    Paths "paths": "the filter then judges other paths than clients sent, and spellings that it refuses become names",
    RemoteAddress "remote-address": "clients then choose their own addresses, and the ids of their requests in the audit log",
    RequestId "request-id": "the audit log finds a refusal by the request's id, so clients must not choose it",
    DelayedClose "delayed-close": "podman and skopeo close connections while they still read; by default Envoy cuts them off after a second",
    Http2 "http2": "Envoy buffers up to a window of each stream that a client does not read, 16 MiB by default",
    ListenerBuffer "listener-buffer": "Envoy buffers up to this limit for each slow connection, 1 MiB by default",
    ClusterBuffer "cluster-buffer": "Envoy buffers up to this limit for each blob that a client reads slowly; with too little, blobs are slow",
    CircuitBreakers "circuit-breakers": "a callout is open for each image that is built, so Envoy's default of 1024 is soon used up and pulls fail",
    ClusterIdle "cluster-idle": "the builder closes idle connections after 30 s, and a request at that moment fails",
    ClusterProtocol "cluster-protocol": "the builder speaks HTTP/1.1 only",
    OutlierDetection "outlier-detection": "an image that can't be built is no sign of a broken builder; without it, cached images are all that is left",
    HealthChecks "health-checks": "a builder that is slow or restarts is taken out, and requests fail at once that could wait",
    Overload "overload": "without limits, clients can take all memory of Envoy",
    ConnectionLimit "connection-limit": "each client that waits for an image may have a connection",
    AdminAddress "admin-address": "a build may reach ports of the machine, and whoever reaches this page reads the configuration and can end Envoy",
    ReplyNotBound "reply-not-bound": "clients of other services would get a registry's errors",
    ReplyRewrites "reply-rewrites": "the filter's answers are local replies, so this changes them too",
    ReplyFormat "reply-format": "clients show errors of Envoy itself as they are, unless they have a registry's form",
    LogWithQuery "log-with-query": "queries of registry requests may have tokens",
    LogWithoutFacts "log-without-facts": "only the filter knows which image a request was for, and what the policy decided",
    Tracing "tracing": "spans have the whole URL, and queries of registry requests may have tokens",
    TokenHeader "token-header": "the builder takes a request with this token for one that the policy has allowed",
    LoginHeaders "login-headers": "the builder logs and limits logins by these headers, so clients must not choose them",
    TokenInText "token-in-text": "whoever reads the file or /config_dump has the token",
}

/// Something that is missing or dangerous.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) check: &'static str,
    /// The listener, the route and the like.
    #[serde(rename = "where")]
    pub(super) place: String,
    /// The file and the path in it.
    pub(super) path: String,
    pub(super) what: String,
    pub(super) why: &'static str,
    /// What to do.
    pub(super) remedy: String,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

/// Where something was found: a name that people use, and the path.
pub(super) struct At<'s>(pub(super) String, pub(super) &'s str);

impl Findings {
    pub(super) fn add(
        &mut self,
        severity: Severity,
        check: Check,
        At(place, path): At<'_>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Finding {
            severity,
            check: check.name(),
            place,
            path: path.to_owned(),
            what: what.into(),
            why: check.why(),
            remedy: remedy.into(),
        });
    }

    pub(super) fn error(
        &mut self,
        check: Check,
        at: At<'_>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Error, check, at, what, remedy);
    }

    pub(super) fn warning(
        &mut self,
        check: Check,
        at: At<'_>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Warning, check, at, what, remedy);
    }

    pub(super) fn note(
        &mut self,
        check: Check,
        at: At<'_>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Note, check, at, what, remedy);
    }

    /// The worst first; each once, however many routes led to it.
    pub(super) fn finish(self) -> Report {
        let mut findings: Vec<Finding> = Vec::new();
        for finding in self.0 {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        findings.sort_by_key(|one| one.severity);
        let count = |severity| {
            findings
                .iter()
                .filter(|one| one.severity == severity)
                .count()
        };
        Report {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            findings,
        }
    }
}

/// All findings.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) errors: usize,
    pub(super) warnings: usize,
    pub(super) findings: Vec<Finding>,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.findings {
            let Finding {
                severity,
                check,
                place,
                path,
                what,
                why,
                remedy,
            } = one;
            writeln!(f, "{severity} {check}: {place}: {what}")?;
            writeln!(f, "  at   {path}")?;
            writeln!(f, "  why  {why}")?;
            writeln!(f, "  do   {remedy}")?;
        }
        let plural = |number: usize| if number == 1 { "" } else { "s" };
        let Self {
            errors, warnings, ..
        } = self;
        writeln!(
            f,
            "{errors} error{}, {warnings} warning{}",
            plural(*errors),
            plural(*warnings)
        )
    }
}
