//! The deployment `envoy/ingress-with-login`: a company's Envoy with services of its own, whose
//! configuration comes from files, before nixgate comes to it and with nixgate.
//!
//! ```text
//!   curl, skopeo ── SNI ──► Envoy ──► stubs: app, api, authz, the company's login
//!                             └─────► (its own socket) ──► Envoy with the filter ──► builder
//! ```

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::envoy_config::{parse, shipped};
use crate::live::admin::Admin;
use crate::live::builder::{self, Builder};
use crate::live::http::Response;
use crate::live::issuer::{self, Issuer};
use crate::live::process::{Process, run};
use crate::live::stub_builder::{Act, StubBuilder, response};
use crate::live::{envoy, gateway, install, ports, scratch};

/// The folder of the example.
const EXAMPLE: &str = "ingress-with-login";
/// The files of the company, before nixgate.
const BEFORE: [&str; 8] = [
    "envoy.yaml",
    "lds.yaml",
    "cds.yaml",
    "routes-plain.yaml",
    "routes-api.yaml",
    "routes-web.yaml",
    "certificate-api.yaml",
    "certificate-web.yaml",
];
/// The files that are new or different with nixgate.
const WITH: [&str; 5] = [
    "envoy.yaml",
    "lds.yaml",
    "cds.yaml",
    "routes-web.yaml",
    "filter.yaml",
];
/// The names in the company's certificates, by the chain.
const NAMES: [(&str, &str); 2] = [
    ("api", "DNS:api.corp"),
    ("web", "DNS:app.corp,DNS:admin.corp,DNS:registry.corp"),
];
/// What the service behind `app.corp` answers, long enough to be compressed.
pub const PAGE: &str = "the application, which is more than thirty bytes\n";

/// The company's services and the files of its Envoy; nothing of Envoy runs yet.
#[derive(Debug)]
pub struct Company {
    /// nixgate's builder, with the users `alice` and `bob`.
    pub builder: Builder,
    plain: u16,
    secure: u16,
    services: [u16; 4],
    app: Option<StubBuilder>,
    _others: [StubBuilder; 3],
    /// A token for `api.corp`.
    pub api_token: String,
    /// A token of the same issuer for something else.
    pub other_token: String,
    admin: Admin,
    // Last: it is removed when nothing writes to it any more.
    state: TempDir,
}

impl Company {
    /// Starts the services, with the Debian package set.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(builder::Settings::new)
    }

    /// The same with other settings of the builder, which are given its state folder.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start_with(settings: impl FnOnce(&Path) -> Result<builder::Settings>) -> Result<Self> {
        let state = scratch::folder("company-")?;
        let files = state.path().join("gateway");
        gateway::make_demo(state.path(), &files)?;
        let builder = settings(state.path())?
            .with("NIXGATE_HTPASSWD", files.join("htpasswd"))
            .with("NIXGATE_GROUPS", files.join("groups"));
        let builder = Builder::start(&builder)?;
        let issuer = Issuer::new("company")?;
        let sign = |audience: &str| {
            let expires = issuer::now() + 3600;
            issuer.sign(&json!({
                "iss": "https://login.corp", "aud": audience, "sub": "carol", "exp": expires,
            }))
        };
        let (api_token, other_token) = (sign("api")?, sign("other")?);
        let services = [
            ports::free()?,
            ports::free()?,
            ports::free()?,
            ports::free()?,
        ];
        let [_, api, authz, login] = services;
        let keys = issuer.keys();
        let others = [
            StubBuilder::start(api, |_| {
                Act::Send(response(
                    "200 OK",
                    &[("content-type", "text/plain")],
                    b"api\n",
                ))
            })?,
            StubBuilder::start(authz, |asked| {
                let status = match asked.path.contains("denied") {
                    true => "403 Forbidden",
                    false => "200 OK",
                };
                Act::Send(response(status, &[("x-authz", "asked")], b""))
            })?,
            StubBuilder::start(login, move |_| {
                let json = [("content-type", "application/json")];
                Act::Send(response("200 OK", &json, keys.as_bytes()))
            })?,
        ];
        let company = Self {
            builder,
            plain: ports::free()?,
            secure: ports::free()?,
            services,
            app: None,
            _others: others,
            api_token,
            other_token,
            admin: Admin::new()?,
            state,
        };
        fs::create_dir(company.etc())?;
        company.make_certificates()?;
        Ok(company)
    }

    fn make_certificates(&self) -> Result<()> {
        // `$0` is the folder; each further pair is a chain and its names.
        let script = r#"
            cd "$0"
            key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
            openssl req -x509 $key -days 2 -subj "/CN=company" -keyout ca.key -out ca.crt \
              -addext basicConstraints=critical,CA:TRUE
            while [ $# -gt 0 ]; do
              mkdir -p "etc/tls/$1"
              openssl req $key -subj /CN=service -keyout "etc/tls/$1/tls.key" -out request
              echo "subjectAltName=$2" >extensions
              openssl x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                -extfile extensions -out "etc/tls/$1/tls.crt"
              shift 2
            done"#;
        let mut command = Command::new("bash");
        command.args(["-euc", script]).arg(self.state.path());
        for (chain, names) in NAMES {
            command.args([chain, names]);
        }
        run(&mut command)?;
        Ok(())
    }

    /// Has the service behind `app.corp` answer.
    ///
    /// # Errors
    /// When its port is taken.
    pub fn start_app(&mut self) -> Result<()> {
        self.app = Some(StubBuilder::start(self.services[0], |asked| {
            let kind = [("content-type", "text/plain")];
            Act::Send(match asked.path.as_str() {
                "/missing" => response("404 Not Found", &kind, b"no such page\n"),
                _ if asked.method == "HEAD" => response("200 OK", &kind, b""),
                _ => response("200 OK", &kind, PAGE.as_bytes()),
            })
        })?);
        Ok(())
    }

    /// Ends that service.
    pub fn stop_app(&mut self) {
        self.app = None;
    }

    /// What stands for `/etc/envoy`.
    pub fn etc(&self) -> PathBuf {
        self.state.path().join("etc")
    }

    /// What stands for `/run/envoy`.
    pub fn sockets(&self) -> &Path {
        self.admin.socket().parent().unwrap_or(Path::new("/"))
    }

    /// The files of the users, and of what else is made for trying.
    fn files(&self) -> PathBuf {
        self.state.path().join("gateway")
    }

    /// The certificate of the company's authority.
    pub fn authority(&self) -> PathBuf {
        self.state.path().join("ca.crt")
    }

    /// Envoy's admin page.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// The port without TLS.
    pub fn plain(&self) -> u16 {
        self.plain
    }

    /// The port with TLS.
    pub fn secure(&self) -> u16 {
        self.secure
    }

    /// A text of the example with this machine's paths and ports.
    ///
    /// # Errors
    /// When the filter isn't built.
    pub fn here(&self, text: &str) -> Result<String> {
        let port = |port: u16| format!("port_value: {port} ");
        let [app, api, authz, login] = self.services;
        let module = install::filter()?;
        let replaced = [
            (
                "/etc/envoy/nixgate_filter.wasm".to_owned(),
                module.display().to_string(),
            ),
            ("/etc/envoy".to_owned(), self.etc().display().to_string()),
            (
                "/run/envoy".to_owned(),
                self.sockets().display().to_string(),
            ),
            (port(8080), port(self.plain)),
            (port(8443), port(self.secure)),
            (port(3000), port(app)),
            (port(3001), port(api)),
            (port(3002), port(authz)),
            (port(3003), port(login)),
            (port(8081), port(self.builder.port())),
            (
                "https://registry.corp/".to_owned(),
                format!("https://{}/", self.registry()),
            ),
        ];
        let replaced = replaced.iter();
        Ok(replaced.fold(text.to_owned(), |text, (shown, ours)| {
            text.replace(shown, ours)
        }))
    }

    /// A file of the example before nixgate, for this machine.
    ///
    /// # Errors
    /// When the filter isn't built.
    pub fn file_before(&self, file: &str) -> Result<String> {
        self.here(&shipped(&format!("{EXAMPLE}/before/{file}")))
    }

    /// A file of the example with nixgate, for this machine.
    ///
    /// # Errors
    /// When the filter isn't built.
    pub fn file(&self, file: &str) -> Result<String> {
        self.here(&shipped(&format!("{EXAMPLE}/{file}")))
    }

    /// Renames a new file with this text onto one that Envoy watches.
    ///
    /// # Errors
    /// When it can't.
    pub fn put(&self, file: &str, text: &str) -> Result<()> {
        let file = self.etc().join(file);
        let new = file.with_extension("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, file)?)
    }

    /// Puts all files as they were before nixgate.
    ///
    /// # Errors
    /// When it can't.
    pub fn put_all_before(&self) -> Result<()> {
        _ = fs::remove_file(self.etc().join("filter.yaml"));
        BEFORE
            .iter()
            .try_for_each(|file| self.put(file, &self.file_before(file)?))
    }

    /// Puts all files as they are with nixgate.
    ///
    /// # Errors
    /// When it can't.
    pub fn put_all(&self) -> Result<()> {
        self.put_all_before()?;
        WITH.iter()
            .try_for_each(|file| self.put(file, &self.file(file)?))
    }

    /// Writes the example's new and different files, for this machine, into a folder.
    ///
    /// # Errors
    /// When it can't.
    pub fn write_example(&self, folder: &Path) -> Result<()> {
        for file in WITH {
            fs::write(folder.join(file), self.file(file)?)?;
        }
        Ok(())
    }

    /// Makes all that is delivered static: a bootstrap with the listeners and clusters of the files
    /// that were put.
    ///
    /// # Errors
    /// When a file isn't there.
    pub fn make_static(&self) -> Result<()> {
        let read = |file: &str| -> Result<Value> {
            Ok(parse(&fs::read_to_string(self.etc().join(file))?))
        };
        let mut bootstrap = read("envoy.yaml")?;
        let mut resources = json!({});
        for (key, file) in [("listeners", "lds.yaml"), ("clusters", "cds.yaml")] {
            let mut list = read(file)?["resources"].take();
            for one in list.as_array_mut().context("a list")? {
                one.as_object_mut().context("an object")?.remove("@type");
            }
            resources[key] = list;
        }
        let fields = bootstrap.as_object_mut().context("an object")?;
        fields.remove("dynamic_resources");
        fields.insert("static_resources".to_owned(), resources);
        // JSON is YAML.
        self.put("envoy.yaml", &bootstrap.to_string())
    }

    /// Starts an Envoy with the files that were put, and waits until it listens.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn envoy(&self, version: &str, token: &str) -> Result<Process> {
        self.envoy_with(&["--disable-hot-restart"], version, token, "envoy.log")
    }

    /// The same with other options, and another log.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn envoy_with(
        &self,
        options: &[&str],
        version: &str,
        token: &str,
        log: &str,
    ) -> Result<Process> {
        let (config, log) = (self.etc().join("envoy.yaml"), self.state.path().join(log));
        envoy::launch_with(options, token, version, 2, &config, &self.admin, &log)
    }

    /// `registry.corp` with the port.
    pub fn registry(&self) -> String {
        format!("registry.corp:{}", self.secure)
    }

    /// A user's password.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn password(&self, user: &str) -> Result<String> {
        let file = self.files().join(format!("{user}.password"));
        fs::read_to_string(file).with_context(|| format!("no password of {user}"))
    }

    /// A token of the registry for a user, from the builder itself.
    ///
    /// # Errors
    /// When there is none.
    pub fn token(&self, user: &str) -> Result<String> {
        let credentials = format!("{user}:{}", self.password(user)?);
        let edge = format!("nixgate-token: {}", builder::TOKEN);
        let port = self.builder.port();
        let answer = run(Command::new("curl")
            .args(["--disable", "--noproxy", "*", "--silent", "--show-error"])
            .args(["--user", &credentials, "--header", &edge])
            .arg(format!("http://127.0.0.1:{port}/v2/token")))?;
        let answer: Value = serde_json::from_str(&answer)?;
        let token = answer["token"].as_str().map(str::to_owned);
        token.with_context(|| format!("no token: {answer}"))
    }

    /// A request by curl with TLS, which verifies the certificate.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, host: &str, path: &str, options: &[&str]) -> Result<Response> {
        let url = format!("https://{host}:{}{path}", self.secure);
        self.curl(&url, options)
    }

    /// A request by curl without TLS.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask_plain(&self, host: &str, path: &str, options: &[&str]) -> Result<Response> {
        let url = format!("http://{host}:{}{path}", self.plain);
        self.curl(&url, options)
    }

    /// A request for the registry with a token.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn pull(&self, path: &str, token: &str) -> Result<Response> {
        let bearer = format!("authorization: Bearer {token}");
        self.ask("registry.corp", path, &["--header", &bearer])
    }

    fn curl(&self, url: &str, options: &[&str]) -> Result<Response> {
        // All names are this machine's.
        let here = format!("::127.0.0.1:{}", url_port(url));
        let ca = self.authority();
        let options = options.iter().map(OsStr::new);
        let besides = [OsStr::new("--connect-to"), here.as_ref()];
        gateway::curl(url, &ca, options.chain(besides))
    }
}

fn url_port(url: &str) -> &str {
    let authority = url.split('/').nth(2).unwrap_or_default();
    authority.rsplit(':').next().unwrap_or_default()
}
