//! An index in a file, which is looked up without reading it whole.
//!
//! ```text
//!   ["python3Packages","requests"] ⇥ {"kind":"package","outputs":{"out":"/nix/store/…"}, … } ⏎
//! ```
//!
//! A line is what is known of one name. Memory has the names and the outputs' hashes with the places of
//! their lines: about 100 bytes for a name of nixpkgs, whose line has 500. Lines are appended while a
//! package set is looked at; one that is cut off, since the builder was killed, is dropped. The last line of
//! a whole index has the number of the others: a file that lost its end is none.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nixgate_core::package_set::canonical_path;
use serde::Deserialize;

use super::survey::AttributePath;
use crate::closure::StorePath;
use crate::nix::{Derivation, Described};

/// The kind of the last line.
const END: &str = "end";
/// How much longer or shorter a name is that may have been meant.
const NEAR: usize = 2;
/// Bytes of a line.
const MAX_LINE: u32 = 2 << 20;

/// The packages of one package set, for one system.
#[derive(Debug)]
pub(crate) struct Index {
    file: File,
    /// Sorted by name.
    names: Vec<Name>,
    /// The hashes of all outputs with the places of their packages in `names`, sorted.
    outputs: Vec<(Hash, u32)>,
}

/// The hash in a store path.
type Hash = [u8; 32];

/// A name, in lower case as in images' names.
#[derive(Debug)]
struct Name {
    name: Box<str>,
    /// Where its line is.
    start: u64,
    length: u32,
    state: State,
}

/// Whether a name can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Package,
    /// Nix refuses it: unfree, insecure, broken, or for other systems.
    Unusable,
    /// It can't be evaluated.
    Failed,
}

impl Index {
    /// Reads the names of a file.
    ///
    /// # Errors
    /// When it can't be read, or has a line that is none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        /// What of a line is kept in memory.
        #[derive(Deserialize)]
        struct Known {
            kind: String,
            #[serde(default)]
            outputs: HashMap<String, StorePath>,
            #[serde(default)]
            lines: usize,
        }
        let file = File::open(path)?;
        let (mut names, mut outputs) = (Vec::new(), Vec::new());
        let (mut lines, mut is_whole) = (0, false);
        for_each_line(&file, |start, line| {
            let (path, known) = split(line)?;
            let known: Known = serde_json::from_slice(known)?;
            is_whole = known.kind == END && known.lines == lines;
            lines += 1;
            let state = match known.kind.as_str() {
                "package" => State::Package,
                "unusable" => State::Unusable,
                "failed" => State::Failed,
                _ => return Ok(()),
            };
            names.push(Name {
                name: canonical_path(&path.join(".")).into(),
                start,
                length: u32::try_from(line.len()).map_err(io::Error::other)?,
                state,
            });
            outputs.push(
                known
                    .outputs
                    .into_values()
                    .filter_map(|path| hash(&path))
                    .collect(),
            );
            Ok(())
        })?;
        if !is_whole {
            return Err(damaged("its end is missing"));
        }
        let mut order: Vec<(Name, Vec<Hash>)> = names.into_iter().zip(outputs).collect();
        order.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        let (names, hashes): (Vec<Name>, Vec<Vec<Hash>>) = order.into_iter().unzip();
        let places = hashes.into_iter().zip(0..);
        let mut outputs: Vec<(Hash, u32)> = places
            .flat_map(|(hashes, place)| hashes.into_iter().map(move |hash| (hash, place)))
            .collect();
        outputs.sort_unstable();
        outputs.shrink_to_fit();
        Ok(Self {
            file,
            names,
            outputs,
        })
    }

    /// The derivation of a package, by its name or by that with an output (`git`, `git.doc`). None for
    /// names that can't be built, and for those that lead through a package.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn derivation(&self, name: &str) -> io::Result<Option<Derivation>> {
        let found = self.find(name).map(|found| (found, None)).or_else(|| {
            let (package, output) = name.rsplit_once('.')?;
            Some((self.find(package)?, Some(output)))
        });
        let Some((found, output)) = found.filter(|(found, _)| found.state == State::Package) else {
            return Ok(None);
        };
        let mut line = vec![0; found.length as usize];
        self.file.read_exact_at(&mut line, found.start)?;
        let (_, described) = split(&line)?;
        match serde_json::from_slice(described)? {
            Described::Package(package) => Ok(package.into_derivation(output)),
            _ => Ok(None),
        }
    }

    /// All names of the packages with one of these outputs.
    pub(crate) fn names_of(&self, outputs: &[StorePath]) -> BTreeSet<String> {
        let hashes = outputs.iter().filter_map(hash);
        let places = hashes.flat_map(|hash| {
            let start = self.outputs.partition_point(|(other, _)| *other < hash);
            let same = self.outputs[start..].iter();
            same.take_while(move |(other, _)| *other == hash)
        });
        let names = places.filter_map(|(_, place)| self.names.get(*place as usize));
        names.map(|name| name.name.to_string()).collect()
    }

    /// All names of a package.
    pub(crate) fn same(&self, name: &str) -> BTreeSet<String> {
        let Ok(Some(derivation)) = self.derivation(name) else {
            return BTreeSet::new();
        };
        let outputs: Vec<_> = derivation.outputs.into_iter().map(|one| one.path).collect();
        self.names_of(&outputs)
    }

    /// Whether a name can be built; none if there is no such name.
    pub(super) fn state(&self, name: &str) -> Option<State> {
        Some(self.find(name)?.state)
    }

    /// Whether there are names in a set of this name: then all of its names are there.
    pub(crate) fn lists(&self, set: &str) -> bool {
        let inside = format!("{set}.");
        let start = self.names.partition_point(|one| *one.name < *inside);
        let next = self.names.get(start);
        next.is_some_and(|next| next.name.starts_with(&inside))
    }

    /// Names that can't be evaluated for an index, as far as they match. An evaluation with more memory, or
    /// one that writes to the store, may succeed.
    pub(crate) fn failed<'a>(
        &'a self,
        matches: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = &'a str> {
        let failed = self.names.iter().filter(|one| one.state == State::Failed);
        failed
            .map(|one| &*one.name)
            .filter(move |name| matches(name))
    }

    /// Package names that begin as this one does and are about as long: what may have been meant.
    pub(crate) fn near(&self, name: &str) -> Vec<String> {
        let first = name.chars().next();
        let names = self.names.iter().filter(|other| {
            other.state == State::Package
                && other.name.chars().next() == first
                && other.name.len().abs_diff(name.len()) <= NEAR
        });
        names.map(|other| other.name.to_string()).collect()
    }

    /// All names, sorted, with whether they can be built.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, State)> {
        self.names.iter().map(|name| (&*name.name, name.state))
    }

    fn find(&self, name: &str) -> Option<&Name> {
        let place = self.names.binary_search_by(|one| (*one.name).cmp(name));
        self.names.get(place.ok()?)
    }
}

/// A file that grows while a package set is looked at.
pub(super) struct Draft(File);

impl Draft {
    /// Opens a file, which may be there already, and what is known by it.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn open(path: &Path) -> io::Result<(Self, HashMap<AttributePath, Described>)> {
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let (mut known, mut end) = (HashMap::new(), 0);
        let read = for_each_line(&file, |start, line| {
            let (path, described) = split(line)?;
            known.insert(path, serde_json::from_slice(described)?);
            end = start + line.len() as u64 + 1;
            Ok(())
        });
        if let Err(error) = read {
            tracing::warn!(%error, "the index of the package set was damaged: its end is made again");
        }
        file.set_len(end)?;
        Ok((Self(file), known))
    }

    /// Ends a whole index, and makes it durable.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let mut lines: usize = 0;
        for_each_line(&self.0, |_, _| {
            lines += 1;
            Ok(())
        })?;
        let end = serde_json::json!({ "kind": END, "lines": lines });
        self.0.write_all(format!("[]\t{end}\n").as_bytes())?;
        self.0.sync_all()
    }

    /// # Errors
    /// When the file can't be written.
    pub(super) fn add(&mut self, learnt: &[(AttributePath, Described)]) -> io::Result<()> {
        let mut lines = Vec::new();
        for (path, described) in learnt {
            serde_json::to_writer(&mut lines, path)?;
            lines.push(b'\t');
            serde_json::to_writer(&mut lines, described)?;
            lines.push(b'\n');
        }
        self.0.write_all(&lines)
    }
}

/// The error for a file that has to be made again.
fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Calls `found` with each whole line and where it starts.
fn for_each_line(
    mut file: &File,
    mut found: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    file.rewind()?;
    let mut reader = BufReader::new(file);
    let (mut line, mut start) = (Vec::new(), 0);
    loop {
        line.clear();
        let mut limited = io::Read::take(&mut reader, u64::from(MAX_LINE));
        let length = limited.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\n") {
            Some(line) => found(start, line)?,
            None if length as u64 == u64::from(MAX_LINE) => {
                return Err(damaged("a line is too long"));
            }
            // The end, maybe cut off.
            None => return Ok(()),
        }
        start += length as u64;
    }
}

/// A line's path, and the JSON of what is known of it.
fn split(line: &[u8]) -> io::Result<(AttributePath, &[u8])> {
    let tab = line.iter().position(|byte| *byte == b'\t');
    let (path, known) = line.split_at(tab.ok_or_else(|| damaged("a line has no path"))?);
    Ok((serde_json::from_slice(path)?, &known[1..]))
}

fn hash(path: &StorePath) -> Option<Hash> {
    path.hash_part().as_bytes().try_into().ok()
}

#[cfg(test)]
impl Index {
    /// An index of names with their outputs.
    pub(crate) fn example(names: &[(&str, StorePath)]) -> Self {
        let described = names.iter();
        Self::described(described.map(|(name, output)| (*name, Described::example(output))))
    }

    /// An index of names with what is known of them.
    pub(crate) fn described<'a>(names: impl IntoIterator<Item = (&'a str, Described)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let (mut draft, _) = Draft::open(&path).unwrap();
        let path_of = |name: &str| name.split('.').map(str::to_owned).collect();
        let names = names.into_iter();
        let learnt: Vec<_> = names.map(|(name, one)| (path_of(name), one)).collect();
        draft.add(&learnt).unwrap();
        draft.finish().unwrap();
        Self::open(&path).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str) -> StorePath {
        StorePath::example(name)
    }

    fn index() -> Index {
        Index::example(&[
            ("git", output("git")),
            ("python3Packages.requests", output("requests")),
            ("python313Packages.requests", output("requests")),
            ("_1password", output("1password")),
        ])
    }

    #[test]
    fn names_with_one_output_are_one_package() {
        let index = index();
        let names = |name: &str| -> Vec<String> {
            let names = index.names_of(&[output(name)]);
            names.into_iter().collect()
        };
        let both = ["python313packages.requests", "python3packages.requests"];
        assert_eq!(names("requests"), both);
        assert_eq!(names("git"), ["git"]);
        assert_eq!(names("htop"), [""; 0]);
    }

    #[test]
    fn derivations_are_found_by_name_and_by_output() {
        let index = index();
        let outputs = |name: &str| {
            let derivation = index.derivation(name).unwrap();
            derivation.map(|one| {
                one.outputs
                    .into_iter()
                    .map(|one| one.name)
                    .collect::<Vec<_>>()
            })
        };
        for name in ["git", "1password", "python3packages.requests", "git.out"] {
            assert_eq!(outputs(name), Some(vec!["out".to_owned()]), "{name}");
        }
        for name in ["git.doc", "git.out.out", "htop", "python3packages", ""] {
            assert_eq!(outputs(name), None, "{name}");
        }
    }

    #[test]
    fn a_file_that_lost_its_end_is_no_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let (mut draft, _) = Draft::open(&path).unwrap();
        let git = Described::example(&output("git"));
        draft.add(&[(vec!["git".to_owned()], git)]).unwrap();
        draft.finish().unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(Index::open(&path).unwrap().names().count(), 1);
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = Index::open(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
        }
        // One that lost a line in the middle.
        let end = whole.iter().position(|byte| *byte == b'\n').unwrap();
        std::fs::write(&path, &whole[end + 1..]).unwrap();
        assert!(Index::open(&path).is_err());
        // And a draft goes on behind the names.
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(Draft::open(&path).unwrap().1.len(), 1);
    }

    #[test]
    fn a_draft_goes_on_after_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("draft");
        let at = |name: &str| vec![name.to_owned()];
        let learn = |draft: &mut Draft, name| draft.add(&[(at(name), Described::Other)]).unwrap();
        let (mut draft, known) = Draft::open(&path).unwrap();
        assert!(known.is_empty());
        learn(&mut draft, "a");
        draft.0.write_all(b"[\"b\"]\t{\"ki").unwrap();
        let (mut draft, known) = Draft::open(&path).unwrap();
        assert_eq!(known, [(at("a"), Described::Other)].into());
        learn(&mut draft, "c");
        let (mut draft, known) = Draft::open(&path).unwrap();
        assert_eq!(known.len(), 2);
        draft.0.write_all(b"nonsense\n").unwrap();
        learn(&mut draft, "d");
        let (_, known) = Draft::open(&path).unwrap();
        assert_eq!(known.len(), 2);
    }
}
