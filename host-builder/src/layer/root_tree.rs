//! What an image has outside of the store: directories, links into the store and a few small files.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Component, Path};

use super::PackError;
use super::tar::TarWriter;

/// Permissions of a directory that asks for no others.
pub(super) const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

type Entries = BTreeMap<OsString, Entry>;

/// The directories, links and files of an image outside of `/nix/store`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RootTree {
    pub(super) entries: Entries,
}

/// One name in a [`RootTree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A directory and what is in it.
    Directory {
        /// Permissions.
        mode: u32,
        /// Sorted by the bytes of the names.
        entries: BTreeMap<OsString, Entry>,
    },
    /// A file of the image's own; all others are links into the store.
    File(&'static str),
    /// A symbolic link and its target.
    Symlink(OsString),
}

impl Entry {
    /// An empty directory.
    pub(crate) fn directory(mode: u32) -> Entry {
        Entry::Directory {
            mode,
            entries: Entries::new(),
        }
    }
}

impl RootTree {
    /// What is at a path relative to the root. Links are not followed.
    pub(crate) fn get(&self, path: &Path) -> Option<&Entry> {
        let mut names = names(path);
        let mut entry = self.entries.get(names.next()?)?;
        for name in names {
            match entry {
                Entry::Directory { entries, .. } => entry = entries.get(name)?,
                Entry::File(_) | Entry::Symlink(_) => return None,
            }
        }
        Some(entry)
    }

    /// Puts `entry` at a path relative to the root, unless a package has something there already,
    /// or in place of a directory above. Missing directories are made.
    pub(super) fn put_if_absent(&mut self, path: &Path, entry: Entry) {
        if let Some(btree_map::Entry::Vacant(vacant)) = self.slot(path) {
            vacant.insert(entry);
        }
    }

    /// Like [`put_if_absent`](Self::put_if_absent) for a directory whose permissions matter: one
    /// that is there gets them.
    pub(super) fn put_directory(&mut self, path: &Path, wanted: u32) {
        match self
            .slot(path)
            .map(|slot| slot.or_insert_with(|| Entry::directory(wanted)))
        {
            Some(Entry::Directory { mode, .. }) => *mode = wanted,
            Some(Entry::File(_) | Entry::Symlink(_)) | None => {}
        }
    }

    /// The place of a path in its directory; nothing when something else is in that one's place.
    fn slot(&mut self, path: &Path) -> Option<btree_map::Entry<'_, OsString, Entry>> {
        let mut names = names(path);
        let last = names.next_back()?;
        let mut directory = &mut self.entries;
        for name in names {
            match directory
                .entry(name.to_owned())
                .or_insert_with(|| Entry::directory(DIRECTORY_MODE))
            {
                Entry::Directory { entries, .. } => directory = entries,
                Entry::File(_) | Entry::Symlink(_) => return None,
            }
        }
        Some(directory.entry(last.to_owned()))
    }

    /// Writes all of it, parents first. See [`super::pack_root`].
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
            Entry::Directory { mode, entries } => {
                tar.directory(&path, *mode)?;
                write_entries(tar, &path, entries)?;
            }
            Entry::File(text) => tar.file(&path, FILE_MODE, text.len() as u64, text.as_bytes())?,
            Entry::Symlink(target) => tar.symlink(&path, target)?,
        }
    }
    Ok(())
}
