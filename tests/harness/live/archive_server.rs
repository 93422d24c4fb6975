//! An HTTP server with one archive, which answers as the test says and remembers what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use parking_lot::{Condvar, Mutex};

/// How long half of an archive is all there is, if the test never opens the gate.
const LONGEST: Duration = Duration::from_secs(120);

/// A request, and the status of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Its `If-None-Match`.
    pub condition: Option<String>,
    /// Of the answer.
    pub status: u16,
}

/// How the server answers.
#[derive(Debug, Default)]
pub struct Answers {
    /// The archive.
    pub body: Vec<u8>,
    /// Its entity tag; a server without one does not know whether the archive has changed.
    pub entity_tag: Option<String>,
    /// Whether it says `304` to everyone, also to those who have nothing.
    pub is_lying: bool,
    /// Whether it sends half of the archive, and the rest when this is false again.
    pub is_gated: bool,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<Answers>,
    changed: Condvar,
    asked: Mutex<Vec<Asked>>,
}

/// See the module.
#[derive(Debug)]
pub struct ArchiveServer {
    port: u16,
    shared: Arc<Shared>,
}

impl ArchiveServer {
    /// Listens on loopback, until the tests end.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(answers: Answers) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers),
            ..Shared::default()
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&of_thread);
                // A client that hangs up is its own business.
                thread::spawn(move || drop(shared.answer(stream)));
            }
        });
        Ok(Self { port, shared })
    }

    /// The URL of the folder with the archive, whose name may be any.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Changes how it answers.
    pub fn change(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.shared.answers.lock());
        self.shared.changed.notify_all();
    }

    /// All that it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().clone()
    }

    /// How often the archive was sent.
    pub fn sent(&self) -> usize {
        let is_sent = |asked: &&Asked| asked.method == "GET" && asked.status == 200;
        self.asked().iter().filter(is_sent).count()
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(&stream).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let method = first.split(' ').next().unwrap_or_default().to_owned();
        let mut condition = None;
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("if-none-match")
            {
                condition = Some(value.trim().to_owned());
            }
        }
        let answers = self.answers.lock();
        let (tag, body) = (answers.entity_tag.clone(), answers.body.clone());
        let is_same = answers.is_lying || (tag.is_some() && tag == condition);
        drop(answers);
        let status = if is_same { 304 } else { 200 };
        let is_sent = method == "GET" && status == 200;
        self.asked.lock().push(Asked {
            method,
            condition,
            status,
        });
        let mut head = format!("HTTP/1.1 {status} .\r\nConnection: close\r\n");
        if status == 200 {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        if let Some(tag) = tag {
            head += &format!("ETag: {tag}\r\n");
        }
        let mut stream = &stream;
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if is_sent {
            let (first, rest) = body.split_at(body.len() / 2);
            stream.write_all(first)?;
            let mut answers = self.answers.lock();
            let gate = |answers: &mut Answers| answers.is_gated;
            self.changed.wait_while_for(&mut answers, gate, LONGEST);
            drop(answers);
            stream.write_all(rest)?;
        }
        Ok(())
    }
}
