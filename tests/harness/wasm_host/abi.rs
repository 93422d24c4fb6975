//! The functions of the proxy-wasm ABI 0.2.1 that the filter calls. A function that is missing
//! here traps, and fails the test that reaches it.

#![expect(
    clippy::too_many_arguments,
    reason = "the ABI passes buffers as two numbers each"
)]

use wasmtime::{Caller, Error, Linker, Memory, Result};

use super::header_map;
use super::state::{Callout, Headers, LogLine, Reply, State};

const ENV: &str = "env";

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
pub(super) const BAD_ARGUMENT: u32 = 2;
const EMPTY: u32 = 7;
const CAS_MISMATCH: u32 = 8;
pub(super) const INTERNAL_FAILURE: u32 = 10;

const REQUEST_HEADERS: u32 = 0;
const CALLOUT_HEADERS: u32 = 6;
const CALLOUT_BODY: u32 = 4;
const PLUGIN_CONFIGURATION: u32 = 7;

type HostCall<'a> = Caller<'a, State>;

/// Defines functions that note their names before they run.
macro_rules! define {
    ($linker:ident, $($name:literal => $function:ident($($argument:ident),*),)*) => {
        $($linker.func_wrap(ENV, $name, |mut caller: HostCall<'_>, $($argument),*| {
            caller.data_mut().host_calls.push($name);
            $function(caller, $($argument),*)
        })?;)*
    };
}

pub(super) fn define(linker: &mut Linker<State>) -> Result<()> {
    define! { linker,
        "proxy_log" => log(level, data, size),
        "proxy_get_current_time_nanoseconds" => time(data),
        "proxy_set_effective_context" => set_effective_context(context),
        "proxy_get_buffer_bytes" => get_buffer(buffer, start, max_size, data, size),
        "proxy_get_header_map_pairs" => get_headers(map, data, size),
        "proxy_replace_header_map_value" => replace_header(map, name, length, value, size),
        "proxy_remove_header_map_value" => remove_header(map, name, size),
        "proxy_continue_stream" => continue_stream(kind),
        "proxy_send_local_response" =>
            send_local_response(status, details, length, body, size, headers, bytes, grpc),
        "proxy_get_shared_data" => get_shared_data(key, length, data, size, cas),
        "proxy_set_shared_data" => set_shared_data(key, length, value, size, cas),
        "proxy_set_tick_period_milliseconds" => set_tick_period(period),
        "proxy_define_metric" => define_metric(kind, name, length, metric),
        "proxy_increment_metric" => increment_metric(metric, offset),
        "proxy_record_metric" => record_metric(metric, value),
        "proxy_get_property" => get_property(path, length, data, size),
        "proxy_set_property" => set_property(path, length, value, size),
        "proxy_register_shared_queue" => register_queue(name, size, queue),
        "proxy_enqueue_shared_queue" => enqueue(queue, data, size),
        "proxy_dequeue_shared_queue" => dequeue(queue, data, size),
        "proxy_http_call" =>
            http_call(cluster, length, headers, bytes, body, size, trailers, count, timeout, token),
    }
    Ok(())
}

fn memory(caller: &mut HostCall<'_>) -> Result<Memory> {
    let memory = caller
        .get_export("memory")
        .and_then(wasmtime::Extern::into_memory);
    memory.ok_or_else(|| Error::msg("the module exports its memory"))
}

/// Reads the VM's memory.
pub(super) fn read(caller: &mut HostCall<'_>, data: u32, size: u32) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size as usize];
    memory(caller)?.read(caller, data as usize, &mut bytes)?;
    Ok(bytes)
}

/// Reads one number of the VM's memory.
pub(super) fn read_u32(caller: &mut HostCall<'_>, data: u32) -> Result<u32> {
    let mut bytes = [0; 4];
    memory(caller)?.read(caller, data as usize, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Writes to the VM's memory.
pub(super) fn write(caller: &mut HostCall<'_>, data: u32, bytes: &[u8]) -> Result<()> {
    memory(caller)?.write(caller, data as usize, bytes)?;
    Ok(())
}

/// Writes one number to the VM's memory.
pub(super) fn put_u32(caller: &mut HostCall<'_>, data: u32, number: u32) -> Result<()> {
    write(caller, data, &number.to_le_bytes())
}

/// Hands bytes over in memory that the VM allocates for them.
fn give(caller: &mut HostCall<'_>, bytes: &[u8], data: u32, size: u32) -> Result<()> {
    let length = u32::try_from(bytes.len())?;
    let mut pointer = 0;
    if length > 0 {
        let export = caller.get_export("proxy_on_memory_allocate");
        let allocate = export.and_then(wasmtime::Extern::into_func);
        let allocate = allocate.ok_or_else(|| Error::msg("the module exports its allocator"))?;
        let allocate = allocate.typed::<u32, u32>(&mut *caller)?;
        pointer = allocate.call(&mut *caller, length)?;
        write(caller, pointer, bytes)?;
    }
    put_u32(caller, data, pointer)?;
    put_u32(caller, size, length)
}

fn text(caller: &mut HostCall<'_>, data: u32, size: u32) -> Result<String> {
    Ok(String::from_utf8(read(caller, data, size)?)?)
}

fn log(mut caller: HostCall<'_>, level: u32, data: u32, size: u32) -> Result<u32> {
    let message = text(&mut caller, data, size)?;
    caller.data_mut().log.push(LogLine { level, message });
    Ok(OK)
}

fn time(mut caller: HostCall<'_>, data: u32) -> Result<u32> {
    let nanoseconds = caller.data().world.borrow().now * 1_000_000_000;
    write(&mut caller, data, &nanoseconds.to_le_bytes())?;
    Ok(OK)
}

fn set_effective_context(mut caller: HostCall<'_>, context: u32) -> u32 {
    let state = caller.data_mut();
    if !state.contexts.contains(&context) {
        return BAD_ARGUMENT;
    }
    state.effective = context;
    OK
}

fn get_buffer(
    mut caller: HostCall<'_>,
    buffer: u32,
    start: u32,
    max_size: u32,
    data: u32,
    size: u32,
) -> Result<u32> {
    let state = caller.data();
    let bytes = match buffer {
        PLUGIN_CONFIGURATION => Some(&state.configuration),
        CALLOUT_BODY if state.withhold_bodies => return Ok(INTERNAL_FAILURE),
        CALLOUT_BODY => state.response.as_ref().map(|response| &response.body),
        _ => None,
    };
    let Some(bytes) = bytes else {
        return Ok(NOT_FOUND);
    };
    let bytes: Vec<u8> = bytes
        .iter()
        .skip(start as usize)
        .take(max_size as usize)
        .copied()
        .collect();
    give(&mut caller, &bytes, data, size)?;
    Ok(OK)
}

fn headers(state: &mut State, map: u32) -> Option<&mut Headers> {
    match map {
        REQUEST_HEADERS => state.request_headers(),
        CALLOUT_HEADERS => state
            .response
            .as_mut()
            .map(|response| &mut response.headers),
        _ => None,
    }
}

fn get_headers(mut caller: HostCall<'_>, map: u32, data: u32, size: u32) -> Result<u32> {
    let Some(headers) = headers(caller.data_mut(), map) else {
        return Ok(BAD_ARGUMENT);
    };
    let bytes = header_map::encode(headers);
    give(&mut caller, &bytes, data, size)?;
    Ok(OK)
}

fn replace_header(
    mut caller: HostCall<'_>,
    map: u32,
    name: u32,
    name_size: u32,
    value: u32,
    value_size: u32,
) -> Result<u32> {
    let name = text(&mut caller, name, name_size)?;
    let value = read(&mut caller, value, value_size)?;
    let Some(headers) = headers(caller.data_mut(), map) else {
        return Ok(BAD_ARGUMENT);
    };
    headers.retain(|(header, _)| *header != name);
    headers.push((name, value));
    Ok(OK)
}

fn remove_header(mut caller: HostCall<'_>, map: u32, name: u32, name_size: u32) -> Result<u32> {
    let name = text(&mut caller, name, name_size)?;
    let Some(headers) = headers(caller.data_mut(), map) else {
        return Ok(BAD_ARGUMENT);
    };
    headers.retain(|(header, _)| *header != name);
    Ok(OK)
}

fn continue_stream(mut caller: HostCall<'_>, kind: u32) -> u32 {
    const HTTP_REQUEST: u32 = 0;
    let state = caller.data_mut();
    if kind == HTTP_REQUEST && state.continue_stream(state.effective) {
        state.actions.push_back(state.effective);
        OK
    } else {
        BAD_ARGUMENT
    }
}

fn send_local_response(
    mut caller: HostCall<'_>,
    status: u32,
    _details: u32,
    _details_size: u32,
    body: u32,
    body_size: u32,
    headers: u32,
    headers_size: u32,
    _grpc_status: i32,
) -> Result<u32> {
    let reply = Reply {
        status,
        headers: header_map::decode(&read(&mut caller, headers, headers_size)?),
        body: read(&mut caller, body, body_size)?,
    };
    let state = caller.data_mut();
    let sent = state.reply(state.effective, reply);
    Ok(if sent { OK } else { BAD_ARGUMENT })
}

fn get_shared_data(
    mut caller: HostCall<'_>,
    key: u32,
    key_size: u32,
    data: u32,
    size: u32,
    cas: u32,
) -> Result<u32> {
    let key = read(&mut caller, key, key_size)?;
    let found = caller.data().world.borrow().shared_data(&key);
    let Some((value, version)) = found else {
        return Ok(NOT_FOUND);
    };
    give(&mut caller, &value, data, size)?;
    put_u32(&mut caller, cas, version)?;
    Ok(OK)
}

fn set_shared_data(
    mut caller: HostCall<'_>,
    key: u32,
    key_size: u32,
    value: u32,
    value_size: u32,
    cas: u32,
) -> Result<u32> {
    let key = read(&mut caller, key, key_size)?;
    let value = read(&mut caller, value, value_size)?;
    let set = caller
        .data()
        .world
        .borrow_mut()
        .set_shared_data(key, value, cas);
    Ok(if set { OK } else { CAS_MISMATCH })
}

fn define_metric(
    mut caller: HostCall<'_>,
    _kind: u32,
    name: u32,
    name_size: u32,
    metric: u32,
) -> Result<u32> {
    let name = text(&mut caller, name, name_size)?;
    let number = caller.data_mut().define_metric(name);
    put_u32(&mut caller, metric, number)?;
    Ok(OK)
}

fn increment_metric(mut caller: HostCall<'_>, metric: u32, offset: i64) -> u32 {
    let offset = offset.unsigned_abs();
    let found = caller.data_mut().record_metric(metric, offset);
    if found { OK } else { BAD_ARGUMENT }
}

fn record_metric(mut caller: HostCall<'_>, metric: u32, value: u64) -> u32 {
    let found = caller.data_mut().record_metric(metric, value);
    if found { OK } else { BAD_ARGUMENT }
}

fn get_property(
    mut caller: HostCall<'_>,
    path: u32,
    length: u32,
    data: u32,
    size: u32,
) -> Result<u32> {
    let path = text(&mut caller, path, length)?;
    let Some(value) = caller.data().attributes.get(&path).cloned() else {
        return Ok(NOT_FOUND);
    };
    give(&mut caller, &value, data, size)?;
    Ok(OK)
}

fn set_property(
    mut caller: HostCall<'_>,
    path: u32,
    path_size: u32,
    value: u32,
    value_size: u32,
) -> Result<u32> {
    let path = text(&mut caller, path, path_size)?;
    let value = text(&mut caller, value, value_size)?;
    let set = caller.data_mut().set_property(path, value);
    Ok(if set { OK } else { NOT_FOUND })
}

fn set_tick_period(mut caller: HostCall<'_>, milliseconds: u32) -> u32 {
    let state = caller.data_mut();
    let root = state.effective;
    match milliseconds {
        0 => state.ticking.remove(&root),
        _ => state.ticking.insert(root),
    };
    OK
}

fn register_queue(mut caller: HostCall<'_>, name: u32, size: u32, queue: u32) -> Result<u32> {
    let name = read(&mut caller, name, size)?;
    let State { vm, effective, .. } = *caller.data();
    let number = caller
        .data()
        .world
        .borrow_mut()
        .register_queue(name, vm, effective);
    put_u32(&mut caller, queue, number)?;
    Ok(OK)
}

fn enqueue(mut caller: HostCall<'_>, queue: u32, data: u32, size: u32) -> Result<u32> {
    let message = read(&mut caller, data, size)?;
    let state = caller.data();
    let sent = !state.refuse_messages && state.world.borrow_mut().enqueue(queue, message);
    Ok(if sent { OK } else { NOT_FOUND })
}

fn dequeue(mut caller: HostCall<'_>, queue: u32, data: u32, size: u32) -> Result<u32> {
    let message = caller.data().world.borrow_mut().dequeue(queue);
    match message {
        Some(Some(message)) => {
            give(&mut caller, &message, data, size)?;
            Ok(OK)
        }
        Some(None) => Ok(EMPTY),
        None => Ok(NOT_FOUND),
    }
}

fn http_call(
    mut caller: HostCall<'_>,
    cluster: u32,
    cluster_size: u32,
    headers: u32,
    headers_size: u32,
    _body: u32,
    body_size: u32,
    _trailers: u32,
    _trailers_size: u32,
    timeout_ms: u32,
    token: u32,
) -> Result<u32> {
    let cluster = text(&mut caller, cluster, cluster_size)?;
    let headers = header_map::decode(&read(&mut caller, headers, headers_size)?);
    let whole = [":method", ":path", ":authority"]
        .iter()
        .all(|name| headers.iter().any(|(header, _)| header == name));
    if !whole || body_size > 0 {
        return Ok(BAD_ARGUMENT);
    }
    let state = caller.data_mut();
    if let Some(status) = state.refuse_callouts {
        return Ok(status);
    }
    state.last_token += 1;
    let number = state.last_token;
    state.open.insert(number);
    state.sent.push(Callout {
        vm: state.vm,
        context: state.effective,
        token: number,
        cluster,
        headers,
        timeout_ms,
    });
    put_u32(&mut caller, token, number)?;
    Ok(OK)
}
