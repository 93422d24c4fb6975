//! A binary cache over HTTP that fails on order.
//!
//! Its files are written by `nix copy`: narinfos with a signature, and uncompressed NARs. The server answers
//! each connection with one response, so that a fault holds from the next request on.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixgate_core::distribution::Digest;
use parking_lot::Mutex;

use crate::live::install::NixPrograms;
use crate::live::ports;
use crate::live::process::run;

/// How often a thread that waits looks whether it should end.
const TICK: Duration = Duration::from_millis(10);

/// What the cache does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing listens.
    Down,
    /// Each request is answered with 500.
    Error,
    /// So are requests for narinfos.
    NarinfoError,
    /// So are requests for NARs.
    NarError,
    /// No request is ever answered.
    Hangs,
    /// No request for a NAR is.
    NarHangs,
    /// A NAR comes in pieces, with a pause after each, but comes.
    Slow,
    /// A byte of each NAR is another one: in its middle,
    Corrupt,
    /// in the length of a word, which Nix then takes memory for,
    CorruptLength,
    /// in the zeros behind a word.
    CorruptPadding,
    /// The connection ends in the middle of a NAR.
    Cut,
    /// It has no narinfo.
    NoNarinfo,
    /// It has narinfos, and no NAR.
    NoNar,
    /// Its narinfos have no signature.
    Unsigned,
    /// They have one by a key that nobody trusts.
    WrongKey,
}

/// All of them.
pub const FAULTS: [Fault; 15] = [
    Fault::Down,
    Fault::Error,
    Fault::NarinfoError,
    Fault::NarError,
    Fault::Hangs,
    Fault::NarHangs,
    Fault::Slow,
    Fault::Corrupt,
    Fault::CorruptLength,
    Fault::CorruptPadding,
    Fault::Cut,
    Fault::NoNarinfo,
    Fault::NoNar,
    Fault::Unsigned,
    Fault::WrongKey,
];

/// A cache that is served until this is dropped.
#[derive(Debug)]
pub struct BinaryCache {
    shared: Arc<Shared>,
    server: Option<thread::JoinHandle<()>>,
    key: String,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    folder: PathBuf,
    fault: Mutex<Option<Fault>>,
    asked: Mutex<Vec<String>>,
    ends: AtomicBool,
}

impl BinaryCache {
    /// Copies paths with all that they need into a cache in a folder, and serves it.
    ///
    /// # Errors
    /// When Nix can't write it.
    pub fn start(folder: &Path, nix: &NixPrograms, paths: &[PathBuf]) -> Result<Self> {
        Self::of(folder, nix, paths, None)
    }

    /// The same for paths that nobody has built: each is a file with its own name, and needs nothing.
    ///
    /// # Errors
    /// When Nix can't write it.
    pub fn made_up(folder: &Path, nix: &NixPrograms, paths: &[PathBuf]) -> Result<Self> {
        let root = folder.join("made-up");
        let mut registration = String::new();
        for path in paths {
            let file = root.join(path.strip_prefix("/")?);
            fs::create_dir_all(file.join("bin"))?;
            let name = path.file_name().context("a name")?.to_string_lossy();
            // One for each, so that layers differ.
            fs::write(file.join("bin").join(&*name), &*name)?;
            let nar = nix
                .command("nix-store")
                .arg("--dump")
                .arg(&file)
                .output()?
                .stdout;
            let (path, hash, size) = (path.display(), Digest::of(&nar).hex(), nar.len());
            registration.push_str(&format!("{path}\n{hash}\n{size}\n\n0\n"));
        }
        let store = format!("local?root={}", root.display());
        let mut register = nix.command("nix-store");
        register.args(["--store", &store, "--load-db"]);
        let mut register = register.stdin(Stdio::piped()).spawn()?;
        let mut stdin = register.stdin.take().context("its stdin")?;
        stdin.write_all(registration.as_bytes())?;
        drop(stdin);
        ensure!(register.wait()?.success(), "Nix registers no paths");
        Self::of(folder, nix, paths, Some(&store))
    }

    fn of(folder: &Path, nix: &NixPrograms, paths: &[PathBuf], from: Option<&str>) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let key = |name: &str| -> Result<(PathBuf, String)> {
            let (secret, public) = (folder.join(format!("{name}.secret")), folder.join(name));
            run(nix
                .command("nix-store")
                .args(["--generate-binary-cache-key", name])
                .args([&secret, &public]))?;
            Ok((secret, fs::read_to_string(public)?.trim().to_owned()))
        };
        let (secret, public) = key("cache.example-1")?;
        let (stranger, _) = key("stranger.example-1")?;
        for (name, secret) in [
            ("signed", Some(&secret)),
            ("stranger", Some(&stranger)),
            ("unsigned", None),
        ] {
            let store = folder.join(name);
            let secret = secret.map(|key| format!("&secret-key={}", key.display()));
            let url = format!(
                "file://{}?compression=none{}",
                store.display(),
                secret.unwrap_or_default()
            );
            run(nix
                .command("nix")
                .args(["--extra-experimental-features", "nix-command"])
                .args(["copy", "--to", &url])
                .args(from.into_iter().flat_map(|store| ["--from", store]))
                .args(paths))?;
        }
        let shared = Arc::new(Shared {
            port: ports::free()?,
            folder,
            fault: Mutex::default(),
            asked: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let listener = shared.listen()?;
        let server = Arc::clone(&shared);
        Ok(Self {
            server: Some(thread::spawn(move || server.serve(listener))),
            shared,
            key: public,
        })
    }

    /// From now on it does this wrong; nothing, with none. Returns once nobody listens, or somebody does.
    ///
    /// # Errors
    /// When it does not get its port back.
    pub fn set(&self, fault: Option<Fault>) -> Result<()> {
        *self.shared.fault.lock() = fault;
        let listens = || TcpStream::connect(("127.0.0.1", self.shared.port)).is_ok();
        crate::live::poll::until("the cache takes its fault", || {
            (listens() != (fault == Some(Fault::Down))).then_some(())
        })
    }

    /// Options by which Nix uses it, to be appended to others.
    pub fn options(&self) -> String {
        format!(
            ";substituters={};trusted-public-keys={}",
            self.url(),
            self.key
        )
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.shared.port)
    }

    /// The files that were asked for so far, and forgets them.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.asked.lock())
    }
}

impl Drop for BinaryCache {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

impl Shared {
    fn fault(&self) -> Option<Fault> {
        *self.fault.lock()
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    fn listen(&self) -> Result<TcpListener> {
        let listener = TcpListener::bind(("127.0.0.1", self.port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut listener = Some(listener);
        while !self.ends() {
            if self.fault() == Some(Fault::Down) {
                listener = None;
            } else if listener.is_none() {
                listener = self.listen().ok();
            }
            match listener.as_ref().map(TcpListener::accept) {
                Some(Ok((stream, _))) => {
                    let shared = Arc::clone(&self);
                    thread::spawn(move || shared.answer(stream));
                }
                _ => thread::sleep(TICK),
            }
        }
    }

    /// A caller that hangs up ends it, too.
    fn answer(&self, stream: TcpStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().context("a request")??;
        let path = request.split(' ').nth(1).context("a path")?;
        let file = path.trim_start_matches('/').to_owned();
        while !lines.next().context("a header")??.is_empty() {}
        self.asked.lock().push(file.clone());
        let head = request.starts_with("HEAD ");
        self.respond(stream, &file, head)
    }

    fn respond(&self, mut stream: TcpStream, file: &str, head: bool) -> Result<()> {
        let is_nar = file.starts_with("nar/");
        let is_narinfo = file.ends_with(".narinfo");
        let fault = self.fault();
        match fault {
            Some(Fault::Error) => return status(&mut stream, "500 Internal Server Error"),
            Some(Fault::NarinfoError) if is_narinfo => {
                return status(&mut stream, "500 Internal Server Error");
            }
            Some(Fault::NarError) if is_nar => {
                return status(&mut stream, "500 Internal Server Error");
            }
            Some(Fault::NoNarinfo) if is_narinfo => return status(&mut stream, "404 Not Found"),
            Some(Fault::NoNar) if is_nar => return status(&mut stream, "404 Not Found"),
            Some(Fault::Hangs) => return self.hang(fault),
            Some(Fault::NarHangs) if is_nar => return self.hang(fault),
            _ => {}
        }
        let store = self.folder.join(match fault {
            Some(Fault::Unsigned) => "unsigned",
            Some(Fault::WrongKey) => "stranger",
            _ => "signed",
        });
        let Ok(mut content) = fs::read(store.join(file)) else {
            return status(&mut stream, "404 Not Found");
        };
        let middle = content.len() / 2;
        // `nix-archive-1`, and then `(`: each has its length before it, and fills words of eight bytes.
        let altered = match fault {
            Some(Fault::Corrupt) => Some(middle),
            Some(Fault::CorruptLength) => Some(28),
            Some(Fault::CorruptPadding) => Some(33),
            _ => None,
        };
        if let Some(at) = altered.filter(|_| is_nar) {
            content[at] ^= 0xff;
        }
        let length = content.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )?;
        match fault {
            _ if head => {}
            Some(Fault::Cut) if is_nar => stream.write_all(&content[..middle])?,
            Some(Fault::Slow) if is_nar => {
                for piece in content.chunks(length.div_ceil(8)) {
                    stream.write_all(piece)?;
                    thread::sleep(Duration::from_millis(100));
                }
            }
            _ => stream.write_all(&content)?,
        }
        Ok(stream.shutdown(Shutdown::Both)?)
    }

    /// Answers nothing for as long as this fault is the cache's.
    fn hang(&self, fault: Option<Fault>) -> Result<()> {
        while !self.ends() && self.fault() == fault {
            thread::sleep(TICK);
        }
        Ok(())
    }
}

fn status(stream: &mut TcpStream, line: &str) -> Result<()> {
    write!(
        stream,
        "HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    Ok(stream.shutdown(Shutdown::Both)?)
}
