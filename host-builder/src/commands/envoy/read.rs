//! Reads what is to be checked: files and those that they name, or a running Envoy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;

use anyhow::{Context, Result, anyhow, ensure};
use regex::bytes::Regex;
use serde_json::Value;

use crate::telemetry::logging::VERSION;

use super::admin::{Admin, AdminClient};
use super::check::{BadFile, Module, Sources};
use super::gather::{Document, gather, references};

/// The largest file that is read, in bytes: the configurations of the largest meshes are smaller.
const LIMIT: u64 = 256 << 20;
/// The most files that a configuration may name.
const FILES: usize = 1000;
/// What a module of WebAssembly begins with.
const MAGIC: &[u8] = b"\0asm";

/// The version of a filter is in its module: the release, and twelve digits of the sources' hash.
static VERSION_PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[0-9]{1,3}\.[0-9]{1,4}\.[0-9]{1,4}\+[0-9a-f]{12}").expect("it is an expression")
});

/// Where the files of a configuration are.
#[derive(Debug, Default)]
pub(super) struct Folders {
    /// The folder that Envoy is started in.
    pub(super) directory: PathBuf,
    pub(super) maps: Vec<FolderMap>,
}

/// A folder that stands for another, on a machine that is not Envoy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FolderMap {
    from: PathBuf,
    to: PathBuf,
}

impl FromStr for FolderMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = text.split_once('=');
        let (from, to) = pair
            .filter(|(from, to)| !from.is_empty() && !to.is_empty())
            .ok_or("give two folders, such as /etc/envoy=envoy/ingress")?;
        Ok(Self {
            from: from.into(),
            to: to.into(),
        })
    }
}

impl Folders {
    /// The file that the configuration means by a path.
    fn find(&self, path: &str) -> PathBuf {
        let mapped = self.maps.iter().filter_map(|map| {
            let rest = Path::new(path).strip_prefix(&map.from).ok()?;
            Some(map.to.join(rest))
        });
        let mut mapped = mapped.filter(|path| path.exists());
        mapped.next().unwrap_or_else(|| self.directory.join(path))
    }
}

/// Asks a running Envoy.
pub(super) async fn running(admin: &Admin, folders: &Folders) -> Result<Sources> {
    let admin_client = AdminClient::new(admin)?;
    let dump = admin_client.get("/config_dump").await?;
    let stats = admin_client.get("/stats?filter=.update_").await?;
    let value = serde_json::from_str(&dump)
        .with_context(|| format!("{admin} did not answer /config_dump with JSON"))?;
    let document = Document {
        source: "config_dump".to_owned(),
        value,
    };
    let documents = vec![document];
    let mut sources = with_modules(documents, Vec::new(), folders);
    let lines = stats.lines().filter_map(|line| line.rsplit_once(": "));
    let counts = lines.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
    sources.stats = counts.collect();
    Ok(sources)
}

/// Reads files, and those that they name.
pub(super) fn files(files: &[PathBuf], folders: &Folders) -> Result<Sources> {
    let mut documents = Vec::new();
    let mut known = BTreeSet::new();
    for file in files {
        let read = document(file, &file.display().to_string());
        documents.push(read.with_context(|| format!("cannot read {}", file.display()))?);
        known.extend(file.canonicalize().ok());
    }
    let mut bad_files: Vec<BadFile> = Vec::new();
    let mut next = 0;
    while let Some(from) = documents.get(next) {
        // A running Envoy has told everything.
        let named = match from.value.get("configs") {
            Some(_) => Vec::new(),
            None => references(from),
        };
        for reference in named {
            let path = folders.find(&reference.file);
            ensure!(
                known.len() < FILES,
                "the configuration names more than {FILES} files"
            );
            // One that can't be found is reported below.
            let is_new = path.canonicalize().is_ok_and(|path| known.insert(path)) || !path.exists();
            if !is_new {
                continue;
            }
            match document(&path, &reference.file) {
                Ok(document) => documents.push(document),
                Err(error) => bad_files.push(BadFile {
                    file: reference.file,
                    place: reference.place,
                    problem: format!("{error:#}"),
                }),
            }
        }
        next += 1;
    }
    Ok(with_modules(documents, bad_files, folders))
}

/// Reads one file of YAML or JSON.
fn document(path: &Path, source: &str) -> Result<Document> {
    let text = String::from_utf8(bytes(path)?).context("it is not UTF-8")?;
    let value: Value = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(&text).or_else(|_| yaml(&text))?,
        false => yaml(&text)?,
    };
    ensure!(value.is_object(), "it is not a mapping");
    let source = source.to_owned();
    Ok(Document { source, value })
}

fn yaml(text: &str) -> Result<Value> {
    serde_saphyr::from_str(text).map_err(|error| anyhow!("it is not YAML: {error}"))
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path)?;
    // A pipe might never end.
    ensure!(file.metadata()?.is_file(), "it is not a file");
    let mut content = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut content)?;
    let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
    ensure!(size <= LIMIT, "it has more than {} MiB", LIMIT >> 20);
    Ok(content)
}

/// Adds what is known of the modules that the documents name.
fn with_modules(documents: Vec<Document>, bad_files: Vec<BadFile>, folders: &Folders) -> Sources {
    let all = gather(&documents);
    let mut names = BTreeSet::new();
    for node in &all.documents {
        node.each_object(&mut |node| {
            let code = node.at(&["vm_config", "code", "local"]);
            names.extend(
                code.and_then(|code| code.text("filename"))
                    .map(str::to_owned),
            );
        });
    }
    let modules = names.into_iter().map(|name| {
        let module = module(&folders.find(&name));
        (name, module)
    });
    Sources {
        modules: modules.collect(),
        bad_files,
        documents,
        stats: BTreeMap::new(),
        version: VERSION,
    }
}

fn module(path: &Path) -> Module {
    let content = match bytes(path) {
        Ok(content) => content,
        Err(error) => return Module::Unreadable(format!("{error:#}")),
    };
    if !content.starts_with(MAGIC) {
        return Module::NotWasm;
    }
    // Text beside the version may continue it, so this version is looked for first.
    let own = Regex::new(&regex::escape(VERSION));
    if own.is_ok_and(|own| own.is_match(&content)) {
        return Module::Version(Some(VERSION.to_owned()));
    }
    let found = VERSION_PATTERN.find(&content);
    Module::Version(found.map(|found| String::from_utf8_lossy(found.as_bytes()).into_owned()))
}
