//! Every host call of the filter, and nothing else: raw pointers in here, values out there.
//!
//! The SDK's own methods panic on statuses that they don't expect and on headers that are not
//! UTF-8, and a panic takes down the VM with every stream in it. So the functions of the ABI
//! (proxy-wasm 0.2.1) are declared here once more, and a status other than `Ok` is an [`Error`].
//! [`dispatch`] alone goes through the SDK, whose dispatcher panics on the response to a callout
//! that it did not send itself.

#![allow(unsafe_code)]

mod abi;
mod error;

use std::ptr::null_mut;
use std::time::Duration;

use nixgate_core::Seconds;
use nixgate_core::exchange::{Call, Reply};
use proxy_wasm::types::{
    BufferType, LogLevel, MapType, MetricType, Status as SdkStatus, StreamType,
};

use crate::header_map::{self, HeaderMap};
use abi::*;
use error::check;

pub(crate) use error::{Error, Result, Status};

/// `%RESPONSE_CODE_DETAILS%` of the access log, for answers that the filter gives.
const DETAILS: &str = "nixgate";
/// [`reply`] is for HTTP: no gRPC status is meant.
const NO_GRPC_STATUS: i32 = -1;

/// A buffer that the host fills: it allocates by `proxy_on_memory_allocate` and passes the memory
/// on to the filter.
struct Buffer {
    data: *mut u8,
    size: usize,
}

impl Buffer {
    const fn new() -> Self {
        Self {
            data: null_mut(),
            size: 0,
        }
    }

    fn into_vec(self) -> Vec<u8> {
        if self.data.is_null() {
            return Vec::new();
        }
        // SAFETY: the SDK's `proxy_on_memory_allocate` made this memory as a boxed slice of
        // `size` bytes by the global allocator, the host has filled all of it and keeps no
        // pointer to it, and `self` is used up here, so that nothing takes it twice.
        unsafe { Vec::from_raw_parts(self.data, self.size, self.size) }
    }
}

// SAFETY, for every call below that says no more: the pointers come from live references and
// slices with the sizes that go along, the host reads or writes them before it returns and keeps
// none, and it calls nothing in the VM meanwhile but the allocator.

/// Writes to Envoy's log. That this itself fails could be told to nobody.
pub(crate) fn log(level: LogLevel, message: &str) {
    // SAFETY: as above.
    unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// The time of the wall clock, in whole seconds since the epoch.
pub(crate) fn now() -> Seconds {
    since_epoch().as_secs()
}

/// The time of the wall clock, since the epoch.
pub(crate) fn since_epoch() -> Duration {
    let mut nanoseconds = 0;
    // SAFETY: as above. The call has no way to fail in the ABI; at the epoch all entries would be
    // fresh and no hold be over, which the timeouts of callouts and routes still bound.
    unsafe { proxy_get_current_time_nanoseconds(&raw mut nanoseconds) };
    Duration::from_nanos(nanoseconds)
}

/// 16 bytes that no other VM has.
pub(crate) fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // SAFETY: as above.
    check("random_get", unsafe {
        random_get(bytes.as_mut_ptr(), bytes.len())
    })?;
    Ok(bytes)
}

/// Makes the calls that follow speak of another context, until the present callback ends.
///
/// # Errors
/// [`Status::BadArgument`] when that context has gone.
pub(crate) fn set_effective_context(context: u32) -> Result<()> {
    // SAFETY: no pointers.
    let status = unsafe { proxy_set_effective_context(context) };
    check("proxy_set_effective_context", status)
}

fn buffer(buffer: BufferType, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Buffer::new();
    // SAFETY: as above.
    let status = unsafe {
        proxy_get_buffer_bytes(
            buffer as u32,
            0,
            size,
            &raw mut bytes.data,
            &raw mut bytes.size,
        )
    };
    match check("proxy_get_buffer_bytes", status) {
        // An empty buffer and none are one to the reader; hosts differ in what they say.
        Err(error) if error.status != Status::NotFound => Err(error),
        _ => Ok(bytes.into_vec()),
    }
}

/// The plugin's configuration, of this size in bytes.
pub(crate) fn plugin_configuration(size: usize) -> Result<Vec<u8>> {
    buffer(BufferType::PluginConfiguration, size)
}

/// The body of the callout's response that is being handed over, of this size in bytes.
pub(crate) fn callout_body(size: usize) -> Result<Vec<u8>> {
    buffer(BufferType::HttpCallResponseBody, size)
}

fn headers(map: MapType) -> Result<HeaderMap> {
    let mut bytes = Buffer::new();
    // SAFETY: as above.
    let status =
        unsafe { proxy_get_header_map_pairs(map as u32, &raw mut bytes.data, &raw mut bytes.size) };
    check("proxy_get_header_map_pairs", status)?;
    Ok(HeaderMap::new(bytes.into_vec()))
}

/// All headers of the request.
pub(crate) fn request_headers() -> Result<HeaderMap> {
    headers(MapType::HttpRequestHeaders)
}

/// All headers of the callout's response that is being handed over.
pub(crate) fn callout_headers() -> Result<HeaderMap> {
    headers(MapType::HttpCallResponseHeaders)
}

/// Gives a request header one value, in place of all that it had.
pub(crate) fn set_request_header(name: &str, value: &str) -> Result<()> {
    // SAFETY: as above.
    let status = unsafe {
        proxy_replace_header_map_value(
            MapType::HttpRequestHeaders as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    };
    check("proxy_replace_header_map_value", status)
}

/// Removes a request header with all its values, if there is any.
pub(crate) fn remove_request_header(name: &str) -> Result<()> {
    // SAFETY: as above.
    let status = unsafe {
        proxy_remove_header_map_value(
            MapType::HttpRequestHeaders as u32,
            name.as_ptr(),
            name.len(),
        )
    };
    match check("proxy_remove_header_map_value", status) {
        Err(error) if error.status != Status::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Lets a paused request go on to the next filter.
pub(crate) fn continue_request() -> Result<()> {
    // SAFETY: no pointers.
    let status = unsafe { proxy_continue_stream(StreamType::HttpRequest as u32) };
    check("proxy_continue_stream", status)
}

/// Answers the request.
pub(crate) fn reply(reply: &Reply) -> Result<()> {
    let headers = reply.headers.iter();
    let headers = header_map::encode(headers.map(|(name, value)| (*name, value.as_str())));
    // SAFETY: as above.
    let status = unsafe {
        proxy_send_local_response(
            u32::from(reply.status),
            DETAILS.as_ptr(),
            DETAILS.len(),
            reply.body.as_ptr(),
            reply.body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    };
    check("proxy_send_local_response", status)
}

/// A value that all VMs share, and the number by which [`set_shared_data`] tells whether it has
/// changed since. None when nobody has ever set it.
pub(crate) fn shared_data(key: &str) -> Result<Option<(Vec<u8>, u32)>> {
    let mut bytes = Buffer::new();
    let mut cas = 0;
    // SAFETY: as above.
    let status = unsafe {
        proxy_get_shared_data(
            key.as_ptr(),
            key.len(),
            &raw mut bytes.data,
            &raw mut bytes.size,
            &raw mut cas,
        )
    };
    match check("proxy_get_shared_data", status) {
        Ok(()) => Ok(Some((bytes.into_vec(), cas))),
        Err(error) if error.status == Status::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets a value that all VMs share; with `cas` other than 0, only if it has not changed since it
/// was read with that number.
///
/// # Errors
/// [`Status::CasMismatch`] when it has.
pub(crate) fn set_shared_data(key: &str, value: &[u8], cas: u32) -> Result<()> {
    // SAFETY: as above.
    let status =
        unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) };
    check("proxy_set_shared_data", status)
}

/// Makes a statistic, or finds the one of that name.
pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32> {
    let mut metric = 0;
    // SAFETY: as above.
    let status =
        unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut metric) };
    check("proxy_define_metric", status)?;
    Ok(metric)
}

/// Adds to a counter, or adds to a gauge or takes from it.
pub(crate) fn increment(metric: u32, by: i64) -> Result<()> {
    // SAFETY: no pointers.
    check("proxy_increment_metric", unsafe {
        proxy_increment_metric(metric, by)
    })
}

/// Adds a value to a histogram, or sets a gauge.
pub(crate) fn record(metric: u32, value: u64) -> Result<()> {
    // SAFETY: no pointers.
    check("proxy_record_metric", unsafe {
        proxy_record_metric(metric, value)
    })
}

/// What Envoy knows of the stream under a path of names ("attributes" in its documentation), in
/// the encoding that its type has; none when it knows nothing.
pub(crate) fn property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    let mut bytes = Buffer::new();
    // SAFETY: as above.
    let status = unsafe {
        proxy_get_property(
            path.as_ptr(),
            path.len(),
            &raw mut bytes.data,
            &raw mut bytes.size,
        )
    };
    // Whatever the reason is, the value is not known, and unknown values match nothing.
    check("proxy_get_property", status).ok()?;
    Some(bytes.into_vec())
}

/// Notes a fact on the stream, as Envoy's filter state `wasm.<name>`. A path of several parts would
/// become a name with zero bytes in it, which no log format can write.
pub(crate) fn set_filter_state(name: &str, value: &str) -> Result<()> {
    // SAFETY: as above.
    let status =
        unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    check("proxy_set_property", status)
}

/// Has the present root context called by its timer from now on, every so many seconds.
pub(crate) fn set_tick_period(period: Seconds) -> Result<()> {
    let milliseconds = u32::try_from(period.saturating_mul(1000)).unwrap_or(u32::MAX);
    // SAFETY: no pointers.
    let status = unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
    check("proxy_set_tick_period_milliseconds", status)
}

/// Makes a queue whose messages wake the present root context.
pub(crate) fn register_queue(name: &str) -> Result<u32> {
    let mut queue = 0;
    // SAFETY: as above.
    let status = unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut queue) };
    check("proxy_register_shared_queue", status)?;
    Ok(queue)
}

/// Wakes the root context that registered the queue, after the present callback.
pub(crate) fn wake(queue: u32) -> Result<()> {
    let message = [0];
    // SAFETY: as above.
    let status = unsafe { proxy_enqueue_shared_queue(queue, message.as_ptr(), message.len()) };
    check("proxy_enqueue_shared_queue", status)
}

/// Takes one message off the queue; whether there was one.
pub(crate) fn dequeue(queue: u32) -> Result<bool> {
    let mut bytes = Buffer::new();
    // SAFETY: as above.
    let status =
        unsafe { proxy_dequeue_shared_queue(queue, &raw mut bytes.data, &raw mut bytes.size) };
    match check("proxy_dequeue_shared_queue", status) {
        Ok(()) => {
            drop(bytes.into_vec());
            Ok(true)
        }
        Err(error) if error.status == Status::Empty => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends a callout on behalf of the root context whose callback this is, and gives its token.
///
/// Through the SDK, which notes the token for its dispatcher. It panics on statuses other than
/// `Ok`, `BadArgument` and `InternalFailure`. Envoy's `Context::httpCall` gives only these:
/// `BadArgument` for an unknown cluster or a missing pseudo-header, `InternalFailure` when the
/// request ended at once, as without a healthy host. An SDK for an older or newer ABI may differ.
///
/// # Errors
/// These two.
pub(crate) fn dispatch(root: u32, call: &Call) -> Result<u32> {
    // A reply to a stream may have gone before, and the callout must not end with that stream.
    set_effective_context(root)?;
    let headers = call.headers.iter();
    proxy_wasm::hostcalls::dispatch_http_call(
        &call.cluster,
        headers
            .map(|(name, value)| (*name, value.as_str()))
            .collect(),
        None,
        Vec::new(),
        Duration::from_secs(call.timeout),
    )
    .map_err(|status: SdkStatus| Error {
        call: "proxy_http_call",
        status: Status::new(status as u32),
    })
}
