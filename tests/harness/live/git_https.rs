//! A host of repositories and archives over https, as companies have: nginx before git, with a
//! certificate of a private authority, and a password for all that it has.
//!
//! ```text
//!   git, Nix ── TLS, Basic ──► nginx ──┬── /git/…   fcgiwrap ── git http-backend
//!                                      └── /files/…
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::live::certificate::Certificate;
use crate::live::process::{Process, run};
use crate::live::{ports, scratch};

/// Who may read.
pub const USER: &str = "reader";
/// Their password, which nobody else is to see.
pub const PASSWORD: &str = "pass-word-of-the-reader";

/// The host.
#[derive(Debug)]
pub struct GitHttps {
    _nginx: Process,
    _fcgiwrap: Process,
    certificate: Certificate,
    port: u16,
    // Last: they are removed when nothing uses them any more.
    state: TempDir,
    _run: TempDir,
}

impl GitHttps {
    /// Serves the repositories and the files of a folder.
    ///
    /// # Errors
    /// When something does not start, with its log.
    pub fn start(folder: &Path) -> Result<Self> {
        let (state, run_folder) = (scratch::folder("git-https-")?, scratch::run_folder()?);
        let certificate = Certificate::make(&state.path().join("certificate"))?;
        let socket = run_folder.path().join("fcgi");
        let mut fcgiwrap = Command::new("fcgiwrap");
        fcgiwrap
            .arg("-f")
            .arg("-s")
            .arg(format!("unix:{}", socket.display()));
        // A repository is that of the user who runs the tests, whoever had it made.
        fcgiwrap.env("HOME", state.path());
        let mut fcgiwrap = Process::start(&fcgiwrap, &state.path().join("fcgiwrap.log"))?;
        fcgiwrap.until("fcgiwrap listens", |_| socket.exists().then_some(()))?;

        let port = ports::free()?;
        let users = state.path().join("users");
        fs::write(&users, format!("{USER}:{{PLAIN}}{PASSWORD}\n"))?;
        let backend = run(Command::new("git").arg("--exec-path"))?;
        let config = format!(
            "daemon off; worker_processes 1; user root; pid {state}/nginx.pid;
            error_log stderr warn;
            events {{ }}
            http {{
              access_log off;
              client_body_temp_path {state}/body; fastcgi_temp_path {state}/fastcgi;
              server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {certificate}; ssl_certificate_key {key};
                auth_basic git; auth_basic_user_file {users};
                location ~ ^/git(/.*)$ {{
                  fastcgi_pass unix:{socket};
                  fastcgi_param SCRIPT_FILENAME {backend}/git-http-backend;
                  fastcgi_param GIT_PROJECT_ROOT {folder};
                  fastcgi_param GIT_HTTP_EXPORT_ALL 1;
                  fastcgi_param PATH_INFO $1;
                  fastcgi_param REMOTE_USER $remote_user;
                  fastcgi_param REQUEST_METHOD $request_method;
                  fastcgi_param QUERY_STRING $query_string;
                  fastcgi_param CONTENT_TYPE $content_type;
                  fastcgi_param CONTENT_LENGTH $content_length;
                }}
                location /files/ {{ alias {folder}/; }}
              }}
            }}\n",
            state = state.path().display(),
            certificate = certificate.certificate().display(),
            key = certificate.key().display(),
            users = users.display(),
            socket = socket.display(),
            backend = backend.trim(),
            folder = folder.display(),
        );
        let file = state.path().join("nginx.conf");
        fs::write(&file, config)?;
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.arg("-c").arg(&file);
        let mut nginx = Process::start(&nginx, &file.with_extension("log"))?;
        nginx.until("nginx listens", |_| {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        })?;
        Ok(Self {
            _nginx: nginx,
            _fcgiwrap: fcgiwrap,
            certificate,
            port,
            state,
            _run: run_folder,
        })
    }

    /// Where a repository is.
    pub fn repository(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/git/{path}", self.port)
    }

    /// Where the files of a folder are.
    pub fn files(&self, folder: &str) -> String {
        format!("https://127.0.0.1:{}/files/{folder}", self.port)
    }

    /// The certificate of its authority.
    pub fn authority(&self) -> PathBuf {
        self.certificate.authority()
    }

    /// A file of credentials with this password, in a folder that can be a home.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn netrc(&self, password: &str) -> Result<PathBuf> {
        let home = self.state.path().join(format!("home-{password}"));
        fs::create_dir_all(&home)?;
        let netrc = home.join(".netrc");
        let entry = format!("machine 127.0.0.1 login {USER} password {password}\n");
        fs::write(&netrc, entry)?;
        Ok(netrc)
    }
}
