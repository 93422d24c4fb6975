//! Errors of host calls.

use std::fmt;

/// The status of a failed host call (ABI 0.2.1, `proxy_status_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The value does not exist.
    NotFound,
    /// An argument is invalid, for example a context that has ended or an unknown cluster.
    BadArgument,
    /// The queue is empty.
    Empty,
    /// The value has changed.
    CasMismatch,
    /// The host failed.
    InternalFailure,
    /// Any other status.
    Other(u32),
}

impl Status {
    pub(super) const fn new(number: u32) -> Self {
        match number {
            1 => Self::NotFound,
            2 => Self::BadArgument,
            7 => Self::Empty,
            8 => Self::CasMismatch,
            10 => Self::InternalFailure,
            other => Self::Other(other),
        }
    }
}

/// A host call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    /// The function of the ABI.
    pub(crate) call: &'static str,
    /// Why.
    pub(crate) status: Status,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, status } = self;
        write!(f, "the host call {call} failed with {status:?}")
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Turns a status into a result.
pub(super) fn check(call: &'static str, status: u32) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    let status = Status::new(status);
    Err(Error { call, status })
}
