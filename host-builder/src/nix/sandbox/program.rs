//! This program with all that it needs to run in a sandbox in which there may be nothing else: itself,
//! the libraries that it is linked to, and the loader that brings these together.
//!
//! Which ones that are, the kernel says: it has mapped them to run this very process.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Our name in the folder.
const SELF: &str = "nixgate";
/// This program, also when another one was installed in its place meanwhile.
const OWN: &str = "/proc/self/exe";
/// What stands for the folder in an argument, until it is known where it is in the store.
const FOLDER: &str = "@folder@";

/// How the copy is run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// The file in the folder that is run.
    pub file: String,
    /// What comes before the program's own arguments.
    pub arguments: Vec<String>,
}

/// Copies it into a folder, which is made anew.
///
/// # Errors
/// When a file can't be read or the folder can't be written.
pub(super) fn copy(folder: &Path) -> io::Result<Program> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(folder)?,
    }
    fs::copy(OWN, folder.join(SELF))?;
    let own = fs::read_link(OWN)?;
    let mut loader = None;
    for file in executed(&fs::read_to_string("/proc/self/maps")?) {
        let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if file == own {
            continue;
        }
        fs::copy(&file, folder.join(name))?;
        if is_loader(name) {
            loader = Some(name.to_owned());
        }
    }
    Ok(match loader {
        Some(loader) => Program {
            file: loader,
            arguments: ["--library-path", FOLDER, &format!("{FOLDER}/{SELF}")]
                .map(str::to_owned)
                .into(),
        },
        // It is linked to nothing.
        None => Program {
            file: SELF.to_owned(),
            arguments: Vec::new(),
        },
    })
}

/// The files that a process runs code of, by its table of mappings (proc(5)).
fn executed(maps: &str) -> BTreeSet<PathBuf> {
    let file = |line: &str| {
        let path = &line[line.find('/')?..];
        let rights = line.split_whitespace().nth(1)?;
        rights.contains('x').then(|| PathBuf::from(path))
    };
    maps.lines().filter_map(file).collect()
}

/// As glibc, musl and others call theirs.
fn is_loader(name: &str) -> bool {
    name.starts_with("ld-") || name.starts_with("ld.") || name.starts_with("ld64.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_run_is_what_is_mapped_to_be_executed() {
        let maps = "\
55e0-55e1 r--p 00000000 fe:00 12 /usr/bin/nixgate
55e1-55e2 r-xp 00001000 fe:00 12 /usr/bin/nixgate
7f00-7f01 r-xp 00000000 fe:00 34 /usr/lib/libc.so.6
7f02-7f03 r--p 00000000 fe:00 56 /usr/lib/locale/C.utf8/LC_CTYPE
7f04-7f05 r-xp 00000000 fe:00 78 /nix/store/a b/ld-linux-x86-64.so.2
7ffe-7fff r-xp 00000000 00:00 0 [vdso]
7fff-8000 rw-p 00000000 00:00 0
";
        let files = [
            "/nix/store/a b/ld-linux-x86-64.so.2",
            "/usr/bin/nixgate",
            "/usr/lib/libc.so.6",
        ];
        assert_eq!(executed(maps), files.map(PathBuf::from).into());
    }

    #[test]
    fn the_copy_runs_with_nothing_but_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("copy");
        for _ in 0..2 {
            let program = copy(&folder).unwrap();
            let arguments = program.arguments.iter();
            let arguments =
                arguments.map(|argument| argument.replace(FOLDER, folder.to_str().unwrap()));
            let output = std::process::Command::new(folder.join(&program.file))
                .args(arguments)
                .arg("--list")
                .env_clear()
                .output()
                .unwrap();
            // The program of a test lists its tests.
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(printed.contains("the_copy_runs"), "{output:?}");
        }
    }
}
