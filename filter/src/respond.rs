//! Answers and forwards requests in the effective context: a stream's own callback, or the root's on behalf
//! of a stream.

use nixgate_core::distribution::{Error, ErrorKind};
use nixgate_core::exchange::{Forward, Reply};
use nixgate_core::wire;
use proxy_wasm::types::{Action, LogLevel};

use crate::active_config::ActiveConfig;
use crate::host;
use crate::telemetry::Telemetry;

/// Sends a reply again, with as few host calls as possible.
pub(crate) fn repeat(telemetry: &Telemetry, reply: &Reply) -> host::Result<Action> {
    telemetry.record_repeated(&reply.record);
    host::reply(reply)?;
    Ok(Action::Pause)
}

/// Answers the request and stops it.
pub(crate) fn reply(telemetry: &Telemetry, reply: &Reply) -> host::Result<Action> {
    answer(telemetry, reply)?;
    Ok(Action::Pause)
}

/// Answers the stream of the effective context. Errors go to the log as well.
pub(crate) fn answer(telemetry: &Telemetry, reply: &Reply) -> host::Result<()> {
    if reply.status >= 400 {
        let level = if reply.status >= 500 {
            LogLevel::Warn
        } else {
            LogLevel::Info
        };
        let error = String::from_utf8_lossy(&reply.body);
        host::log(level, &format!("answered {}: {error}", reply.status));
    }
    telemetry.record(&reply.record);
    host::reply(reply)
}

/// Turns a client's request into one of the edge to the builder: with the builder's path and a signature,
/// and without the client's credentials.
pub(crate) fn forward(active: &ActiveConfig, forward: &Forward) -> host::Result<()> {
    for name in wire::CLIENT_ONLY {
        host::remove_request_header(name)?;
    }
    host::set_request_header(wire::ORIGINAL_PATH, &forward.original_path)?;
    host::set_request_header(":path", &forward.path)?;
    let signature = active.sign(forward.method, &forward.path);
    host::set_request_header(wire::TOKEN, &signature)?;
    active.telemetry.record(&forward.record);
    Ok(())
}

pub(crate) fn internal_error(message: &str) -> Reply {
    Reply::error(&Error::new(ErrorKind::Internal, message))
}
