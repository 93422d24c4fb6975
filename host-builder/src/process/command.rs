//! A program to run, as a value.

use std::ffi::OsString;

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Looked up on `PATH`.
    pub(crate) program: &'static str,
    /// Arguments, none of which passes a shell.
    pub(crate) arguments: Vec<OsString>,
}
