//! The filter with limited memory, so that its VM dies, as it would by a defect.
//!
//! A module's memory section (WebAssembly core specification, 5.5.8) can limit its memory to a number of pages
//! of 64 KiB. The shipped module has no limit. With one, the allocation for a larger answer of the builder
//! fails and traps.

use anyhow::{Context, Result, ensure};

const HEADER: usize = 8;
const MEMORY_SECTION: u8 = 5;
const NO_MAXIMUM: u8 = 0;
const MAXIMUM: u8 = 1;

/// The module with a memory that grows by at most `pages` beyond what it starts with.
///
/// # Errors
/// When the module has no memory of its own, or one that is bounded already.
pub fn limited(module: &[u8], pages: u32) -> Result<Vec<u8>> {
    let (header, mut rest) = module.split_at_checked(HEADER).context("not a module")?;
    let mut limited = header.to_vec();
    while let Some((&id, after)) = rest.split_first() {
        let mut content = after;
        let size = read_u32(&mut content)? as usize;
        let (section, next) = content.split_at_checked(size).context("a cut section")?;
        limited.push(id);
        if id == MEMORY_SECTION {
            let [1, NO_MAXIMUM, minimum @ ..] = section else {
                anyhow::bail!("not one memory without a bound: {section:?}");
            };
            let mut minimum = minimum;
            let minimum = read_u32(&mut minimum)?;
            let mut section = vec![1, MAXIMUM];
            write_u32(&mut section, minimum);
            write_u32(&mut section, minimum + pages);
            write_u32(&mut limited, u32::try_from(section.len())?);
            limited.extend(section);
        } else {
            write_u32(&mut limited, u32::try_from(size)?);
            limited.extend_from_slice(section);
        }
        rest = next;
    }
    ensure!(limited.len() > module.len(), "the module has no memory");
    Ok(limited)
}

/// LEB128 (core specification, 5.2.2).
fn read_u32(bytes: &mut &[u8]) -> Result<u32> {
    let mut value = 0;
    for shift in (0..u32::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first().context("a cut number")?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    anyhow::bail!("a number that is too long")
}

fn write_u32(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
