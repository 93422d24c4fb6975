//! What a package set has, known before anybody asks: the index.
//!
//! ```text
//!   the pinned set ──► survey ── chunks ──► Nix, in the background
//!                        ▲                    │ answers
//!                        └── the rest ────────┤
//!                                             ▼
//!                       index/<key>.draft, a line for each name ──all──► storage, for all builders
//!                                                                  └───► Index
//! ```
//!
//! An index tells of each name its outputs, without an evaluation, and of each output its names: names with
//! one output are one package. nixpkgs takes most of an hour on one processor, so it is made in the
//! background, once for all builders that share storage; a builder that is stopped goes on where it was.
//! Until it is complete, there is none, and Nix is asked.

mod file;
mod listing;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use nixgate_core::package_set::System;
use parking_lot::Mutex;

use crate::fingerprint::Fingerprint;
use crate::memo::{Bound, Known, Lifetime, Memo, Panicked};
use crate::nix::{Described, Nix, NixError};
use crate::process::ProcessError;
use crate::source::{Pin, Sources};
use crate::storage::{Key, Storage, StorageError};
use crate::telemetry::logging::chain;
use crate::telemetry::metrics::Metrics;

use file::{Draft, State};
use survey::{Ended, Survey, TooManyFailed};

pub(crate) use file::Index;
pub(crate) use listing::Listing;

/// Must change whenever `nix/attributes.nix` or the lines of an index do.
const FORMAT: &str = "index-1";
/// Indexes that are kept on this machine: of the newest package set, and of images that were made of older
/// ones and are pulled by digest. Each takes up to 60 MB of disk, and 10 MB of memory.
const MAX_LOADED: usize = 4;
/// How often it is looked whether there is a new package set.
const POLL: Duration = Duration::from_secs(5);
/// How long an index is kept without looking: it never changes.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// How long it is remembered that storage has no index.
const ABSENT: Duration = Duration::from_secs(30);
/// How long a request waits at most for an index that is fetched from storage.
pub(crate) const WAIT: Duration = Duration::from_secs(5);
/// After a failure.
const RETRY: Duration = Duration::from_secs(600);
/// Between two lines of the log on the progress.
const REPORT: Duration = Duration::from_secs(60);
/// How names of unfinished files begin.
const UNPACKING: &str = "unpacking-";
/// Bytes of an index, unpacked.
const MAX_BYTES: u64 = 1 << 30;

/// The indexes of a source's package sets. Clones share them.
#[derive(Clone)]
pub(crate) struct Indexes {
    nix: Arc<dyn Nix>,
    storage: Storage,
    sources: Sources,
    /// Drafts, and the indexes in use.
    folder: PathBuf,
    metrics: Metrics,
    loaded: Memo<Option<Arc<Index>>, NotKnown>,
    /// The systems that clients asked for.
    systems: Arc<Mutex<BTreeSet<System>>>,
    /// Whether there are any.
    enabled: bool,
    /// [`POLL`] and [`ABSENT`].
    poll: Duration,
    absent: Duration,
}

/// Nobody knows yet whether there is an index. The log may have the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotKnown;

impl From<Panicked> for NotKnown {
    fn from(_: Panicked) -> Self {
        Self
    }
}

/// Why an index was not made.
#[derive(Debug, thiserror::Error)]
enum IndexError {
    #[error(transparent)]
    Nix(#[from] NixError),
    #[error("{0}")]
    Storage(#[from] StorageError),
    #[error("cannot write the index to the state folder: {0}")]
    File(#[from] io::Error),
    #[error("{0}")]
    TooManyFailed(#[from] TooManyFailed),
    #[error("the package set is no set of packages")]
    NoSet,
    /// It would be one of a package set that nobody uses any more.
    #[error("there is a newer package set")]
    Outdated,
}

impl Indexes {
    /// `folder` gets the files. Without `enabled`, there are no indexes.
    pub(crate) fn new(
        nix: Arc<dyn Nix>,
        storage: Storage,
        sources: Sources,
        folder: PathBuf,
        metrics: Metrics,
        enabled: bool,
    ) -> Self {
        Self {
            nix,
            storage,
            sources,
            folder,
            metrics,
            loaded: Memo::new(Bound {
                most: MAX_LOADED,
                always: "",
                window: POLL,
            }),
            systems: Arc::default(),
            enabled,
            poll: POLL,
            absent: ABSENT,
        }
    }

    /// The index of the package set with this revision, if it is complete. Waits at most `wait` for one that
    /// is fetched from storage.
    ///
    /// # Errors
    /// When nobody knows yet whether there is one.
    pub(crate) async fn of(
        &self,
        revision: &str,
        system: System,
        wait: Duration,
    ) -> Result<Option<Arc<Index>>, NotKnown> {
        if !self.enabled {
            return Ok(None);
        }
        self.systems.lock().insert(system);
        let key = self.key(revision, system);
        let answer = self.loaded.get(&key, wait.min(WAIT), (), |_: &[()]| {
            let (indexes, key) = (self.clone(), key.clone());
            Ok(Box::pin(async move { indexes.load_once(&key).await }) as _)
        });
        match answer.await {
            Ok(Known::Value(index, _)) => Ok(index),
            Ok(Known::Pending(_)) | Err(_) => Err(NotKnown),
        }
    }

    async fn load_once(&self, key: &str) -> (Result<Option<Arc<Index>>, NotKnown>, Lifetime) {
        match self.load(key).await {
            Ok(Some(index)) => (Ok(Some(index)), Lifetime::fresh(FRESH)),
            Ok(None) => (Ok(None), Lifetime::fresh(self.absent)),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "cannot use the index of a package set");
                (Err(NotKnown), Lifetime::fresh(self.absent))
            }
        }
    }

    /// Makes the index of each package set that `latest` means, for the default system and for those that
    /// clients ask for, until this is dropped.
    pub(crate) async fn keep_making(self, system: System) {
        if !self.enabled {
            return;
        }
        self.systems.lock().insert(system);
        let mut made = BTreeSet::new();
        // When an index that failed is tried again.
        let mut failed: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            tokio::time::sleep(self.poll).await;
            let Some(pin) = self.sources.latest() else {
                continue;
            };
            let systems = self.systems.lock().clone();
            let of = |system: System| (system, self.key(&pin.revision, system));
            // The default one first.
            let wanted: Vec<_> = [system].into_iter().chain(systems).map(of).collect();
            failed.retain(|key, again| {
                wanted.iter().any(|(_, wanted)| wanted == key) && *again > Instant::now()
            });
            let is_due = |key: &String| !made.contains(key) && !failed.contains_key(key);
            let Some((system, key)) = wanted.iter().find(|(_, key)| is_due(key)) else {
                continue;
            };
            match self.make(&pin, *system, key).await {
                Ok(()) => {
                    made.insert(key.clone());
                    self.loaded.forget(key);
                    let keys: Vec<_> = wanted.iter().map(|(_, key)| key.as_str()).collect();
                    self.remove_others(&keys);
                }
                Err(IndexError::Outdated) => {}
                Err(error) => {
                    failed.insert(key.clone(), Instant::now() + RETRY);
                    let (error, revision) = (chain(&error), &pin.revision);
                    tracing::warn!(
                        error,
                        revision,
                        "cannot make the index of the package set: names are evaluated one by one"
                    );
                }
            }
        }
    }

    /// Makes an index and stores it, unless storage has it.
    async fn make(&self, pin: &Pin, system: System, key: &str) -> Result<(), IndexError> {
        match self.load(key).await {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(IndexError::File(error)) if is_damage(&error) => {
                tracing::warn!(%error, "the stored index of the package set is damaged: it is made again");
            }
            Err(error) => return Err(error),
        }
        std::fs::create_dir_all(&self.folder)?;
        let draft = self.folder.join(format!("{key}.draft"));
        let path = draft.clone();
        let (mut file, known) = unblock(move || Draft::open(&path)).await?;
        let names = self.top(pin, system).await?;
        let started = Instant::now();
        let (revision, resumed) = (&pin.revision, known.len());
        tracing::info!(
            revision,
            system = system.nix(),
            names = names.len(),
            resumed,
            "making the index of the package set in the background"
        );
        let mut survey = Survey::new(names, known);
        let mut reported = Instant::now();
        while let Some(chunk) = survey.next() {
            if self.sources.latest().as_ref() != Some(pin) {
                let _ = std::fs::remove_file(&draft);
                return Err(IndexError::Outdated);
            }
            let (answers, ended) = self.nix.describe(&pin.path, system, &chunk).await;
            let ended = match ended {
                Ok(()) => Ended::Whole,
                Err(NixError::Process(error @ ProcessError::Failed { .. })) => {
                    Ended::Failed(reason(&error))
                }
                Err(NixError::Process(
                    error @ (ProcessError::OutOfMemory { .. } | ProcessError::TimedOut { .. }),
                )) => Ended::Limit(reason(&error)),
                Err(error) => return Err(error.into()),
            };
            if answers.is_empty() {
                // It may be the fault of this machine: then no name is to blame.
                self.top(pin, system).await?;
            }
            let learnt = survey.answered(chunk, answers, ended)?;
            file = unblock(move || {
                file.add(&learnt)?;
                Ok(file)
            })
            .await?;
            let (looked_at, names) = survey.progress();
            self.metrics.index_progress(looked_at, names);
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                tracing::info!(looked_at, names, "making the index of the package set");
            }
        }
        let index = draft.clone();
        let finish = move || {
            file.finish()?;
            Ok((pack(&index)?, Index::open(&index)?))
        };
        let (packed, index) = unblock(finish).await?;
        let bytes = packed.len();
        self.storage.put(&Key::index(key), packed.into()).await?;
        std::fs::rename(&draft, self.file(key))?;
        let count = |state| index.names().filter(|(_, one)| *one == state).count();
        let failed: Vec<&str> = index
            .names()
            .filter_map(|(name, state)| (state == State::Failed).then_some(name))
            .collect();
        if !failed.is_empty() {
            let (number, names) = (failed.len(), failed[..failed.len().min(20)].join(", "));
            tracing::warn!(number, names, "Nix cannot evaluate some names at all");
        }
        tracing::info!(
            revision,
            system = system.nix(),
            packages = count(State::Package),
            unusable = count(State::Unusable),
            failed = failed.len(),
            bytes,
            seconds = started.elapsed().as_secs(),
            "the index of the package set is complete"
        );
        Ok(())
    }

    /// The names at the top of a package set.
    async fn top(&self, pin: &Pin, system: System) -> Result<Vec<String>, IndexError> {
        let (top, ended) = self.nix.describe(&pin.path, system, &[Vec::new()]).await;
        ended?;
        match top.into_iter().next() {
            Some(Described::Set { names, .. }) => Ok(names),
            _ => Err(IndexError::NoSet),
        }
    }

    /// Opens an index of this machine, or of storage.
    async fn load(&self, key: &str) -> Result<Option<Arc<Index>>, IndexError> {
        match self.load_now(key).await {
            // Another one has just found that the file was damaged, and removed it.
            Err(IndexError::File(error)) if error.kind() == io::ErrorKind::NotFound => {
                self.load_now(key).await
            }
            loaded => loaded,
        }
    }

    async fn load_now(&self, key: &str) -> Result<Option<Arc<Index>>, IndexError> {
        let path = self.file(key);
        if !path.exists() {
            let Some(packed) = self.storage.get(&Key::index(key)).await? else {
                return Ok(None);
            };
            let path = path.clone();
            unblock(move || unpack(&packed, &path)).await?;
        }
        let open = move || {
            Index::open(&path).inspect_err(|error| {
                // The next one to come fetches it again.
                if is_damage(error) {
                    let _ = std::fs::remove_file(&path);
                }
            })
        };
        Ok(Some(Arc::new(unblock(open).await?)))
    }

    /// Removes the files of older package sets. An index that is in use stays readable.
    fn remove_others(&self, keys: &[&str]) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // What is being unpacked has a name of its own.
            let is_kept =
                name.starts_with(UNPACKING) || keys.iter().any(|key| name.starts_with(key));
            if !is_kept {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn key(&self, revision: &str, system: System) -> String {
        Fingerprint::new(FORMAT)
            .part(self.sources.identity())
            .part(revision)
            .part(system.nix())
            .hex()
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder.join(key)
    }
}

/// Why a name can't be evaluated, in a line.
fn reason(error: &ProcessError) -> String {
    let stderr = match error {
        ProcessError::Failed { stderr, .. } => crate::nix::reason(stderr),
        _ => None,
    };
    stderr.unwrap_or_else(|| error.to_string())
}

/// Does work with files where it holds up nobody.
///
/// # Errors
/// Those of the work.
pub(crate) async fn unblock<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(io::Error::other)?
}

/// An index as it is stored.
fn pack(path: &Path) -> io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    io::copy(&mut std::fs::File::open(path)?, &mut packed)?;
    packed.finish()
}

/// Writes a stored index to a file, which is whole or not there.
fn unpack(packed: &[u8], path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(UNPACKING)
        .tempfile_in(folder)?;
    let mut unpacked = GzDecoder::new(packed).take(MAX_BYTES + 1);
    if io::copy(&mut unpacked, &mut file)? > MAX_BYTES {
        let reason = "the stored index is too long";
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error).map(drop)
}

/// Whether a file has to be made again: it is damaged, or another one has found that and removed it.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(
        error.kind(),
        InvalidData | InvalidInput | NotFound | UnexpectedEof
    )
}

#[cfg(test)]
impl Indexes {
    /// For packages of a folder, where it has its files as well.
    pub(crate) fn example(nix: Arc<dyn Nix>, folder: &Path, enabled: bool) -> Self {
        use crate::process::NetworkSettings;
        use crate::source::{Source, SourceSettings};
        use crate::telemetry::build_log::BuildLogs;

        let storage = Storage::filesystem(&folder.join("storage")).unwrap();
        let source = Source::Path {
            path: folder.to_owned(),
        };
        let settings = SourceSettings {
            source,
            system: System::X86_64Linux,
            any_tag: false,
            hold: POLL,
            max_refs: 1,
            network: NetworkSettings::default(),
        };
        let sources =
            Sources::new(settings, Arc::clone(&nix), BuildLogs::default(), folder).unwrap();
        let index = folder.join("index");
        Self {
            poll: Duration::from_millis(1),
            absent: Duration::from_millis(1),
            ..Self::new(nix, storage, sources, index, Metrics::new(), enabled)
        }
    }
}

#[cfg(test)]
mod tests;
