//! The archive format of layers: GNU tar with nothing left to chance.
//!
//! Of the formats that can hold any path, GNU's is the one that every client reads and whose long
//! names are plain bytes; names in the store need not be UTF-8, which pax wants.
//!
//! ```text
//!   name    at most 100 bytes, else in an `L` entry before   uid, gid   0, without names
//!   link    at most 100 bytes, else in a `K` entry before    mtime      1 s, as Nix has it
//!   mode    as given                                         others     empty
//! ```

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// Seconds since the epoch. Nix sets it on all that is in the store: with 0, some programs take a
/// file for one without a time.
const MTIME: u64 = 1;

/// Permissions of links, which nothing looks at.
const LINK_MODE: u32 = 0o777;

/// Bytes of a header's fields for the name and for the target of a link.
const NAME_FIELD: usize = 100;

/// The name that says: the contents of this entry are a long name of the next one.
const LONG_NAME: &[u8] = b"././@LongLink";

/// Writes a deterministic tar archive: equal calls, equal bytes.
///
/// Paths are relative to the image's root. Parents come before what is in them; that and the order
/// of the rest are up to the caller.
pub(crate) struct TarWriter<W: Write> {
    builder: Builder<W>,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive.
    pub(crate) fn new(out: W) -> TarWriter<W> {
        TarWriter {
            builder: Builder::new(out),
        }
    }

    /// Adds a directory.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub(crate) fn directory(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        // The slash at the end is what GNU tar writes, and very old readers go by.
        self.name(&path.join(""))?
            .entry(EntryType::Directory, mode, 0, io::empty())
    }

    /// Adds a file of exactly `size` bytes, as its contents stream by.
    ///
    /// # Errors
    ///
    /// When the output fails, or the contents can't be read or end before `size` bytes.
    pub(crate) fn file(
        &mut self,
        path: &Path,
        mode: u32,
        size: u64,
        contents: impl Read,
    ) -> io::Result<()> {
        self.name(path)?
            .entry(EntryType::Regular, mode, size, Exactly::new(contents, size))
    }

    /// Adds a symbolic link; its target is stored as it is.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub(crate) fn symlink(&mut self, path: &Path, target: &OsStr) -> io::Result<()> {
        self.name(path)?
            .link_to(target)?
            .entry(EntryType::Symlink, LINK_MODE, 0, io::empty())
    }

    /// Adds another name for a file that is in the archive already and has this mode.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub(crate) fn hard_link(&mut self, path: &Path, mode: u32, earlier: &Path) -> io::Result<()> {
        self.name(path)?
            .link_to(earlier.as_os_str())?
            .entry(EntryType::Link, mode, 0, io::empty())
    }

    /// Ends the archive and hands back the output, which is not flushed.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub(crate) fn finish(self) -> io::Result<W> {
        self.builder.into_inner()
    }

    fn name(&mut self, path: &Path) -> io::Result<Entry<'_, W>> {
        let mut header = header(MTIME);
        let name = path.as_os_str().as_bytes();
        let old = header.as_old_mut();
        set_or_announce(
            &mut self.builder,
            EntryType::GNULongName,
            &mut old.name,
            name,
        )?;
        Ok(Entry {
            builder: &mut self.builder,
            header,
        })
    }
}

/// An entry that has its name. The library's own ways of naming entries and their targets are for
/// people's paths: they tidy up (`./a//b` to `a/b`), and fail on some names that aren't UTF-8.
struct Entry<'a, W: Write> {
    builder: &'a mut Builder<W>,
    header: Header,
}

impl<W: Write> Entry<'_, W> {
    fn link_to(mut self, target: &OsStr) -> io::Result<Self> {
        let field = &mut self.header.as_old_mut().linkname;
        set_or_announce(
            self.builder,
            EntryType::GNULongLink,
            field,
            target.as_bytes(),
        )?;
        Ok(self)
    }

    fn entry(
        mut self,
        kind: EntryType,
        mode: u32,
        size: u64,
        contents: impl Read,
    ) -> io::Result<()> {
        self.header.set_entry_type(kind);
        self.header.set_mode(mode);
        self.header.set_size(size);
        self.header.set_cksum();
        self.builder.append(&self.header, contents)
    }
}

/// Puts a name into its field of a header. One that is too long goes into an entry of its own
/// first, followed by a zero byte; the field then has its beginning, which nothing reads.
fn set_or_announce<W: Write>(
    builder: &mut Builder<W>,
    kind: EntryType,
    field: &mut [u8; NAME_FIELD],
    name: &[u8],
) -> io::Result<()> {
    if name.len() > field.len() {
        let mut header = header(0);
        header.as_old_mut().name[..LONG_NAME.len()].copy_from_slice(LONG_NAME);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(name.len() as u64 + 1);
        header.set_cksum();
        builder.append(&header, name.chain(&b"\0"[..]))?;
    }
    let fitting = name.len().min(field.len());
    field[..fitting].copy_from_slice(&name[..fitting]);
    Ok(())
}

fn header(mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header
}

/// A reader of `remaining` bytes, neither more nor fewer: the header has promised as many, and
/// anything else would shift all later entries.
pub(super) struct Exactly<R> {
    contents: R,
    remaining: u64,
}

impl<R: Read> Exactly<R> {
    /// Reads as many bytes and no more.
    pub(super) const fn new(contents: R, size: u64) -> Self {
        Self {
            contents,
            remaining: size,
        }
    }

    /// What it reads from.
    pub(super) fn into_inner(self) -> R {
        self.contents
    }
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.contents).take(self.remaining).read(buffer)?;
        if count == 0 && self.remaining > 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file is {} bytes shorter than it was", self.remaining),
            ));
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    /// Writes an archive and lists it with the library's reader: type, path, target, contents.
    fn written(
        write: impl FnOnce(&mut TarWriter<Vec<u8>>),
    ) -> Vec<(EntryType, PathBuf, Option<PathBuf>, String)> {
        let mut tar = TarWriter::new(Vec::new());
        write(&mut tar);
        let bytes = tar.finish().unwrap();
        tar::Archive::new(&bytes[..])
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut contents = String::new();
                entry.read_to_string(&mut contents).unwrap();
                let target = entry.link_name().unwrap().map(Into::into);
                (
                    entry.header().entry_type(),
                    entry.path().unwrap().into(),
                    target,
                    contents,
                )
            })
            .collect()
    }

    #[test]
    fn headers_hold_nothing_of_the_machine() {
        let mut tar = TarWriter::new(Vec::new());
        tar.file(Path::new("a"), 0o444, 1, &b"x"[..]).unwrap();
        let bytes = tar.finish().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        let header = entry.header();
        assert_eq!(
            (
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mtime().unwrap(),
                header.mode().unwrap()
            ),
            (0, 0, 1, 0o444)
        );
        let gnu = header.as_gnu().unwrap();
        assert!(
            [
                &gnu.uname[..],
                &gnu.gname,
                &gnu.dev_major,
                &gnu.dev_minor,
                &gnu.atime,
                &gnu.ctime
            ]
            .iter()
            .all(|field| field.iter().all(|&byte| byte == 0))
        );
    }

    #[test]
    fn targets_are_kept_to_the_letter() {
        for target in ["./a//b/", "../../x", "/", "bash", "a/../b"] {
            let entries = written(|tar| tar.symlink(Path::new("l"), OsStr::new(target)).unwrap());
            assert_eq!(entries[0].2.as_ref().unwrap().as_os_str(), target);
        }
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        let mut tar = TarWriter::new(Vec::new());
        let error = tar.file(Path::new("a"), 0o444, 3, &b"xy"[..]).unwrap_err();
        assert_eq!(error.to_string(), "the file is 1 bytes shorter than it was");
    }

    #[test]
    fn a_file_that_grew_is_cut_where_its_header_says() {
        let entries = written(|tar| {
            tar.file(Path::new("a"), 0o444, 2, &b"xyz"[..]).unwrap();
            tar.directory(Path::new("b"), 0o555).unwrap();
        });
        assert_eq!(entries[0].3, "xy");
        assert_eq!(entries[1].1, Path::new("b"));
    }

    fn long_name() -> impl Strategy<Value = OsString> {
        prop::collection::vec(any::<u8>().prop_filter("", |b| !b"\0/".contains(b)), 1..250)
            .prop_filter("no name", |name| name != b"." && name != b"..")
            .prop_map(OsString::from_vec)
    }

    proptest! {
        #[test]
        fn any_name_and_any_target_are_read_back(
            names in prop::collection::vec(long_name(), 1..4),
            target in long_name(),
        ) {
            let path: PathBuf = names.iter().collect();
            let entries = written(|tar| {
                tar.file(&path, 0o555, 2, &b"hi"[..]).unwrap();
                tar.symlink(&path, &target).unwrap();
                tar.hard_link(&path, 0o444, &path).unwrap();
                tar.directory(&path, 0o555).unwrap();
            });
            let target = PathBuf::from(target);
            prop_assert_eq!(entries, vec![
                (EntryType::Regular, path.clone(), None, "hi".to_owned()),
                (EntryType::Symlink, path.clone(), Some(target), String::new()),
                (EntryType::Link, path.clone(), Some(path.clone()), String::new()),
                (EntryType::Directory, path, None, String::new()),
            ]);
        }
    }
}
