//! Which outputs packages of a set have, without building them: for caches whose contents are made up.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::live::install::{self, NixPrograms};

/// A package: its name, and its outputs.
pub type Package = (String, Vec<PathBuf>);

/// The first packages of these names that Nix can evaluate, with all of their outputs. A dot in a name leads into
/// a set.
///
/// # Errors
/// When there are fewer than `count`.
pub fn outputs(
    nix: &NixPrograms,
    set: &Path,
    mut names: Vec<String>,
    count: usize,
) -> Result<Vec<Package>> {
    let mut found = Vec::new();
    while found.len() < count && !names.is_empty() {
        let mut asked: Vec<String> = names.drain(..names.len().min(2 * count)).collect();
        let answers = describe(nix, set, &asked)?;
        // Without the one that ended the evaluation.
        let mut rest = asked.split_off((answers.len() + 1).min(asked.len()));
        rest.append(&mut names);
        names = rest;
        for (name, known) in asked.into_iter().zip(answers) {
            if let Some(outputs) = known["outputs"]
                .as_object()
                .filter(|_| known["kind"] == "package")
            {
                let paths = outputs.values().filter_map(|path| path.as_str());
                found.push((name, paths.map(PathBuf::from).collect()));
            }
        }
    }
    ensure!(
        found.len() >= count,
        "only {} packages of {count}",
        found.len()
    );
    found.truncate(count);
    Ok(found)
}

/// What Nix tells of these names, up to the first that ends the evaluation.
fn describe(nix: &NixPrograms, set: &Path, names: &[String]) -> Result<Vec<Value>> {
    let paths: Vec<Vec<&str>> = names.iter().map(|name| name.split('.').collect()).collect();
    let paths = serde_json::to_string(&paths)?;
    let answer = nix
        .command("nix-instantiate")
        .args(["--eval", "--strict"])
        .arg(install::root().join("nix/attributes.nix"))
        .args(["--argstr", "source"])
        .arg(set)
        .args(["--argstr", "system", "x86_64-linux"])
        .args(["--argstr", "describe", "told"])
        .args(["--argstr", "paths", &paths])
        .output()?;
    let told = String::from_utf8_lossy(&answer.stderr).into_owned();
    let lines = told.lines();
    lines
        .filter_map(|line| line.strip_prefix("trace: told "))
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}
