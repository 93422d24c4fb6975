//! A copy of this program that runs in an empty sandbox: with its libraries and its loader.
//!
//! The kernel lists the files in this process's mappings. These are real files; programs look for
//! libraries by other names, which are often links (`libc.so.6` to `libc-2.31.so`). So the copy has the
//! links as well.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// This program's name in the folder.
const SELF: &str = "nixgate";
/// This program, even if another was installed in its place meanwhile.
const OWN: &str = "/proc/self/exe";
/// Stands for the folder in an argument, until its store path is known.
const FOLDER: &str = "@folder@";

/// How the copy is run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// The file to run, in the folder.
    pub(crate) file: String,
    /// Arguments before those of the program.
    pub(crate) arguments: Vec<String>,
}

/// Copies it into a folder, which is emptied first.
///
/// # Errors
/// When a file can't be read or the folder can't be written.
pub(super) fn copy(folder: &Path) -> io::Result<Program> {
    let own = fs::read_link(OWN)?;
    let mut files = executed(&fs::read_to_string("/proc/self/maps")?);
    files.remove(&own);
    let loader = interpreter(&fs::read(OWN)?).map(PathBuf::from);
    gather(&files, loader.as_deref(), folder)
}

/// Copies this program, these files, and the links to them into a folder, which is emptied first.
fn gather(files: &BTreeSet<PathBuf>, loader: Option<&Path>, folder: &Path) -> io::Result<Program> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(folder)?,
    }
    fs::copy(OWN, folder.join(SELF))?;
    for file in files {
        if let Some(name) = file.file_name() {
            fs::copy(file, folder.join(name))?;
        }
    }
    let folders: BTreeSet<_> = files.iter().filter_map(|file| file.parent()).collect();
    let mut links = Vec::new();
    for folder in folders {
        for entry in folder.read_dir()? {
            let entry = entry?;
            if entry.file_type()?.is_symlink() {
                links.push(entry.path());
            }
        }
    }
    links.extend(loader.map(Path::to_owned));
    for link in links {
        // Dangling.
        let Ok(file) = link.canonicalize() else {
            continue;
        };
        let (Some(name), Some(target)) = (link.file_name(), file.file_name()) else {
            continue;
        };
        let copy = folder.join(name);
        if files.contains(&file) && copy.symlink_metadata().is_err() {
            symlink(target, copy)?;
        }
    }
    let name = loader.and_then(Path::file_name).and_then(OsStr::to_str);
    Ok(match name.filter(|name| folder.join(name).exists()) {
        Some(loader) => Program {
            file: loader.to_owned(),
            arguments: ["--library-path", FOLDER, &format!("{FOLDER}/{SELF}")]
                .map(str::to_owned)
                .into(),
        },
        // Statically linked.
        None => Program {
            file: SELF.to_owned(),
            arguments: Vec::new(),
        },
    })
}

/// The loader of a program (`PT_INTERP` in elf(5)), unless it is statically linked.
fn interpreter(program: &[u8]) -> Option<&OsStr> {
    const INTERPRETER: u32 = 3;
    // The last byte means 64 bits: nixgate is built for no other machines.
    program.strip_prefix(b"\x7fELF\x02")?;
    let number = |at: usize, size: usize| {
        let mut bytes = [0; 8];
        let end = if cfg!(target_endian = "little") {
            0
        } else {
            8 - size
        };
        bytes[end..end + size].copy_from_slice(program.get(at..at.checked_add(size)?)?);
        usize::try_from(u64::from_ne_bytes(bytes)).ok()
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let header = (0..count)
        .map(|index| table + index * size)
        .find(|&header| number(header, 4) == Some(INTERPRETER as usize))?;
    let (start, length) = (number(header + 8, 8)?, number(header + 32, 8)?);
    let path = program.get(start..start.checked_add(length)?)?;
    Some(OsStr::from_bytes(path.strip_suffix(&[0])?))
}

/// The files with executable mappings in a process (proc(5)).
fn executed(maps: &str) -> BTreeSet<PathBuf> {
    let file = |line: &str| {
        let path = &line[line.find('/')?..];
        let rights = line.split_whitespace().nth(1)?;
        rights.contains('x').then(|| PathBuf::from(path))
    };
    maps.lines().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_those_with_executable_mappings() {
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

    /// What a copy prints: the program of a test lists its tests.
    fn run(program: &Program, folder: &Path) -> String {
        output_of(program, folder, &[], &["--list"])
    }

    fn output_of(program: &Program, folder: &Path, before: &[&str], after: &[&str]) -> String {
        let arguments = program.arguments.iter();
        let arguments =
            arguments.map(|argument| argument.replace(FOLDER, folder.to_str().unwrap()));
        let output = std::process::Command::new(folder.join(&program.file))
            .args(before)
            .args(arguments)
            .args(after)
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_copy_runs_with_nothing_but_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("copy");
        for _ in 0..2 {
            let program = copy(&folder).unwrap();
            assert!(run(&program, &folder).contains("the_copy_runs"));
        }
    }

    #[test]
    fn libraries_are_found_under_the_names_of_links_too() {
        // As where glibc's files have its version: lib64/ld-linux-x86-64.so.2 -> ../lib/ld-2.31.so,
        // lib/libc.so.6 -> libc.so -> libc-2.31.so.
        let machine = tempfile::tempdir().unwrap();
        let machine = machine.path().canonicalize().unwrap();
        let (lib, lib64) = (machine.join("lib"), machine.join("lib64"));
        fs::create_dir(&lib).unwrap();
        fs::create_dir(&lib64).unwrap();
        let program = fs::read(OWN).unwrap();
        let loader = Path::new(interpreter(&program).unwrap());
        let mut files = executed(&fs::read_to_string("/proc/self/maps").unwrap());
        files.remove(&fs::read_link(OWN).unwrap());
        let mut renamed = BTreeSet::new();
        let mut names = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let real = format!("file-{number}-2.31.so");
            fs::copy(file, lib.join(&real)).unwrap();
            renamed.insert(lib.join(&real));
            if *file == loader.canonicalize().unwrap() {
                let link = lib64.join(loader.file_name().unwrap());
                symlink(format!("../lib/{real}"), link).unwrap();
                continue;
            }
            let name = file.file_name().unwrap().to_str().unwrap();
            symlink(&real, lib.join(format!("{number}.so"))).unwrap();
            symlink(format!("{number}.so"), lib.join(name)).unwrap();
            names.push(name);
        }
        symlink("nowhere", lib.join("libnowhere.so")).unwrap();
        let folder = machine.join("copy");
        let loader = lib64.join(loader.file_name().unwrap());
        let copied = gather(&renamed, Some(&loader), &folder).unwrap();
        assert_eq!(Some(OsStr::new(&copied.file)), loader.file_name());
        assert!(run(&copied, &folder).contains("libraries_are_found"));
        // The loader says where it finds each: this machine has them elsewhere too.
        let found = output_of(&copied, &folder, &["--list"], &[]);
        for name in names {
            let copy = folder.join(name).display().to_string();
            assert!(found.contains(&copy), "no {copy} in\n{found}");
        }
    }

    #[test]
    fn a_program_without_a_loader_is_run_itself() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("copy");
        let program = gather(&BTreeSet::new(), None, &folder).unwrap();
        assert_eq!((program.file.as_str(), program.arguments), (SELF, vec![]));
        for odd in [&b""[..], b"#!/bin/sh", &[0xff; 64]] {
            assert_eq!(interpreter(odd), None);
        }
    }
}
