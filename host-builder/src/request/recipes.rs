//! Recipes: images that an administrator defines, under names that are not split into packages.
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
//! `corp/ci-base` is then an image of these packages, made, kept and shared as any other; what a
//! package list has no place for is in the recipe. The file is checked as a whole: a mistake in one
//! recipe refuses all of them, before the first client meets it. It is read again when it has
//! changed, and each build is of the recipe that was in force when it was asked for.

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

/// Labels that say what nixgate knows of an image.
const RESERVED_LABELS: &str = "org.nixgate.";
/// The same, by a name of the OCI image spec.
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
    /// What would be the components of a name: attribute paths, meta-packages and the platform
    packages: Vec<String>,
    /// What runs when nobody says what should; as for a list of packages when left out
    cmd: Option<Vec<String>>,
    /// What `cmd` is given to as arguments; without a `cmd` of its own, nothing is
    entrypoint: Option<Vec<String>>,
    /// Variables, beside `PATH` and `SSL_CERT_FILE` or instead of these
    #[serde(default, deserialize_with = "each_key_once")]
    env: BTreeMap<String, String>,
    /// Who runs it: `uid`, `uid:gid`, or names of the image's `/etc/passwd`, which has `root` and
    /// `nobody`
    user: Option<String>,
    /// Where it runs: an absolute path
    workdir: Option<String>,
    /// Labels of the image, and annotations of its manifest
    #[serde(default, deserialize_with = "each_key_once")]
    labels: BTreeMap<String, String>,
    /// Ports that it listens on: `8080`, `8080/tcp`, `53/udp`
    #[serde(default)]
    ports: BTreeSet<String>,
    /// Layers that it has at most; `NIXGATE_MAX_LAYERS` when left out
    max_layers: Option<usize>,
}

/// An image that an administrator has defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Its repository name, namespace included.
    pub(crate) name: Repository,
    /// What is in it.
    pub(crate) packages: PackageSet,
    raw: RawRecipe,
}

/// All recipes.
#[derive(Debug, Default)]
pub(crate) struct Recipes {
    namespaces: OpaqueNamespaces,
    recipes: BTreeMap<Repository, Arc<Recipe>>,
}

impl Recipes {
    /// Reads what a file says.
    ///
    /// # Errors
    /// A sentence that names the image and the key at fault.
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

    /// Names of which first components are no lists of packages.
    pub(crate) const fn namespaces(&self) -> &OpaqueNamespaces {
        &self.namespaces
    }

    /// The recipe of this name.
    pub(crate) fn find(&self, name: &Repository) -> Option<&Arc<Recipe>> {
        self.recipes.get(name)
    }

    /// All of them, by their names.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Recipe>> {
        self.recipes.values()
    }
}

impl Recipe {
    fn check(namespace: &str, name: &str, mut raw: RawRecipe) -> Result<Self> {
        let name = Repository::parse(&format!("{namespace}/{name}"))?;
        ensure!(!raw.packages.is_empty(), "packages: there is none");
        for package in &mut raw.packages {
            *package = canonical_path(package);
            let one = Repository::parse(package).context("packages")?;
            ensure!(
                one.components().nth(1).is_none(),
                "packages: \"{package}\" must be one package, without a slash"
            );
        }
        let list = Repository::parse(&raw.packages.join("/")).context("packages")?;
        let packages = PackageSet::of(&list).context("packages")?;
        for (name, value) in &raw.env {
            ensure!(
                !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'),
                "env: \"{}={}\" can't be a variable",
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
                "{key}: a word has a NUL in it, which no program can be given"
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

    /// Layers of the image, that of the symlinks included.
    pub(crate) const fn max_layers(&self) -> Option<usize> {
        self.raw.max_layers
    }

    /// What is to be said of the image, beside what nixgate says.
    pub(crate) const fn labels(&self) -> &BTreeMap<String, String> {
        &self.raw.labels
    }

    /// How it runs, where a list of its packages would run as `plain`.
    pub(crate) fn execution(&self, plain: Execution) -> Execution {
        let RawRecipe {
            cmd,
            entrypoint,
            env,
            user,
            workdir,
            ports,
            ..
        } = self.raw.clone();
        Execution {
            // The command of a list of packages is no argument of this program.
            cmd: match (cmd, &entrypoint) {
                (Some(cmd), _) => cmd,
                (None, Some(_)) => Vec::new(),
                (None, None) => plain.cmd,
            },
            entrypoint: entrypoint.unwrap_or_default(),
            env,
            user,
            working_dir: workdir,
            exposed_ports: ports,
        }
    }

    /// What changes the image, beside its packages and the number of its layers.
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
            // Without one, the command is that of the packages.
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
        "ports: \"{}\" must be a number from 1 to 65535, and may have /tcp, /udp or /sctp behind it",
        text.escape_debug()
    );
    Ok(format!("{number}/{protocol}"))
}

/// Where the recipes are, if there are any.
pub(crate) struct RecipeFile(Option<Reloading<Recipes>>);

impl RecipeFile {
    /// Reads the file, if there is to be one.
    ///
    /// # Errors
    /// When it can't be read or is wrong.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let file = path.map(|path| Reloading::open(path, Recipes::parse));
        Ok(Self(file.transpose()?))
    }

    /// What it says now.
    pub(crate) fn current(&self) -> Arc<Recipes> {
        self.0
            .as_ref()
            .map_or_else(Arc::default, Reloading::current)
    }
}

#[cfg(test)]
mod tests;
