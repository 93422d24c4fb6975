//! Every host call of the filter: raw pointers inside, values outside.
//!
//! The SDK's methods panic on unexpected statuses and on headers that are not UTF-8, and a panic kills the
//! VM with every stream in it. So the functions of the ABI (proxy-wasm 0.2.1) are declared here again, and
//! a status other than `Ok` is an [`Error`]. Only [`dispatch`] uses the SDK, whose dispatcher panics on the
//! response to a callout that it did not send itself.

#![allow(unsafe_code)]

mod abi;
mod error;

use std::ptr::null_mut;
use std::time::Duration;

use nixgate_core::Seconds;
use nixgate_core::exchange::{Call, Reply};
use nixgate_core::wire;
use proxy_wasm::types::{
    BufferType, LogLevel, MapType, MetricType, Status as SdkStatus, StreamType,
};

use crate::header_map::{self, HeaderMap};
use abi::*;
use error::check;

pub(crate) use error::{Error, Result, Status};

/// `%RESPONSE_CODE_DETAILS%` in the access log for the filter's answers.
const DETAILS: &str = "nixgate";
/// [`reply`] is for HTTP.
const NO_GRPC_STATUS: i32 = -1;

/// Makes a call that fills a buffer: the host allocates it by `proxy_on_memory_allocate` and passes it on.
fn read(call: &'static str, fill: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>> {
    let (mut data, mut size) = (null_mut(), 0);
    check(call, fill(&raw mut data, &raw mut size))?;
    if data.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: the SDK's `proxy_on_memory_allocate` made this memory as a boxed slice of `size` bytes by
    // the global allocator, the host has filled all of it and keeps no pointer to it, and nothing else
    // here takes it.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

// SAFETY, for every call below that says no more: the pointers come from live references and
// slices with the sizes that go along, the host reads or writes them before it returns and keeps
// none, and it calls nothing in the VM meanwhile but the allocator.

/// Writes to Envoy's log. Errors can't be reported.
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
    // SAFETY: as above. By the ABI the call can't fail.
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

/// Switches to another context, until the present callback ends.
///
/// # Errors
/// [`Status::BadArgument`] when that context has ended.
pub(crate) fn set_effective_context(context: u32) -> Result<()> {
    // SAFETY: no pointers.
    let status = unsafe { proxy_set_effective_context(context) };
    check("proxy_set_effective_context", status)
}

fn buffer(buffer: BufferType, length: usize) -> Result<Vec<u8>> {
    let bytes = read("proxy_get_buffer_bytes", |data, size| {
        // SAFETY: as above.
        unsafe { proxy_get_buffer_bytes(buffer as u32, 0, length, data, size) }
    });
    match bytes {
        // Hosts differ in what they say of an empty buffer.
        Err(error) if error.status == Status::NotFound => Ok(Vec::new()),
        bytes => bytes,
    }
}

/// The plugin's configuration, of this size in bytes.
pub(crate) fn plugin_configuration(size: usize) -> Result<Vec<u8>> {
    buffer(BufferType::PluginConfiguration, size)
}

/// The body of the present callout response, of this size in bytes.
pub(crate) fn callout_body(size: usize) -> Result<Vec<u8>> {
    buffer(BufferType::HttpCallResponseBody, size)
}

fn headers(map: MapType) -> Result<HeaderMap> {
    let bytes = read("proxy_get_header_map_pairs", |data, size| {
        // SAFETY: as above.
        unsafe { proxy_get_header_map_pairs(map as u32, data, size) }
    })?;
    Ok(HeaderMap::new(bytes))
}

/// All headers of the request.
pub(crate) fn request_headers() -> Result<HeaderMap> {
    headers(MapType::HttpRequestHeaders)
}

/// All headers of the present callout response.
pub(crate) fn callout_headers() -> Result<HeaderMap> {
    headers(MapType::HttpCallResponseHeaders)
}

/// Replaces all values of a request header by one.
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

/// Removes all values of a request header.
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

/// Continues a paused request with the next filter.
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

/// A value that all VMs share, and its number for compare-and-swap ([`set_shared_data`]); none when it was
/// never set.
pub(crate) fn shared_data(key: &str) -> Result<Option<(Vec<u8>, u32)>> {
    let mut cas = 0;
    let bytes = read("proxy_get_shared_data", |data, size| {
        // SAFETY: as above.
        unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas) }
    });
    match bytes {
        Ok(bytes) => Ok(Some((bytes, cas))),
        Err(error) if error.status == Status::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets a value that all VMs share; with `cas` other than 0, only if it has not changed since it was read
/// with that number.
///
/// # Errors
/// [`Status::CasMismatch`] when it has.
pub(crate) fn set_shared_data(key: &str, value: &[u8], cas: u32) -> Result<()> {
    // SAFETY: as above.
    let status =
        unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) };
    check("proxy_set_shared_data", status)
}

/// Defines a metric, or finds the existing one.
pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32> {
    let mut metric = 0;
    // SAFETY: as above.
    let status =
        unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut metric) };
    check("proxy_define_metric", status)?;
    Ok(metric)
}

/// Adds to a counter or gauge.
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

/// A property of the stream ("attributes" in Envoy's documentation), in the encoding of its type. Errors
/// count as unknown, and unknown values match nothing.
pub(crate) fn property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    read("proxy_get_property", |data, size| {
        // SAFETY: as above.
        unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) }
    })
    .ok()
}

/// The name of the plugin, by its configuration in Envoy.
pub(crate) fn plugin_name() -> String {
    let name = property(&["plugin_name"]).unwrap_or_default();
    String::from_utf8_lossy(&name).into_owned()
}

/// Sets Envoy's filter state `wasm.<name>` of the stream. A path of several parts would become a name with
/// zero bytes, which no log format can name.
pub(crate) fn set_filter_state(name: &str, value: &str) -> Result<()> {
    // SAFETY: as above.
    let status =
        unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    check("proxy_set_property", status)
}

/// Starts the timer of the present root context, with a period in seconds.
pub(crate) fn set_tick_period(period: Seconds) -> Result<()> {
    let milliseconds = u32::try_from(period.saturating_mul(1000)).unwrap_or(u32::MAX);
    // SAFETY: no pointers.
    let status = unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
    check("proxy_set_tick_period_milliseconds", status)
}

/// Registers a queue whose messages wake the present root context.
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

/// Takes one message off the queue. Returns whether there was one.
pub(crate) fn dequeue(queue: u32) -> Result<bool> {
    let message = read("proxy_dequeue_shared_queue", |data, size| {
        // SAFETY: as above.
        unsafe { proxy_dequeue_shared_queue(queue, data, size) }
    });
    match message {
        Ok(_) => Ok(true),
        Err(error) if error.status == Status::Empty => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends a callout in the root context of the present callback, and returns its token.
///
/// The SDK records the token for its dispatcher. It panics on statuses other than `Ok`, `BadArgument` and
/// `InternalFailure`, and Envoy's `Context::httpCall` returns only these.
///
/// # Errors
/// [`Status::BadArgument`] for an unknown cluster or a missing pseudo-header,
/// [`Status::InternalFailure`] when the request failed at once, for example without a healthy host.
pub(crate) fn dispatch(root: u32, call: &Call, signature: &str) -> Result<u32> {
    // After a reply, a stream's context may be in effect, and the callout must not end with it.
    set_effective_context(root)?;
    let headers = call.headers.iter();
    let headers = headers.map(|(name, value)| (*name, value.as_str()));
    proxy_wasm::hostcalls::dispatch_http_call(
        &call.cluster,
        headers.chain([(wire::TOKEN, signature)]).collect(),
        None,
        Vec::new(),
        Duration::from_secs(call.timeout),
    )
    .map_err(|status: SdkStatus| Error {
        call: "proxy_http_call",
        status: Status::new(status as u32),
    })
}
