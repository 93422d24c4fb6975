//! Programs that run beside a test, and end with it.
//!
//! Each has its own process group and log file. The group is stopped when its [`Process`] is dropped, and by
//! the kernel when the test binary dies first (pdeathsig).

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result, anyhow, bail};

use crate::live::poll;

/// How long a program has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// How much of a log a message has.
const LAST_LINES: usize = 30;

/// A program in the background.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to the file `log`.
    ///
    /// # Errors
    /// When the program or the log file can't be opened.
    pub fn start(command: &Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
        // By its path: the program may be given a PATH of its own.
        let mut wrapped = Command::new("/usr/bin/setpriv");
        wrapped.args(["--pdeathsig", "TERM", "--"]);
        // What a shell starts in the background ignores SIGINT, and so do the tests of a test run
        // that was started so, and all that they start, unless they are told otherwise.
        wrapped.args(["/usr/bin/env", "--default-signal=INT", "--"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        wrapped
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .process_group(0);
        let child = spawn(wrapped).with_context(|| format!("can't start {command:?}"))?;
        Ok(Self {
            child,
            log: log.to_path_buf(),
        })
    }

    /// The process id, which is that of its group too.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it printed so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `condition` gives a value, such as the first answer of a server.
    ///
    /// # Errors
    /// When the program ends instead, with the last lines of its log, or the condition is not
    /// met for three minutes, naming `what` was waited for.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T> {
        poll::until(what, || {
            if let Some(value) = condition(self) {
                return Some(Ok(value));
            }
            let status = self.ended().ok().flatten()?;
            let log = self.log();
            // The reason stands at the end. The whole of it can be long: Envoy starts with the
            // names of all that it was built with.
            let from = log.lines().count().saturating_sub(LAST_LINES);
            let last: Vec<_> = log.lines().skip(from).collect();
            Some(Err(anyhow!(
                "it ended with {status} before {what}:\n{}",
                last.join("\n")
            )))
        })?
    }

    /// Its exit status, when it has ended.
    ///
    /// # Errors
    /// When the system can't tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// How much memory it has now, in bytes: `VmRSS` of proc(5).
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib = kib.context("a process without memory")?.parse::<u64>()?;
        Ok(kib << 10)
    }

    /// How much processor time it has used so far, in all its threads.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        // Of each thread: nanoseconds on a processor, then what does not matter here.
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id()))?;
        let times = tasks.map(|task| -> Result<u64> {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let time = text.split(' ').next().unwrap_or_default();
            Ok(time.parse()?)
        });
        Ok(Duration::from_nanos(times.sum::<Result<u64>>()?))
    }

    /// Sends `signal` (such as `INT`) to the process alone.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&self, signal: &str) -> Result<()> {
        kill(signal, &self.id().to_string())
    }

    /// Sends `signal` to its whole group, as a terminal does on Ctrl-C.
    ///
    /// # Errors
    /// When nothing of the group is left.
    pub fn signal_group(&self, signal: &str) -> Result<()> {
        kill(signal, &format!("-{}", self.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        _ = self.signal_group("TERM");
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < GRACE {
            thread::sleep(Duration::from_millis(10));
        }
        _ = self.signal_group("KILL");
        _ = self.child.wait();
    }
}

fn kill(signal: &str, target: &str) -> Result<()> {
    // The shell's own kill: it is everywhere, and std has none.
    let mut command = Command::new("sh");
    command.args(["-c", "kill -s \"$0\" -- \"$1\" 2>/dev/null", signal, target]);
    if !command.status()?.success() {
        bail!("there is no process {target} to send {signal} to");
    }
    Ok(())
}

/// Spawns from a thread that lives as long as the test binary: the kernel sends a child its death
/// signal when the *thread* that spawned it ends, and each test has its own.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The caller waits for the answer.
                _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, outcome) = channel();
    spawner
        .send((command, answer))
        .map_err(|_| io::Error::other("the spawner has ended"))?;
    outcome
        .recv()
        .map_err(|_| io::Error::other("the spawner has ended"))?
}

/// Runs `command` to its end and returns what it printed on stdout.
///
/// # Errors
/// When it fails, with what it printed on stderr.
pub fn run(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't start {command:?}"))?;
    if !status.success() {
        bail!(
            "{command:?}: {status}\n{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        );
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
