//! The few functions of WASI preview 1 that Rust's standard library needs in the filter.

use wasmtime::{Caller, Error, Linker, Result};

use super::abi::{put_u32, read, read_u32, write};
use super::state::{LogLine, State};

const WASI: &str = "wasi_snapshot_preview1";
const SUCCESS: u32 = 0;
/// The standard library writes panic messages and nothing else.
const LEVEL_OF_STDERR: u32 = 5;

pub(super) fn define(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(WASI, "random_get", random_get)?;
    linker.func_wrap(WASI, "environ_sizes_get", environ_sizes_get)?;
    linker.func_wrap(WASI, "environ_get", environ_get)?;
    linker.func_wrap(WASI, "fd_write", fd_write)?;
    linker.func_wrap(WASI, "proc_exit", |status: u32| -> Result<()> {
        Err(Error::msg(format!(
            "the VM ended itself with status {status}"
        )))
    })?;
    Ok(())
}

fn random_get(mut caller: Caller<'_, State>, data: u32, size: u32) -> Result<u32> {
    let bytes = caller.data().world.borrow_mut().random(size as usize);
    write(&mut caller, data, &bytes)?;
    Ok(SUCCESS)
}

fn variables(state: &State) -> Vec<Vec<u8>> {
    let variables = state.environment.iter();
    variables
        .map(|(name, value)| format!("{name}={value}\0").into_bytes())
        .collect()
}

fn environ_sizes_get(mut caller: Caller<'_, State>, count: u32, size: u32) -> Result<u32> {
    let variables = variables(caller.data());
    put_u32(&mut caller, count, u32::try_from(variables.len())?)?;
    put_u32(&mut caller, size, u32::try_from(variables.concat().len())?)?;
    Ok(SUCCESS)
}

fn environ_get(mut caller: Caller<'_, State>, mut pointers: u32, mut texts: u32) -> Result<u32> {
    for variable in variables(caller.data()) {
        put_u32(&mut caller, pointers, texts)?;
        write(&mut caller, texts, &variable)?;
        pointers += 4;
        texts += u32::try_from(variable.len())?;
    }
    Ok(SUCCESS)
}

fn fd_write(
    mut caller: Caller<'_, State>,
    _: u32,
    vectors: u32,
    count: u32,
    written: u32,
) -> Result<u32> {
    let mut text = Vec::new();
    for index in 0..count {
        let data = read_u32(&mut caller, vectors + 8 * index)?;
        let size = read_u32(&mut caller, vectors + 8 * index + 4)?;
        text.extend(read(&mut caller, data, size)?);
    }
    put_u32(&mut caller, written, u32::try_from(text.len())?)?;
    caller.data_mut().log.push(LogLine {
        level: LEVEL_OF_STDERR,
        message: String::from_utf8_lossy(&text).into_owned(),
    });
    Ok(SUCCESS)
}
