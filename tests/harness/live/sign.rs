//! A sign from inside of a build: a named pipe, which a build may write to though it can write no file
//! outside of its sandbox.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::live::poll;
use crate::live::process::run;

/// `O_NONBLOCK`, as Linux has it on all platforms that are tested.
const NONBLOCK: i32 = 0o4000;

/// The end that is read.
#[derive(Debug)]
pub struct Sign {
    pipe: File,
    given: AtomicBool,
}

impl Sign {
    /// Makes the pipe. A build gives the sign by `echo > $path`.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new(path: &Path) -> Result<Self> {
        run(Command::new("mkfifo").arg("--mode=0666").arg(path))?;
        // For writing as well, so that builds never wait for a reader, nor meet none.
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(NONBLOCK);
        let pipe = options
            .open(path)
            .with_context(|| path.display().to_string())?;
        Ok(Self {
            pipe,
            given: AtomicBool::new(false),
        })
    }

    /// Waits until it was given, now or before.
    ///
    /// # Errors
    /// When it isn't.
    pub fn wait(&self, what: &str) -> Result<()> {
        poll::until(what, || {
            if let Ok(1..) = (&self.pipe).read(&mut [0; 64]) {
                self.given.store(true, Ordering::Relaxed);
            }
            self.given.load(Ordering::Relaxed).then_some(())
        })
    }
}
