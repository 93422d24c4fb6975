//! The archive format of layers: deterministic GNU tar.
//!
//! Every client reads GNU's format, and its long names are plain bytes. Pax requires UTF-8, which names in
//! the store need not be.
//!
//! ```text
//!   name    at most 100 bytes, else in an `L` entry before   uid, gid   0, unless given; without names
//!   link    at most 100 bytes, else in a `K` entry before    mtime      1 s, as Nix has it
//!   mode    as given                                         others     empty
//! ```

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// Seconds since the epoch, as Nix sets them in the store: some programs take 0 for a missing time.
const MTIME: u64 = 1;

/// Permissions of links, which have no effect.
const LINK_MODE: u32 = 0o777;

/// Bytes of a header's fields for the name and for the target of a link.
const NAME_FIELD: usize = 100;

/// The name of an entry whose contents are the long name of the next one.
const LONG_NAME: &[u8] = b"././@LongLink";

/// Writes an archive: equal calls give equal bytes. Paths are relative to the image's root. The caller
/// decides the order, and adds parents first.
pub(crate) struct TarWriter<W: Write> {
    builder: Builder<W>,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> TarWriter<W> {
        TarWriter {
            builder: Builder::new(out),
        }
    }

    /// Adds a directory of root's.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub(crate) fn directory(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        self.directory_of(path, mode, 0, 0)
    }

    /// Adds a directory of a user and a group.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub(crate) fn directory_of(
        &mut self,
        path: &Path,
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> io::Result<()> {
        let mut header = header(EntryType::Directory, mode, 0, MTIME);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        // GNU tar writes a slash at the end, which very old readers need.
        self.append(&path.join(""), None, header, io::empty())
    }

    /// Adds a file of exactly `size` bytes.
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
        let header = header(EntryType::Regular, mode, size, MTIME);
        self.append(path, None, header, ExactReader::new(contents, size))
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub(crate) fn symlink(&mut self, path: &Path, target: &OsStr) -> io::Result<()> {
        let header = header(EntryType::Symlink, LINK_MODE, 0, MTIME);
        self.append(path, Some(target), header, io::empty())
    }

    /// Adds a hard link to an earlier file with this mode.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub(crate) fn hard_link(&mut self, path: &Path, mode: u32, earlier: &Path) -> io::Result<()> {
        let header = header(EntryType::Link, mode, 0, MTIME);
        self.append(path, Some(earlier.as_os_str()), header, io::empty())
    }

    /// Ends the archive and returns the output, which is not flushed.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub(crate) fn finish(self) -> io::Result<W> {
        self.builder.into_inner()
    }

    /// Sets names as bytes: the library's own functions normalise them (`./a//b` to `a/b`), and fail on
    /// some that are not UTF-8.
    fn append(
        &mut self,
        path: &Path,
        target: Option<&OsStr>,
        mut header: Header,
        contents: impl Read,
    ) -> io::Result<()> {
        let fields = header.as_old_mut();
        let (field, name) = (&mut fields.name, path.as_os_str().as_bytes());
        set_name(&mut self.builder, EntryType::GNULongName, field, name)?;
        if let Some(target) = target {
            let (field, target) = (&mut fields.linkname, target.as_bytes());
            set_name(&mut self.builder, EntryType::GNULongLink, field, target)?;
        }
        header.set_cksum();
        self.builder.append(&header, contents)
    }
}

/// Sets a name in its field of a header. For a longer one, first writes an entry with the name and a zero
/// byte; the field then has the name's beginning, which is ignored.
fn set_name<W: Write>(
    builder: &mut Builder<W>,
    kind: EntryType,
    field: &mut [u8; NAME_FIELD],
    name: &[u8],
) -> io::Result<()> {
    if name.len() > field.len() {
        let mut header = header(kind, 0o644, name.len() as u64 + 1, 0);
        header.as_old_mut().name[..LONG_NAME.len()].copy_from_slice(LONG_NAME);
        header.set_cksum();
        builder.append(&header, name.chain(&b"\0"[..]))?;
    }
    let fitting = name.len().min(field.len());
    field[..fitting].copy_from_slice(&name[..fitting]);
    Ok(())
}

/// A header without names and checksum.
fn header(kind: EntryType, mode: u32, size: u64, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header
}

/// Reads exactly `remaining` bytes, or fails: the header has that size, and any other number would shift
/// all later entries.
pub(super) struct ExactReader<R> {
    contents: R,
    remaining: u64,
}

impl<R: Read> ExactReader<R> {
    pub(super) const fn new(contents: R, size: u64) -> Self {
        Self {
            contents,
            remaining: size,
        }
    }

    pub(super) fn into_inner(self) -> R {
        self.contents
    }
}

impl<R: Read> Read for ExactReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.contents).take(self.remaining).read(buffer)?;
        if count == 0 && self.remaining > 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file is {} bytes shorter than before", self.remaining),
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
        assert_eq!(error.to_string(), "the file is 1 bytes shorter than before");
    }

    #[test]
    fn a_file_that_grew_is_cut_to_the_size_in_its_header() {
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
