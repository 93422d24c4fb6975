//! Recipes: images that an administrator defines, with names that are not lists of packages.
//!
//! ```json
//! {
//!   "namespace": "corp",
//!   "images": {
//!     "ci-base": {
//!       "packages": ["shell", "git"],
//!       "env": { "LANG": "C.UTF-8" },
//!       "user": "1000:1000",
//!       "workdir": "/work"
//!     }
//!   }
//! }
//! ```
//!
//! `corp/ci-base` is then an image of these packages like any other; the recipe adds settings that a
//! list of packages can't have. A mistake in one recipe makes the whole file invalid, before a client
//! notices. The file is reloaded when it changes; a build uses the recipe of the time of its request.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nixgate_core::distribution::Repository;
use nixgate_core::package_set::canonical_path;
use nixgate_core::{OpaqueNamespaces, PackageSet, each_key_once};
use serde::Deserialize;

use crate::files::reload::Reloading;
use crate::fingerprint::Fingerprint;
use crate::image::{Execution, MAX_LAYERS};
use crate::layer::Start;

/// The prefix of labels that nixgate sets.
const RESERVED_LABELS: &str = "org.nixgate.";
/// Another label that nixgate sets, named by the OCI image spec.
const REVISION_LABEL: &str = "org.opencontainers.image.revision";

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecipes {
    /// First component of the names of all images; Envoy's filter needs it in `opaque_namespaces`
    namespace: String,
    /// The images, by the rest of their names
    #[serde(deserialize_with = "each_key_once")]
    images: BTreeMap<String, RawRecipe>,
}

/// One image as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecipe {
    /// Components of a list of packages: attribute paths, meta-packages and the platform
    packages: Vec<String>,
    /// Default command; if left out, that of a list of packages
    cmd: Option<Vec<String>>,
    /// Program that gets `cmd` as arguments; without `cmd`, none
    entrypoint: Option<Vec<String>>,
    /// Variables, besides or in place of `PATH` and `SSL_CERT_FILE`
    #[serde(default, deserialize_with = "each_key_once")]
    env: BTreeMap<String, String>,
    /// User: `uid`, `uid:gid`, or names of the image's `/etc/passwd`, which has `root` and
    /// `nobody`
    user: Option<String>,
    /// Working directory: an absolute path. The image has it, and the user may write to it
    workdir: Option<String>,
    /// Labels of the image, and annotations of its manifest
    #[serde(default, deserialize_with = "each_key_once")]
    labels: BTreeMap<String, String>,
    /// Ports on which it listens: `8080`, `8080/tcp`, `53/udp`
    #[serde(default)]
    ports: BTreeSet<String>,
    /// Maximum number of layers; by default `NIXGATE_MAX_LAYERS`
    max_layers: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Including the namespace.
    pub(crate) name: Repository,
    pub(crate) packages: PackageSet,
    raw: RawRecipe,
}

#[derive(Debug, Default)]
pub(crate) struct Recipes {
    namespaces: OpaqueNamespaces,
    recipes: BTreeMap<Repository, Arc<Recipe>>,
}

impl Recipes {
    /// # Errors
    /// When the file is invalid; the error names the image and the key.
    pub(crate) fn parse(json: &str) -> Result<Self> {
        let RawRecipes { namespace, images } = serde_json::from_str(json)?;
        let namespaces = OpaqueNamespaces::new([namespace.clone()]).context("namespace")?;
        let recipes = images.into_iter().map(|(name, raw)| {
            let recipe = Recipe::check(&namespace, &name, raw);
            let recipe =
                recipe.with_context(|| format!("the image \"{}\"", name.escape_debug()))?;
            Ok((recipe.name.clone(), Arc::new(recipe)))
        });
        Ok(Self {
            namespaces,
            recipes: recipes.collect::<Result<_>>()?,
        })
    }

    /// First components of opaque names.
    pub(crate) const fn namespaces(&self) -> &OpaqueNamespaces {
        &self.namespaces
    }

    pub(crate) fn find(&self, name: &Repository) -> Option<&Arc<Recipe>> {
        self.recipes.get(name)
    }

    /// All recipes, sorted by name.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Recipe>> {
        self.recipes.values()
    }
}

impl Recipe {
    fn check(namespace: &str, name: &str, mut raw: RawRecipe) -> Result<Self> {
        let name = Repository::parse(&format!("{namespace}/{name}"))?;
        ensure!(!raw.packages.is_empty(), "packages: the list is empty");
        for package in &mut raw.packages {
            *package = canonical_path(package);
            let one = Repository::parse(package).context("packages")?;
            ensure!(
                one.components().nth(1).is_none(),
                "packages: \"{package}\" is more than one package: write each on its own, without a slash"
            );
        }
        let list = Repository::parse(&raw.packages.join("/")).context("packages")?;
        let packages = PackageSet::of(&list).context("packages")?;
        for (name, value) in &raw.env {
            ensure!(
                !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'),
                "env: \"{}={}\" is not a valid variable",
                name.escape_debug(),
                value.escape_debug()
            );
        }
        if let Some(user) = &raw.user {
            ensure!(
                is_user(user),
                "user: \"{}\" must be a user or user:group, each a number or a name",
                user.escape_debug()
            );
        }
        if let Some(workdir) = &raw.workdir {
            let mut components = Path::new(workdir).components();
            let climbs = components.any(|one| one == std::path::Component::ParentDir);
            ensure!(
                workdir.starts_with('/') && !climbs && !workdir.contains('\0'),
                "workdir: \"{}\" must be an absolute path without `..`",
                workdir.escape_debug()
            );
        }
        for label in raw.labels.keys() {
            let reserved = label.starts_with(RESERVED_LABELS) || label == REVISION_LABEL;
            ensure!(
                !label.is_empty() && !reserved,
                "labels: \"{}\" is empty or a label that nixgate sets",
                label.escape_debug()
            );
        }
        raw.ports = raw
            .ports
            .iter()
            .map(|text| port(text))
            .collect::<Result<_>>()?;
        for (key, command) in [("cmd", &raw.cmd), ("entrypoint", &raw.entrypoint)] {
            let words = command.as_deref().unwrap_or_default();
            ensure!(
                words.first().is_none_or(|program| !program.is_empty()),
                "{key}: its first word is empty"
            );
            ensure!(
                !words.iter().any(|word| word.contains('\0')),
                "{key}: a word contains NUL, which no argument can"
            );
        }
        if let Some(max_layers) = raw.max_layers {
            ensure!(
                MAX_LAYERS.contains(&max_layers),
                "max_layers is {max_layers}: it must be {} to {}",
                MAX_LAYERS.start(),
                MAX_LAYERS.end()
            );
        }
        Ok(Self {
            name,
            packages,
            raw,
        })
    }

    /// Including the layer of symlinks.
    pub(crate) const fn max_layers(&self) -> Option<usize> {
        self.raw.max_layers
    }

    /// Labels besides those that nixgate sets.
    pub(crate) const fn labels(&self) -> &BTreeMap<String, String> {
        &self.raw.labels
    }

    /// How it runs; `plain` is how a list of its packages would run.
    pub(crate) fn execution(&self, plain: Execution) -> Execution {
        let raw = self.raw.clone();
        Execution {
            // The packages' command would be wrong arguments for the entrypoint.
            cmd: match (raw.cmd, &raw.entrypoint) {
                (Some(cmd), _) => cmd,
                (None, Some(_)) => Vec::new(),
                (None, None) => plain.cmd,
            },
            entrypoint: raw.entrypoint.unwrap_or_default(),
            env: raw.env,
            user: raw.user,
            working_dir: raw.workdir,
            exposed_ports: raw.ports,
        }
    }

    /// Where its containers start, and as whom.
    pub(crate) fn start(&self) -> Start {
        Start {
            user: self.raw.user.clone(),
            workdir: self.raw.workdir.clone(),
        }
    }

    /// A hash of everything that changes the image, except its packages and the number of layers.
    pub(crate) fn fingerprint(&self) -> String {
        let Execution {
            cmd,
            entrypoint,
            env,
            user,
            working_dir,
            exposed_ports,
        } = self.execution(Execution::default());
        let pairs = |map: &BTreeMap<String, String>| -> Vec<String> {
            let pairs = map.iter().flat_map(|(key, value)| [key, value]);
            pairs.cloned().collect()
        };
        Fingerprint::new("recipe-1")
            // An empty command differs from none, which leaves the packages' command.
            .list(self.raw.cmd.iter().map(|_| "cmd"))
            .list(cmd.iter())
            .list(self.raw.entrypoint.iter().map(|_| "entrypoint"))
            .list(entrypoint.iter())
            .list(pairs(&env).iter())
            .list(user.iter())
            .list(working_dir.iter())
            .list(exposed_ports.iter())
            .list(pairs(&self.raw.labels).iter())
            .hex()
    }
}

/// `user` and `user:group` of the image spec.
fn is_user(text: &str) -> bool {
    let is_word = |word: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !word.is_empty() && !word.starts_with('-') && word.bytes().all(allowed)
    };
    match text.split_once(':') {
        Some((user, group)) => is_word(user) && is_word(group),
        None => is_word(text),
    }
}

/// A port as the image spec writes it.
fn port(text: &str) -> Result<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 = number.parse().unwrap_or(0);
    ensure!(
        number > 0 && matches!(protocol, "tcp" | "udp" | "sctp"),
        "ports: \"{}\" must be a number from 1 to 65535, optionally with /tcp, /udp or /sctp",
        text.escape_debug()
    );
    Ok(format!("{number}/{protocol}"))
}

/// The file of recipes, if the settings name one.
pub(crate) struct RecipeFile(Option<Reloading<Recipes>>);

impl RecipeFile {
    /// # Errors
    /// When the file can't be read or is invalid.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let file = path.map(|path| Reloading::open(path, Recipes::parse));
        Ok(Self(file.transpose()?))
    }

    pub(crate) fn current(&self) -> Arc<Recipes> {
        self.0
            .as_ref()
            .map_or_else(Arc::default, Reloading::current)
    }
}

#[cfg(test)]
mod tests;
