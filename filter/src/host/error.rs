//! What a host call comes back with when it fails.

use std::fmt;

/// What a host call came back with instead of `Ok` (ABI 0.2.1, `proxy_status_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// There is no such thing.
    NotFound,
    /// An argument is not valid: a context that has gone, a cluster that does not exist.
    BadArgument,
    /// The queue is empty.
    Empty,
    /// Somebody else has written since.
    CasMismatch,
    /// The host could not do it.
    InternalFailure,
    /// Any other status, by its number.
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

/// Success, when the host says so by this status.
pub(super) fn check(call: &'static str, status: u32) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    let status = Status::new(status);
    Err(Error { call, status })
}
