//! Says of which sources builder and filter are: `NIXGATE_SOURCES`, the beginning of a SHA-256 over
//! them. It is the same for both and on every machine, with git or without it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What builder and filter are made of, from the repository's root.
const SOURCES: [&str; 5] = ["Cargo.lock", "Cargo.toml", "filter", "host-builder", "nix"];
/// The files in these folders that count: what editors and Python leave there does not.
const KINDS: [&str; 6] = ["json", "nix", "py", "rs", "sh", "toml"];
/// So many bytes of the hash tell versions apart.
const LENGTH: usize = 6;

fn main() -> io::Result<()> {
    // Of either crate: the script is shared.
    let root = Path::new("..");
    let mut files = Vec::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed=../{source}");
        collect(root, Path::new(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(root.join(&file))?;
        // Lengths first, so that no two trees give the same bytes.
        for part in [file.as_os_str().as_encoded_bytes(), &content] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    let hash: String = hash.finalize()[..LENGTH]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    println!("cargo::rustc-env=NIXGATE_SOURCES={hash}");
    Ok(())
}

fn collect(root: &Path, source: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let path = root.join(source);
    if !path.is_dir() {
        files.push(source.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let name = source.join(entry?.file_name());
        let counts = |kind: &std::ffi::OsStr| KINDS.iter().any(|known| kind == *known);
        if root.join(&name).is_dir() || name.extension().is_some_and(counts) {
            collect(root, &name, files)?;
        }
    }
    Ok(())
}
