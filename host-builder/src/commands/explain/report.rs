//! What `nixgate explain` prints, as text and as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use nixgate_core::distribution::Repository;
use nixgate_core::package_set::{is_in_every_image, members};
use serde::Serialize;

use crate::builder::Explanation;
use crate::closure::StorePath;
use crate::commands::target::Target;
use crate::image;
use crate::layer::{Dropped, Entry, Reason};
use crate::request::{ImageRequest, NamedImage};

/// Characters of a name that clients can ask for. podman, skopeo and older Dockers count the registry's
/// host with its port and slash too.
const CLIENTS_LIMIT: usize = 255;
/// Packages of one entry that are shown in a text.
const PACKAGES: usize = 5;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    image: String,
    canonical_name: String,
    /// Characters of the name as it was written, without tag and host.
    name_length: usize,
    system: &'static str,
    /// The revision of the package set.
    revision: String,
    packages: Vec<Package>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    variables: Vec<Variable>,
    entries: Vec<Line>,
    left_out: Vec<LeftOut>,
}

#[derive(Debug, Serialize)]
struct Package {
    name: String,
    because: String,
    store_paths: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Variable {
    name: String,
    value: String,
    because: String,
}

/// An entry of the root.
#[derive(Debug, Serialize)]
struct Line {
    path: String,
    is_directory: bool,
    /// None if it is the image's own.
    packages: Vec<String>,
}

/// An entry of a package that the image lacks.
#[derive(Debug, Serialize)]
struct LeftOut {
    path: String,
    package: String,
    /// The package whose entry the image has; none if it is the image's own, or if nothing can be there.
    kept: Option<String>,
    text: String,
}

/// How people call the packages: by the names that they asked for, else by the store's.
struct Names(BTreeMap<StorePath, String>);

impl Names {
    fn new(packages: &[(String, Vec<StorePath>)]) -> Self {
        let mut names = BTreeMap::new();
        for (name, outputs) in packages {
            for output in outputs {
                // Two names may be one package: the first wins, as in the image.
                names.entry(output.clone()).or_insert_with(|| name.clone());
            }
        }
        Self(names)
    }

    fn of(&self, path: &StorePath) -> String {
        let name = self.0.get(path);
        name.cloned().unwrap_or_else(|| path.name().to_owned())
    }

    /// Each once: a package may have several outputs.
    fn all(&self, paths: &[StorePath]) -> Vec<String> {
        let mut names = Vec::new();
        for path in paths {
            let name = self.of(path);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

impl Report {
    pub(super) fn new(
        target: &Target,
        named: &NamedImage,
        request: &ImageRequest,
        explanation: Explanation,
    ) -> Self {
        let Explanation {
            packages,
            merged,
            execution,
        } = explanation;
        let names = Names::new(&packages);
        let recipe = named.recipe.as_ref();
        let canonical_name = match recipe {
            Some(recipe) => recipe.name.to_string(),
            None => named.packages.to_string(),
        };
        let from_recipe = recipe.map(|recipe| recipe.execution(image::Execution::default()).env);
        let variables = image::variables(&execution.env).into_iter().map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
            let is_own = from_recipe
                .as_ref()
                .is_some_and(|env| env.contains_key(name));
            let because = match merged.reasons.get(name) {
                _ if is_own => "the recipe".to_owned(),
                Some(reasons) => because(reasons, &names),
                None => "every image".to_owned(),
            };
            Variable {
                name: name.to_owned(),
                value: value.to_owned(),
                because,
            }
        });
        let variables = variables.collect();
        let line = |entry: &Entry| Line {
            path: shown(&entry.path),
            is_directory: entry.is_directory,
            packages: names.all(&entry.packages),
        };
        let packages = packages.iter().map(|(name, outputs)| Package {
            because: match recipe {
                Some(recipe) => format!("the recipe {}", recipe.name),
                None => in_the_name(&target.repository, name),
            },
            name: name.clone(),
            store_paths: outputs.iter().map(StorePath::to_string).collect(),
        });
        let single = merged.without_directory.iter().map(|path| LeftOut {
            path: path.to_string(),
            package: names.of(path),
            kept: None,
            text: format!(
                "{} is a single file: it is only in the store, not in /",
                names.of(path)
            ),
        });
        let dropped = merged.dropped.iter().map(|one| left_out(one, &names));
        Self {
            image: target.to_string(),
            canonical_name,
            name_length: target.repository.as_str().chars().count(),
            system: request.system.nix(),
            revision: request.pin.revision.clone(),
            packages: packages.collect(),
            entrypoint: execution.entrypoint,
            cmd: execution.cmd,
            variables,
            entries: merged.entries.iter().map(line).collect(),
            left_out: single.chain(dropped).collect(),
        }
    }

    /// For a person. Of each folder, and of what is left out, at most `shown` lines.
    pub(super) fn text(&self, shown: usize) -> String {
        let mut text = Text {
            out: String::new(),
            shown,
        };
        self.write_name(&mut text);
        let packages = self.packages.iter();
        text.section(
            "packages",
            packages.map(|one| (&*one.name, one.because.clone())),
        );
        let variables = self.variables.iter();
        let variables: Vec<_> = variables
            .map(|one| (format!("{}={}", one.name, one.value), one.because.clone()))
            .collect();
        let lines = variables.iter();
        text.section("variables", lines.map(|(line, why)| (&**line, why.clone())));
        self.write_entries(&mut text);
        let left_out = self.left_out.iter();
        text.section("left out", left_out.map(|one| (&*one.text, String::new())));
        plain(&text.out)
    }

    fn write_name(&self, text: &mut Text) {
        let length = match self.name_length {
            length if length > CLIENTS_LIMIT => format!(
                "{length} characters, but clients refuse names of more than {CLIENTS_LIMIT}: define a \
                 recipe, which has a short name"
            ),
            length => format!(
                "{length} characters; with a host of more than {} podman, skopeo and older Dockers refuse it",
                CLIENTS_LIMIT - length
            ),
        };
        let words = |words: &[String]| match words.is_empty() {
            true => "none".to_owned(),
            false => words.join(" "),
        };
        let lines = [
            ("canonical name", self.canonical_name.clone()),
            ("length", length),
            ("platform", self.system.to_owned()),
            ("package set", self.revision.clone()),
            ("entrypoint", words(&self.entrypoint)),
            ("command", words(&self.cmd)),
        ];
        text.section(&self.image, lines.into_iter());
    }

    fn write_entries(&self, text: &mut Text) {
        let is_below = |line: &&Line, folder: &str| {
            let below = line.path.strip_prefix(folder);
            below.is_some_and(|rest| rest.starts_with('/'))
        };
        let top = self
            .entries
            .iter()
            .filter(|line| line.path.rfind('/') == Some(0));
        let (mut plain, mut folders) = (Vec::new(), Vec::new());
        for line in top {
            let inside: Vec<&Line> = self
                .entries
                .iter()
                .filter(|other| is_below(other, &line.path))
                .collect();
            match inside.is_empty() {
                true => plain.push(line),
                false => folders.push((line, inside)),
            }
        }
        let section = |text: &mut Text, folder: &str, lines: Vec<&Line>| {
            let lines: Vec<_> = lines
                .iter()
                .map(|line| (line.text(), line.origin()))
                .collect();
            text.section(
                folder,
                lines.iter().map(|(path, from)| (&**path, from.clone())),
            );
        };
        section(text, "/", plain);
        for (folder, inside) in folders {
            section(text, &folder.path, inside);
        }
    }
}

impl Line {
    fn text(&self) -> String {
        format!("{}{}", self.path, if self.is_directory { "/" } else { "" })
    }

    fn origin(&self) -> String {
        match self.packages.is_empty() {
            true => "the image's own".to_owned(),
            false => some(&self.packages),
        }
    }
}

/// A text of sections.
struct Text {
    out: String,
    /// Lines of a section.
    shown: usize,
}

impl Text {
    fn section<'l>(&mut self, title: &str, lines: impl Iterator<Item = (&'l str, String)>) {
        let lines: Vec<_> = lines.collect();
        if lines.is_empty() {
            return;
        }
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        let more = lines.len().saturating_sub(self.shown);
        let lines = &lines[..lines.len() - more];
        // A line that is much longer than most does not move the others.
        let widths = lines.iter().map(|(line, _)| line.chars().count());
        let width = widths.max().unwrap_or_default().min(48);
        let _ = writeln!(self.out, "{title}");
        for (line, why) in lines {
            let _ = match why.is_empty() {
                true => writeln!(self.out, "  {line}"),
                false => writeln!(self.out, "  {line:width$}  {why}"),
            };
        }
        if more > 0 {
            let _ = writeln!(self.out, "  and {more} more: see all with --all");
        }
    }
}

fn shown(path: &Path) -> String {
    format!("/{}", path.display())
}

/// Some of the names.
fn some(names: &[String]) -> String {
    let more = names.len().saturating_sub(PACKAGES);
    let first = names[..names.len() - more].join(", ");
    match more {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn because(reasons: &[Reason], names: &Names) -> String {
    let reasons = reasons.iter().map(|reason| {
        let packages = names.all(&reason.packages);
        match packages.is_empty() {
            true => reason.what.clone(),
            false => format!("{} of {}", reason.what, some(&packages)),
        }
    });
    reasons.collect::<Vec<_>>().join("; ")
}

fn left_out(one: &Dropped, names: &Names) -> LeftOut {
    let (path, package) = (shown(&one.path), names.of(&one.package));
    let kept = one.kept.as_ref().map(|kept| names.of(kept));
    let text = match &kept {
        // Two outputs of one package.
        Some(kept) if *kept == package => one.to_string(),
        Some(kept) => format!("{path} of {package}: {kept} has it"),
        None => format!("{path} of {package}: it is the image's own"),
    };
    LeftOut {
        path,
        package,
        kept,
        text,
    }
}

/// Why a package is in an image with this name.
fn in_the_name(name: &Repository, package: &str) -> String {
    let components: BTreeSet<&str> = name.components().collect();
    if components.contains(package) {
        return "the name".to_owned();
    }
    let has = |component: &&&str| members(component).is_some_and(|all| all.contains(&package));
    match components.iter().find(has) {
        Some(meta) => format!("{meta} in the name"),
        None if is_in_every_image(package) => "every image".to_owned(),
        None => "the name".to_owned(),
    }
}

/// Without characters that would make a terminal do something: packages choose names of files.
fn plain(text: &str) -> String {
    let is_kept = |letter: char| letter == '\n' || !letter.is_control();
    text.chars()
        .map(|letter| if is_kept(letter) { letter } else { '\u{fffd}' })
        .collect()
}

#[cfg(test)]
mod tests;
