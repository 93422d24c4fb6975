//! The files of an image outside of the store: directories, links into the store, a few small files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Component, Path};

use super::PackError;
use super::tar::TarWriter;

/// Default permissions of a directory.
pub(super) const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// Sorted by the bytes of the names.
type Entries = BTreeMap<OsString, RootEntry>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RootTree {
    pub(super) entries: Entries,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RootEntry {
    Directory(RootDirectory),
    /// With its text. Packages' files are links into the store.
    File(Cow<'static, str>),
    /// With its target.
    Symlink(OsString),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootDirectory {
    /// Permissions.
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) entries: Entries,
    /// The directory in the store that has all of these entries and no other, if one package has made it.
    pub(super) alone: Option<OsString>,
}

/// The user and the group that own a directory, by their numbers. Everything else is root's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl RootEntry {
    fn empty_directory(mode: u32, owner: Owner) -> Self {
        Self::Directory(RootDirectory {
            mode,
            owner,
            entries: Entries::new(),
            alone: None,
        })
    }
}

impl RootTree {
    /// The entry at a path relative to the root. Does not follow links.
    pub(crate) fn get(&self, path: &Path) -> Option<&RootEntry> {
        let mut names = names(path);
        let mut entry = self.entries.get(names.next()?)?;
        for name in names {
            match entry {
                RootEntry::Directory(directory) => entry = directory.entries.get(name)?,
                RootEntry::File(_) | RootEntry::Symlink(_) => return None,
            }
        }
        Some(entry)
    }

    /// The text of a file that is the image's own.
    pub(super) fn text_mut(&mut self, path: &Path) -> Option<&mut String> {
        match self.slot(path)? {
            btree_map::Entry::Occupied(entry) => match entry.into_mut() {
                RootEntry::File(text) => Some(text.to_mut()),
                RootEntry::Directory(_) | RootEntry::Symlink(_) => None,
            },
            btree_map::Entry::Vacant(_) => None,
        }
    }

    /// Adds an entry at a path relative to the root, with its parent directories, unless a package has
    /// that path, or a file or link in place of a parent.
    pub(super) fn put_if_absent(&mut self, path: &Path, entry: RootEntry) {
        if let Some(btree_map::Entry::Vacant(vacant)) = self.slot(path) {
            vacant.insert(entry);
        }
    }

    /// Like [`put_if_absent`](Self::put_if_absent) for a directory; sets the permissions of an existing
    /// one.
    pub(super) fn put_directory(&mut self, path: &Path, wanted: u32) {
        match self.slot(path).map(|slot| {
            slot.or_insert_with(|| RootEntry::empty_directory(wanted, Owner::default()))
        }) {
            Some(RootEntry::Directory(directory)) => directory.mode = wanted,
            Some(RootEntry::File(_) | RootEntry::Symlink(_)) | None => {}
        }
    }

    /// Adds a directory of somebody else than root; its parents are root's. Returns whether it could: not if
    /// there is something, or a file or link in place of a parent.
    pub(super) fn put_owned_directory(&mut self, path: &Path, mode: u32, owner: Owner) -> bool {
        let Some(btree_map::Entry::Vacant(vacant)) = self.slot(path) else {
            return false;
        };
        vacant.insert(RootEntry::empty_directory(mode, owner));
        true
    }

    /// The map entry of a path in its directory; none if a parent is no directory.
    fn slot(&mut self, path: &Path) -> Option<btree_map::Entry<'_, OsString, RootEntry>> {
        let mut names = names(path);
        let last = names.next_back()?;
        let mut directory = &mut self.entries;
        for name in names {
            match directory
                .entry(name.to_owned())
                .or_insert_with(|| RootEntry::empty_directory(DIRECTORY_MODE, Owner::default()))
            {
                RootEntry::Directory(below) => directory = &mut below.entries,
                RootEntry::File(_) | RootEntry::Symlink(_) => return None,
            }
        }
        Some(directory.entry(last.to_owned()))
    }

    /// Writes all entries, parents first. See [`super::pack_root`].
    pub(super) fn write<W: Write>(&self, tar: &mut TarWriter<W>) -> Result<(), PackError> {
        write_entries(tar, Path::new(""), &self.entries).map_err(PackError::Write)
    }
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

fn write_entries<W: Write>(tar: &mut TarWriter<W>, at: &Path, entries: &Entries) -> io::Result<()> {
    for (name, entry) in entries {
        let path = at.join(name);
        match entry {
            RootEntry::Directory(directory) => {
                let Owner { uid, gid } = directory.owner;
                tar.directory_of(&path, directory.mode, uid, gid)?;
                write_entries(tar, &path, &directory.entries)?;
            }
            RootEntry::File(text) => {
                tar.file(&path, FILE_MODE, text.len() as u64, text.as_bytes())?;
            }
            RootEntry::Symlink(target) => tar.symlink(&path, target)?,
        }
    }
    Ok(())
}
