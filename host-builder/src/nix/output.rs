//! Parsers of the output of old and new versions of Nix.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hash::sha256_hex;
use crate::closure::{Closure, PathInfo, STORE_DIR, StorePath};

/// A version of Nix, without its patch number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Version {
    /// Parses the last word of `nix --version`, or a bare version such as in nixpkgs'
    /// `lib/minver.nix`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text
            .split_whitespace()
            .last()?
            .split(|c: char| !c.is_ascii_digit());
        Some(Self {
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One output of a derivation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    /// `out`, `bin`, `doc` …
    pub(crate) name: String,
    /// Its path once it is realised.
    pub(crate) path: StorePath,
}

/// The derivation of a package, and the outputs that an image takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Derivation {
    /// The `.drv` file.
    #[serde(rename = "drvPath")]
    pub(crate) path: StorePath,
    /// At least one.
    pub(crate) outputs: Vec<Output>,
    pub(crate) pname: String,
    /// Empty when the package has none.
    #[serde(default)]
    pub(crate) version: String,
    pub(crate) main_program: Option<String>,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) homepage: Option<String>,
    /// Names of its licences, and `unfree` when one of them is.
    #[serde(default)]
    pub(crate) licences: BTreeSet<String>,
    /// Whether the package set marks it as insecure.
    #[serde(default)]
    pub(crate) insecure: bool,
    /// All of its outputs, or the one that the name names, as far as they can be told. Only when it was just
    /// resolved: records lack it.
    #[serde(default, skip_serializing)]
    pub(crate) identity: BTreeSet<StorePath>,
}

/// What a name resolves to (`nix/resolve.nix`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum Resolution {
    Derivation(Derivation),
    /// Nothing; with similar names in the package set.
    Unknown {
        near: Vec<String>,
    },
    /// Something else; with Nix's name of its type.
    NotADerivation {
        #[serde(rename = "type")]
        kind: String,
    },
    /// Its evaluation fails: unfree, insecure, broken, or wrong.
    Refused,
}

/// What a package set has at an attribute path (`nix/attributes.nix`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Attribute {
    /// A derivation.
    Package,
    /// A set that is no derivation; with the names in it, as the set spells them.
    Set { names: Vec<String> },
    /// Anything else, such as a function.
    Other,
    /// Missing, or its evaluation fails.
    Refused,
}

/// What a package set has at an attribute path, with all that is known of packages without building them
/// (`nix/attributes.nix`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Described {
    /// A derivation.
    Package(Box<Package>),
    /// A derivation that Nix refuses: unfree, insecure, broken, or for other systems.
    Unusable(Box<About>),
    /// A set that is no derivation; with the names in it, as the set spells them.
    Set {
        names: Vec<String>,
        /// Whether the set says that there are packages inside of it.
        recurse: bool,
    },
    /// Anything else, such as a function.
    Other,
    /// Missing, or its evaluation throws.
    Refused,
    /// It ends each evaluation, by an error that Nix code can't catch, or for want of memory or time.
    Failed { reason: String },
}

/// A package that Nix can build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Package {
    #[serde(flatten)]
    pub(crate) about: About,
    #[serde(rename = "drvPath")]
    pub(crate) derivation: StorePath,
    /// All of them, by name.
    pub(crate) outputs: BTreeMap<String, StorePath>,
    /// The names of those that an image takes.
    pub(crate) installed: Vec<String>,
}

/// What is said of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct About {
    pub(crate) pname: String,
    /// Empty when the package has none.
    pub(crate) version: String,
    pub(crate) main_program: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) homepage: Option<String>,
    /// As [`Derivation::licences`].
    pub(crate) licences: BTreeSet<String>,
    pub(crate) insecure: bool,
    pub(crate) broken: bool,
    /// The file and line in the package set.
    pub(crate) position: Option<String>,
}

impl Package {
    /// The derivation with the outputs that an image takes, or with one of them; none if the package lacks
    /// it.
    pub(crate) fn into_derivation(self, output: Option<&str>) -> Option<Derivation> {
        let Self {
            about,
            derivation,
            mut outputs,
            installed,
        } = self;
        let names = output.map_or(installed, |output| vec![output.to_owned()]);
        let outputs = names.into_iter().map(|name| {
            let path = outputs.remove(&name)?;
            Some(Output { name, path })
        });
        Some(Derivation {
            path: derivation,
            outputs: outputs.collect::<Option<_>>()?,
            pname: about.pname,
            version: about.version,
            main_program: about.main_program,
            description: about.description,
            homepage: about.homepage,
            licences: about.licences,
            insecure: about.insecure,
            identity: BTreeSet::new(),
        })
    }
}

/// Parses the value of `nix/resolve.nix`.
pub(super) fn resolutions(json: &[u8]) -> Result<Vec<Resolution>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Output {
        packages: Vec<Resolution>,
    }
    serde_json::from_slice(json).map(|output: Output| output.packages)
}

/// Whether the package set of `nix/resolve.nix` takes no overlays.
pub(super) fn ignores_overlays(json: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Output {
        takes_overlays: bool,
    }
    serde_json::from_slice(json).is_ok_and(|output: Output| !output.takes_overlays)
}

/// An error of Nix without the build's log in it, which may be of a build that had the network and then
/// is not for every client.
pub(super) fn without_log(text: &str) -> String {
    let mut in_log = false;
    let kept = text.lines().filter(|line| {
        let line = line.trim_start();
        let heading = line
            .get(..5)
            .is_some_and(|word| word.eq_ignore_ascii_case("last "))
            && line.trim_end().ends_with("log lines:");
        in_log = heading || (in_log && line.starts_with('>'));
        !in_log
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// Whether a build has the network: its derivation begins with an output whose hash is fixed, or that is
/// impure (`Derive([("out","/nix/store/…","sha256","<hash>")],…`). Unknown formats count as such.
pub(super) fn has_network(derivation: &str) -> bool {
    let output = derivation
        .split_once("[(")
        .and_then(|(_, rest)| rest.split_once(')'));
    let fields = output.map(|(output, _)| output.split(',').collect::<Vec<_>>());
    !matches!(fields.as_deref(), Some([_, _, _, r#""""#]))
}

/// Signals that a machine or its administrator sends: HUP, INT, QUIT, KILL, TERM. Others, such as
/// SIGSEGV, are the program's own fault.
const FROM_OUTSIDE: [u32; 5] = [1, 2, 3, 9, 15];
/// Exit codes of a shell whose program was ended by SIGKILL or SIGTERM.
const SHELL_CODES: [u32; 2] = [128 + 9, 128 + 15];

/// Whether Nix reports that something outside ended a build. Lines of the build's log, which could say
/// anything, begin with `>`.
pub(super) fn killed(stderr: &str) -> bool {
    let after = |line: &str, words: &str| -> Option<u32> {
        let (_, rest) = line.split_once(words)?;
        let end = rest.find(|c: char| !c.is_ascii_digit());
        rest[..end.unwrap_or(rest.len())].parse().ok()
    };
    let says = |line: &str| {
        let signal = after(line, "failed due to signal ");
        let code = after(line, "failed with exit code ");
        signal.is_some_and(|signal| FROM_OUTSIDE.contains(&signal))
            || code.is_some_and(|code| SHELL_CODES.contains(&code))
    };
    let mut lines = stderr.lines().map(str::trim_start);
    lines.any(|line| !line.starts_with('>') && says(line))
}

/// Parses `nix path-info --json --recursive`.
///
/// Old versions print an array of objects with a `path`. Newer ones print an object by path, with null
/// for a path that isn't valid. The newest put that object under `info`, with base names for paths and,
/// in some formats, an object for the hash.
pub(super) fn closure(json: &[u8], roots: &[StorePath]) -> Result<Closure, String> {
    let value: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let records: Vec<(String, Value)> = match value {
        Value::Array(records) => records
            .into_iter()
            .filter_map(|record| Some((record.get("path")?.as_str()?.to_owned(), record)))
            .collect(),
        Value::Object(mut fields) => match fields.remove("info") {
            Some(Value::Object(info)) => info.into_iter().collect(),
            _ => fields.into_iter().collect(),
        },
        _ => return Err("path-info printed neither an array nor an object".to_owned()),
    };
    let paths = records
        .into_iter()
        .map(|(path, record)| Ok((store_path(&path)?, path_info(&path, &record)?)))
        .collect::<Result<BTreeMap<_, _>, String>>()?;
    Closure::new(roots.iter().cloned(), paths).map_err(|error| error.to_string())
}

fn path_info(path: &str, record: &Value) -> Result<PathInfo, String> {
    let missing = |field| format!("path-info has no {field} for {path}");
    let hash = record.get("narHash").and_then(sha256_hex);
    let size = record.get("narSize").and_then(Value::as_u64);
    let references = record.get("references").and_then(Value::as_array);
    let references = references
        .ok_or_else(|| missing("references"))?
        .iter()
        .map(|reference| store_path(reference.as_str().unwrap_or_default()))
        .collect::<Result<BTreeSet<_>, _>>()?;
    Ok(PathInfo {
        nar_hash: hash.ok_or_else(|| missing("narHash that is a SHA-256"))?,
        nar_size: size.ok_or_else(|| missing("narSize"))?,
        references,
    })
}

fn store_path(text: &str) -> Result<StorePath, String> {
    let parsed = if text.starts_with('/') {
        text.parse()
    } else {
        format!("{STORE_DIR}/{text}").parse()
    };
    parsed.map_err(|error| format!("{error}"))
}

#[cfg(test)]
impl Described {
    /// A package with this output.
    pub(crate) fn example(output: &StorePath) -> Self {
        let Derivation { path, pname, .. } = Derivation::example(output.name());
        Self::Package(Box::new(Package {
            about: About {
                pname,
                version: "1".to_owned(),
                ..About::default()
            },
            derivation: path,
            outputs: [("out".to_owned(), output.clone())].into(),
            installed: vec!["out".to_owned()],
        }))
    }
}

#[cfg(test)]
impl Derivation {
    /// A derivation called `name`, for tests.
    pub(crate) fn example(name: &str) -> Self {
        let path = |digit: &str, name: &str| format!("{STORE_DIR}/{}-{name}", digit.repeat(32));
        Self {
            path: path("0", &format!("{name}.drv")).parse().unwrap(),
            outputs: vec![Output {
                name: "out".to_owned(),
                path: path("1", name).parse().unwrap(),
            }],
            pname: name.to_owned(),
            version: "1".to_owned(),
            main_program: None,
            description: None,
            homepage: None,
            licences: BTreeSet::new(),
            insecure: false,
            identity: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests;
