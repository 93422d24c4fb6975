//! The deployment `envoy/corporate-gateway`: TLS and a login before the filter, and the builder that
//! gives out the tokens. Certificate and users are those that `make gateway` makes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::envoy_config::{self, BUILDER, EnvoyConfig};
use crate::live::admin::Admin;
use crate::live::builder::{self, Builder};
use crate::live::http::Response;
use crate::live::process::{Process, run};
use crate::live::{envoy, install, poll, ports, scratch};

/// How to start a gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Envoy's release.
    pub version: &'static str,
    /// Variables of the builder besides.
    pub environment: Vec<(&'static str, String)>,
    /// Envoy's configuration.
    pub config: EnvoyConfig,
    /// Whether another Envoy can take its place, by a hot restart.
    pub can_be_replaced: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: install::ENVOY_VERSIONS[0],
            environment: Vec::new(),
            config: EnvoyConfig::corporate_gateway(),
            can_be_replaced: false,
        }
    }
}

/// A gateway on loopback, with the users `alice` of `data-team` and `bob` of `web-team`.
#[derive(Debug)]
pub struct Gateway {
    envoy: Process,
    version: &'static str,
    config: PathBuf,
    /// What is behind it.
    pub builder: Builder,
    port: u16,
    admin: Admin,
    log: PathBuf,
    // Last: it is removed when nothing writes to it any more.
    state: TempDir,
}

impl Gateway {
    /// Starts a builder and an Envoy, and waits until a login works.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(settings: &Settings) -> Result<Self> {
        let state = scratch::folder("gateway-")?;
        let files = state.path().join("gateway");
        make_demo(state.path(), &files)?;
        let mut builder = builder::Settings::new(state.path())?
            .with("NIXGATE_HTPASSWD", files.join("htpasswd"))
            .with("NIXGATE_GROUPS", files.join("groups"));
        for (name, value) in &settings.environment {
            builder = builder.with(name, value);
        }
        let builder = Builder::start(&builder)?;
        let (port, admin) = (ports::free()?, Admin::new()?);
        let config = settings
            .config
            .clone()
            .module(&install::filter()?)
            .listen(0, port)
            .realm(port)
            .upstream(BUILDER, builder.port())
            .upstream("nixgate_login", builder.port())
            .admin(admin.socket())
            .certificate(&certificate(&files)?)
            .write(&files)?;
        let log = state.path().join("envoy.log");
        // Processes of one number know each other; the port is nobody else's.
        let base = port.to_string();
        let options = match settings.can_be_replaced {
            true => &["--base-id", base.as_str()][..],
            false => &["--disable-hot-restart"],
        };
        let envoy = envoy::launch_with(
            options,
            builder::TOKEN,
            settings.version,
            2,
            &config,
            &admin,
            &log,
        )?;
        let gateway = Self {
            envoy,
            version: settings.version,
            config,
            builder,
            port,
            admin,
            log,
            state,
        };
        // Envoy may not have the builder's keys yet.
        let token = gateway.token("alice")?;
        poll::until("Envoy takes the builder's tokens", || {
            let answer = gateway.get("/v2/", Some(&token)).ok()?;
            (answer.status == StatusCode::OK).then_some(())
        })?;
        Ok(gateway)
    }

    /// Starts another Envoy with another token, which takes the first one's place, and waits until
    /// that one has ended. The gateway lives as long as what this returns.
    ///
    /// # Errors
    /// When it doesn't start, or the first one doesn't end.
    pub fn replace_envoy(&self, token: &str) -> Result<Process> {
        let base = self.port.to_string();
        let options = ["--base-id", &base, "--restart-epoch", "1"];
        let soon = ["--drain-time-s", "1", "--parent-shutdown-time-s", "3"];
        let second = envoy::launch_with(
            &[&options[..], &soon].concat(),
            token,
            self.version,
            2,
            &self.config,
            &self.admin,
            &self.log.with_extension("second"),
        )?;
        // Nobody has waited for it, so it is still listed.
        let status = format!("/proc/{}/status", self.envoy.id());
        poll::until("the first Envoy has ended", || {
            let status = fs::read_to_string(&status).ok()?;
            status.contains("State:\tZ").then_some(())
        })?;
        Ok(second)
    }

    /// Where clients log in.
    pub fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What a client pulls to get these packages.
    pub fn image(&self, packages: &str) -> String {
        format!("{}/{packages}", self.registry())
    }

    /// Certificate, users and groups.
    pub fn files(&self) -> PathBuf {
        self.state.path().join("gateway")
    }

    /// The folder with the authority's certificate, and nothing else.
    pub fn ca(&self) -> PathBuf {
        self.files().join("ca")
    }

    /// The key that the builder signs with.
    pub fn token_key(&self) -> PathBuf {
        self.state.path().join("builder/token-key.pem")
    }

    /// Exchanges the certificate for one of another authority, which clients trust from then on.
    ///
    /// # Errors
    /// When it can't be made or put there.
    pub fn renew_certificate(&self) -> Result<()> {
        let new = self.state.path().join("new");
        make_demo(self.state.path(), &new)?;
        for file in ["ca/ca.crt", "tls/tls.key", "tls/tls.crt"] {
            fs::rename(new.join(file), self.files().join(file))?;
        }
        Ok(())
    }

    /// A user's password.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn password(&self, user: &str) -> Result<String> {
        let file = self.files().join(format!("{user}.password"));
        fs::read_to_string(file).with_context(|| format!("no password of {user}"))
    }

    /// Envoy's admin page.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// The file of Envoy's log, requests included.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// What Envoy logged so far, requests included.
    pub fn log(&self) -> String {
        self.envoy.log()
    }

    /// A token for a user, by the user's password.
    ///
    /// # Errors
    /// When there is none.
    pub fn token(&self, user: &str) -> Result<String> {
        let answer = self.log_in(user, &self.password(user)?)?;
        let body: Value = serde_json::from_slice(&answer.body)?;
        let token = body["token"].as_str().map(str::to_owned);
        token.with_context(|| format!("no token: {body}"))
    }

    /// What the token endpoint says to this user and password.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn log_in(&self, user: &str, password: &str) -> Result<Response> {
        let credentials = format!("{user}:{password}");
        self.curl("/v2/token?service=nixgate", &["--user", &credentials])
    }

    /// GET with a token.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str, token: Option<&str>) -> Result<Response> {
        self.request(&Method::GET, path, token, &[])
    }

    /// The manifest of an image, or why there is none, once it is built.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn manifest(&self, packages: &str, token: &str) -> Result<Response> {
        let path = format!("/v2/{packages}/manifests/latest");
        poll::until("the image is built", || {
            let answer = self.get(&path, Some(token));
            let held = |answer: &Response| answer.status == StatusCode::TEMPORARY_REDIRECT;
            (!answer.as_ref().is_ok_and(held)).then_some(answer)
        })?
    }

    /// A request with a token and headers, written `name: value`.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn request(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        headers: &[&str],
    ) -> Result<Response> {
        let bearer = token.map(|token| format!("authorization: Bearer {token}"));
        let mut options = match *method {
            Method::HEAD => vec!["--head"],
            _ => vec!["--request", method.as_str()],
        };
        for header in bearer
            .iter()
            .map(String::as_str)
            .chain(headers.iter().copied())
        {
            options.extend(["--header", header]);
        }
        self.curl(path, &options)
    }

    /// A request by curl, which verifies the certificate.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn curl(&self, path: &str, options: &[&str]) -> Result<Response> {
        let url = format!("https://{}{path}", self.registry());
        curl(&url, &self.ca().join("ca.crt"), options)
    }
}

/// A request by curl, which verifies the certificate by that of an authority.
pub(super) fn curl(
    url: &str,
    authority: &Path,
    options: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Response> {
    let head = scratch::folder("curl-")?;
    let (head_file, body_file) = (head.path().join("head"), head.path().join("body"));
    let options: Vec<_> = options.into_iter().collect();
    run(Command::new("curl")
        // No file of the user's, and no proxy.
        .args(["--disable", "--noproxy", "*", "--silent", "--show-error"])
        .args(["--path-as-is", "--cacert"])
        .arg(authority)
        .arg("--dump-header")
        .arg(&head_file)
        .arg("--output")
        .arg(&body_file)
        .args(&options)
        .arg(url))?;
    let head = fs::read_to_string(head_file)?;
    let body = match options.iter().any(|option| option.as_ref() == "--head") {
        // curl writes the head there too.
        true => Vec::new(),
        // An answer without a body leaves no file.
        false => fs::read(body_file).unwrap_or_default(),
    };
    parse(&head, body)
}

fn parse(head: &str, body: Vec<u8>) -> Result<Response> {
    // curl may have followed redirects.
    let last = head.trim_end().rsplit("\r\n\r\n").next();
    let mut lines = last.unwrap_or_default().lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: HeaderName = name.parse()?;
        headers.append(name, HeaderValue::from_str(value.trim())?);
    }
    Ok(Response {
        status: status.context("no status")?.parse()?,
        headers,
        body: body.into(),
    })
}

/// What `make gateway` makes before it starts anything.
pub(super) fn make_demo(state: &Path, files: &Path) -> Result<()> {
    fs::create_dir_all(files)?;
    run(Command::new("bash")
        .args([
            "-c",
            ". scripts/common.sh; . envoy/corporate-gateway/demo.sh; \
             make_certificate; make_users",
        ])
        .env("STATE_DIR", state)
        .env("FILES", files)
        .current_dir(install::root()))?;
    Ok(())
}

/// Writes the shipped `certificate.yaml` with the certificate in `tls`, and returns its path.
fn certificate(files: &Path) -> Result<PathBuf> {
    let file = files.join("certificate.yaml");
    fs::write(&file, envoy_config::certificate(&files.join("tls")))?;
    Ok(file)
}
