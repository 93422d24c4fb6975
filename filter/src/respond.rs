//! Answers requests and lets them through, for the stream of the effective context: a stream in its
//! own callback, or the root on behalf of one.

use nixgate_core::distribution::{Error, ErrorKind};
use nixgate_core::exchange::{Forward, Reply};
use nixgate_core::wire;
use proxy_wasm::types::{Action, LogLevel};

use crate::edge::ActiveConfig;
use crate::host;
use crate::telemetry::Telemetry;

/// Answers the request by what the worker has, which takes as few calls of the host as can be.
pub(crate) fn repeat(telemetry: &Telemetry, reply: &Reply) -> host::Result<Action> {
    telemetry.note_repeated(&reply.record);
    host::reply(reply)?;
    Ok(Action::Pause)
}

/// Answers the request, which goes no further.
pub(crate) fn reply(telemetry: &Telemetry, reply: &Reply) -> host::Result<Action> {
    answer(telemetry, reply)?;
    Ok(Action::Pause)
}

/// Answers the stream of the effective context. What the client is told is wrong, the operator
/// reads as well.
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
    telemetry.note(&reply.record);
    host::reply(reply)
}

/// Makes a client's request the edge's own: under the builder's name for what it asks, with the
/// token, and without what is none of the builder's business.
pub(crate) fn forward(edge: &ActiveConfig, forward: &Forward) -> host::Result<()> {
    for name in wire::CLIENT_ONLY {
        host::remove_request_header(name)?;
    }
    host::set_request_header(wire::ORIGINAL_PATH, &forward.original_path)?;
    host::set_request_header(":path", &forward.path)?;
    host::set_request_header(wire::TOKEN, &edge.config.token)?;
    edge.telemetry.note(&forward.record);
    Ok(())
}

pub(crate) fn internal_error(message: &str) -> Reply {
    Reply::error(&Error::new(ErrorKind::Internal, message))
}
