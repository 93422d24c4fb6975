//! Runs a wasm program of Rust's test harness: `wasi-run <module> [argument…]`.
//!
//! cargo calls it (`CARGO_TARGET_WASM32_WASIP1_RUNNER`) for the core's tests on the target that the
//! filter is built for, where `usize` has 32 bits. A test program wants little of WASI preview 1:
//! arguments, the environment, clocks, chance, somewhere to print. There are no files, so the
//! functions for those say that there is no such descriptor.

use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use wasmtime::{Caller, Engine, Error, Extern, Linker, Memory, Module, Result, Store};

const WASI: &str = "wasi_snapshot_preview1";
const SUCCESS: u32 = 0;
const NO_SUCH_DESCRIPTOR: u32 = 8;
/// A character device: printing is not to be held back.
const TERMINAL: u8 = 2;

/// What the program was given, and how it ended.
struct Program {
    arguments: Vec<Vec<u8>>,
    variables: Vec<Vec<u8>>,
    status: Option<u32>,
}

type Host<'a> = Caller<'a, Program>;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let module = arguments.first();
    let module = module.ok_or_else(|| Error::msg("wasi-run <module> [argument…]"))?;
    let ended = |text: &String| format!("{text}\0").into_bytes();
    let variables = std::env::vars().map(|(name, value)| ended(&format!("{name}={value}")));
    let program = Program {
        arguments: arguments.iter().map(ended).collect(),
        variables: variables.collect(),
        status: None,
    };
    let engine = Engine::default();
    let module = Module::from_file(&engine, module)?;
    let mut store = Store::new(&engine, program);
    let mut linker = Linker::new(&engine);
    define(&mut linker)?;
    linker.define_unknown_imports_as_traps(&module)?;
    let instance = linker.instantiate(&mut store, &module)?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    let outcome = start.call(&mut store, ());
    match store.data().status {
        Some(status) => Ok(ExitCode::from(u8::try_from(status).unwrap_or(1))),
        None => Ok(outcome.map(|()| ExitCode::SUCCESS)?),
    }
}

fn define(linker: &mut Linker<Program>) -> Result<()> {
    linker.func_wrap(WASI, "args_sizes_get", |host: Host<'_>, count, size| {
        let texts = host.data().arguments.clone();
        sizes(host, &texts, count, size)
    })?;
    linker.func_wrap(WASI, "args_get", |host: Host<'_>, pointers, bytes| {
        let texts = host.data().arguments.clone();
        give(host, &texts, pointers, bytes)
    })?;
    linker.func_wrap(WASI, "environ_sizes_get", |host: Host<'_>, count, size| {
        let texts = host.data().variables.clone();
        sizes(host, &texts, count, size)
    })?;
    linker.func_wrap(WASI, "environ_get", |host: Host<'_>, pointers, bytes| {
        let texts = host.data().variables.clone();
        give(host, &texts, pointers, bytes)
    })?;
    linker.func_wrap(WASI, "clock_time_get", clock_time_get)?;
    linker.func_wrap(WASI, "random_get", random_get)?;
    linker.func_wrap(WASI, "fd_write", fd_write)?;
    linker.func_wrap(WASI, "fd_fdstat_get", fd_fdstat_get)?;
    linker.func_wrap(WASI, "fd_prestat_get", |_: u32, _: u32| NO_SUCH_DESCRIPTOR)?;
    linker.func_wrap(WASI, "sched_yield", || SUCCESS)?;
    linker.func_wrap(
        WASI,
        "proc_exit",
        |mut host: Host<'_>, status: u32| -> Result<()> {
            host.data_mut().status = Some(status);
            Err(Error::msg("the program has ended"))
        },
    )?;
    Ok(())
}

fn memory(host: &mut Host<'_>) -> Result<Memory> {
    let memory = host.get_export("memory").and_then(Extern::into_memory);
    memory.ok_or_else(|| Error::msg("the program has no memory"))
}

fn put(host: &mut Host<'_>, at: u32, bytes: &[u8]) -> Result<()> {
    Ok(memory(host)?.write(host, at as usize, bytes)?)
}

fn number(host: &mut Host<'_>, at: u32) -> Result<u32> {
    let mut bytes = [0; 4];
    memory(host)?.read(host, at as usize, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn sizes(mut host: Host<'_>, texts: &[Vec<u8>], count: u32, size: u32) -> Result<u32> {
    let total: usize = texts.iter().map(Vec::len).sum();
    put(&mut host, count, &u32::try_from(texts.len())?.to_le_bytes())?;
    put(&mut host, size, &u32::try_from(total)?.to_le_bytes())?;
    Ok(SUCCESS)
}

fn give(mut host: Host<'_>, texts: &[Vec<u8>], mut pointers: u32, mut at: u32) -> Result<u32> {
    for text in texts {
        put(&mut host, pointers, &at.to_le_bytes())?;
        put(&mut host, at, text)?;
        pointers += 4;
        at += u32::try_from(text.len())?;
    }
    Ok(SUCCESS)
}

/// Whichever clock is asked for, it is the wall's.
fn clock_time_get(mut host: Host<'_>, _: u32, _: u64, at: u32) -> Result<u32> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let nanoseconds = u64::try_from(since.as_nanos())?;
    put(&mut host, at, &nanoseconds.to_le_bytes())?;
    Ok(SUCCESS)
}

fn random_get(mut host: Host<'_>, at: u32, size: u32) -> Result<u32> {
    let mut bytes = vec![0; size as usize];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    put(&mut host, at, &bytes)?;
    Ok(SUCCESS)
}

fn fd_write(
    mut host: Host<'_>,
    descriptor: u32,
    vectors: u32,
    count: u32,
    written: u32,
) -> Result<u32> {
    let mut text = Vec::new();
    for vector in (vectors..).step_by(8).take(count as usize) {
        let at = number(&mut host, vector)?;
        let mut piece = vec![0; number(&mut host, vector + 4)? as usize];
        memory(&mut host)?.read(&mut host, at as usize, &mut piece)?;
        text.extend(piece);
    }
    if descriptor == 1 {
        std::io::stdout().write_all(&text)?;
    } else {
        std::io::stderr().write_all(&text)?;
    }
    put(
        &mut host,
        written,
        &u32::try_from(text.len())?.to_le_bytes(),
    )?;
    Ok(SUCCESS)
}

fn fd_fdstat_get(mut host: Host<'_>, _: u32, at: u32) -> Result<u32> {
    let mut status = [0; 24];
    status[0] = TERMINAL;
    put(&mut host, at, &status)?;
    Ok(SUCCESS)
}
