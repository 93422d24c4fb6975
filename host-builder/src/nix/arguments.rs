//! The command line of each question to Nix.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Writes;
use super::nixpkgs_config::NixpkgsConfig;
use super::output::Derivation;
use super::overlays::Stored;
use crate::closure::{STORE_DIR, StorePath};
use crate::process::Command;
use nixgate_core::package_set::System;

/// Settings of Nix that every process gets (`--option name value`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NixOptions(pub(crate) Vec<(String, String)>);

/// What Nix code of a package set may do while it is evaluated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EvalPermissions {
    /// Prefixes of the URIs that it may fetch.
    pub(crate) allowed_uris: Vec<String>,
    /// Whether it may build, and read the outputs.
    pub(crate) import_from_derivation: bool,
}

impl Command {
    fn options(self, options: &NixOptions) -> Self {
        let options = options.0.iter();
        self.args(options.flat_map(|(name, value)| ["--option", name, value]))
    }

    /// Lets Nix code read a path. With a name before it, since a store path may contain `=`.
    fn readable(self, name: &str, path: &Path) -> Self {
        let mut readable = OsString::from(format!("{name}="));
        readable.push(path);
        self.arg("-I").arg(readable)
    }

    fn argstr(self, name: &str, value: impl Into<OsString>) -> Self {
        self.args(["--argstr", name]).arg(value)
    }
}

/// `nix --version`
pub(super) fn version() -> Command {
    Command::new("nix").arg("--version")
}

/// Asks the store about a path that does not exist: any answer shows that the store works.
/// `--version` would not open the store.
pub(super) fn ask_store(options: &NixOptions) -> Command {
    let missing = format!("{STORE_DIR}/{}-nixgate-readiness", "0".repeat(32));
    Command::new("nix-store")
        .args(["--check-validity", "--print-invalid"])
        .options(options)
        .arg(missing)
}

/// Evaluates one of our expressions over a package set. In restricted mode the set's Nix code reads
/// only the paths given with `-I`: the set itself and its references in the store. The restrictions
/// come last, so that no other setting overrides them.
pub(super) fn evaluate(
    options: &NixOptions,
    permissions: &EvalPermissions,
    expression: &Path,
    source: &Path,
    system: System,
) -> Command {
    let restrictions = [
        ("restrict-eval", "true"),
        // The machine's own configuration could add readable paths here.
        ("nix-path", ""),
        ("allowed-uris", &permissions.allowed_uris.join(" ")),
        (
            "allow-import-from-derivation",
            &permissions.import_from_derivation.to_string(),
        ),
    ];
    let mut command = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json"])
        .options(options)
        .args(
            restrictions
                .into_iter()
                .flat_map(|(name, value)| ["--option", name, value]),
        );
    for (name, path) in [
        ("nixgate-expression", expression),
        (
            "nixgate-packages",
            &expression.with_file_name("packages.nix"),
        ),
        ("nixgate-set", source),
    ] {
        command = command.readable(name, path);
    }
    command
        .arg(expression)
        .argstr("source", source)
        .argstr("system", system.nix())
}

/// Gives an evaluation the administrator's overlays, and what he allows of that which nixpkgs refuses.
pub(super) fn configured(
    evaluation: Command,
    config: &NixpkgsConfig,
    overlays: &[Stored],
) -> Command {
    let evaluation = overlays.iter().fold(evaluation, |evaluation, overlay| {
        evaluation.readable("nixgate-overlay", &overlay.source)
    });
    evaluation.argstr("config", config.json(overlays))
}

/// Resolves names to derivations (`nix/resolve.nix`).
pub(super) fn resolve(evaluation: Command, names: &[String], writes: Writes) -> Command {
    let evaluation = match writes {
        Writes::Derivations => evaluation.arg("--read-write-mode"),
        Writes::Nothing => evaluation,
    };
    evaluation.argstr("names", serde_json::Value::from(names).to_string())
}

/// Resolves one name without catching what it throws (`nix/resolve.nix`).
pub(super) fn explain(evaluation: Command, name: &str) -> Command {
    let names = [name.to_owned()];
    resolve(evaluation, &names, Writes::Derivations).args(["--arg", "explain", "true"])
}

/// Evaluates what a package set has at attribute paths (`nix/attributes.nix`).
pub(super) fn look(evaluation: Command, paths: &[Vec<String>]) -> Command {
    // To tell what a path is, a set that imports what it builds has to build it.
    at(evaluation, paths).arg("--read-write-mode")
}

/// Describes what a package set has at attribute paths, and writes nothing to the store: each answer is a
/// trace with this word before it (`nix/attributes.nix`).
pub(super) fn describe(evaluation: Command, paths: &[Vec<String>], word: &str) -> Command {
    at(evaluation, paths).argstr("describe", word)
}

fn at(evaluation: Command, paths: &[Vec<String>]) -> Command {
    evaluation.argstr("paths", serde_json::Value::from(paths.to_vec()).to_string())
}

/// A build that shows what builds can do (`nix/sandbox.nix`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    /// A name that no other trial had, so that Nix builds it.
    pub(crate) unique: String,
    /// The folder with the program.
    pub(crate) folder: PathBuf,
    /// The program's file in that folder.
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    /// Whether it is a fixed-output build, which has the network.
    pub(crate) download: bool,
}

/// Builds a trial; prints its store path.
pub(super) fn probe_sandbox(options: &NixOptions, expression: &Path, trial: &Trial) -> Command {
    let arguments = serde_json::Value::from(trial.arguments.clone());
    Command::new("nix-build")
        .arg("--no-out-link")
        .options(options)
        // No binary cache can have it.
        .args(["--option", "substitute", "false"])
        .arg(expression)
        .argstr("folder", &trial.folder)
        .argstr("unique", &trial.unique)
        .argstr("program", &trial.program)
        .argstr("arguments", arguments.to_string())
        .argstr("download", trial.download.to_string())
}

/// Realises derivations, with one link for each output in `roots`. `timeout` is for one derivation,
/// in seconds.
pub(super) fn realise(
    options: &NixOptions,
    derivations: &[Derivation],
    roots: &Path,
    timeout: u64,
) -> Command {
    let derivations = derivations.iter().map(|derivation| {
        let outputs = derivation.outputs.iter().map(|output| output.name.as_str());
        let outputs = outputs.collect::<Vec<_>>().join(",");
        format!("{}!{outputs}", derivation.path)
    });
    build("--realise", options, timeout)
        .arg("--add-root")
        .arg(roots.join("root"))
        .arg("--indirect")
        .args(derivations)
}

/// Fetches the outputs of derivations from binary caches, and builds nothing: Nix is told of the outputs
/// alone. So it also fetches packages that want to be built on each machine (`allowSubstitutes = false`),
/// which old versions of Nix would only build.
pub(super) fn substitute(
    options: &NixOptions,
    derivations: &[Derivation],
    roots: &Path,
    timeout: u64,
) -> Command {
    let outputs = derivations.iter().flat_map(|one| &one.outputs);
    build("--realise", options, timeout)
        .arg("--add-root")
        .arg(roots.join("root"))
        .arg("--indirect")
        .args(outputs.map(|output| output.path.to_string()))
}

/// Fetches or builds valid store paths again whose contents were changed.
pub(super) fn repair(options: &NixOptions, paths: &[StorePath], timeout: u64) -> Command {
    build("--repair-path", options, timeout).args(paths.iter().map(StorePath::to_string))
}

/// A build with a log that [`NixLog`](super::log::NixLog) reads.
fn build(operation: &str, options: &NixOptions, timeout: u64) -> Command {
    Command::new("nix-store")
        .arg(operation)
        .options(options)
        .args(["--timeout", &timeout.to_string()])
        .args(["--log-format", "internal-json"])
}

/// Asks for a closure with its hashes, sizes and references.
pub(super) fn path_info(options: &NixOptions, roots: &[StorePath]) -> Command {
    Command::new("nix")
        .args(["--extra-experimental-features", "nix-command"])
        .args(["path-info", "--json", "--recursive"])
        .options(options)
        .args(roots.iter().map(StorePath::to_string))
}

/// Fetches and unpacks a tarball; prints its hash and its store path. With a log that
/// [`NixLog`](super::log::NixLog) reads.
pub(super) fn prefetch_tarball(options: &NixOptions, url: &str) -> Command {
    Command::new("nix-prefetch-url")
        .args(["--unpack", "--print-path"])
        .args(["--log-format", "internal-json"])
        .options(options)
        .args(["--name", "source", url])
}

/// Fetches a flake and its inputs into the store; prints their paths. A lock file that is missing or
/// outdated is an error: updating it would give every builder other packages. Registries are off,
/// since their names differ between machines.
pub(super) fn archive_flake(options: &NixOptions, url: &str) -> Command {
    Command::new("nix")
        .args(["--extra-experimental-features", "nix-command flakes"])
        .args(["flake", "archive", "--json"])
        .options(options)
        .args(["--option", "use-registries", "false"])
        .args(["--no-update-lock-file", "--", url])
}

/// Makes a package set of an archived flake (`nix/flake.nix`); prints its store path as a JSON string.
pub(super) fn pin_flake(
    options: &NixOptions,
    expression: &Path,
    archive: &str,
    dir: &str,
) -> Command {
    instantiate(options)
        .arg(expression)
        .argstr("archive", archive)
        .argstr("dir", dir)
}

/// Copies a folder into the store; prints the store path as a JSON string. Leaves out sockets and the
/// like, which can't be copied.
pub(super) fn add_folder(options: &NixOptions, folder: &Path) -> Command {
    const COPY: &str = r#"
        { folder }:
        builtins.path {
          name = "package-set";
          path = /. + folder;
          filter = path: type: type != "unknown" && baseNameOf path != ".git";
        }"#;
    instantiate(options)
        .args(["--expr", COPY])
        .argstr("folder", folder)
}

/// Fetches a commit; prints the store path as a JSON string.
pub(super) fn fetch_git(options: &NixOptions, url: &str, reference: &str, commit: &str) -> Command {
    const FETCH: &str = "{ url, ref, rev }: (builtins.fetchGit { inherit url ref rev; }).outPath";
    instantiate(options)
        .args(["--expr", FETCH])
        .argstr("url", url)
        .argstr("ref", reference)
        .argstr("rev", commit)
}

/// Unpacks a tarball whose content has this hash; prints the store path as a JSON string. Downloads nothing
/// that the store has.
pub(super) fn fetch_archive(options: &NixOptions, url: &str, sha256: &str) -> Command {
    const FETCH: &str = "{ url, sha256 }: builtins.fetchTarball { inherit url sha256; }";
    instantiate(options)
        .args(["--expr", FETCH])
        .argstr("url", url)
        .argstr("sha256", sha256)
}

/// Evaluates trusted Nix code.
fn instantiate(options: &NixOptions) -> Command {
    Command::new("nix-instantiate")
        .args(["--eval", "--json", "--read-write-mode"])
        .options(options)
}

/// Links to a store path, which makes it a root for the garbage collector.
pub(super) fn keep(options: &NixOptions, path: &Path, link: &Path) -> Command {
    Command::new("nix-store")
        .arg("--realise")
        .options(options)
        .arg("--add-root")
        .arg(link)
        .arg("--indirect")
        .arg(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(command: &Command) -> String {
        let words = command.arguments.iter().map(|word| word.to_string_lossy());
        words.fold(command.program.to_owned(), |line, word| {
            format!("{line} {word}")
        })
    }

    #[test]
    fn names_travel_as_one_json_string_and_the_set_is_all_that_can_be_read() {
        let options = NixOptions(vec![("restrict-eval".into(), "false".into())]);
        let names = ["git".to_owned(), "a\"b".to_owned()];
        let permissions = EvalPermissions {
            allowed_uris: vec!["https://a/".to_owned(), "https://b/".to_owned()],
            import_from_derivation: false,
        };
        let (resolver, source) = (Path::new("/r.nix"), Path::new("/pkgs"));
        let system = System::X86_64Linux;
        let evaluation = evaluate(&options, &permissions, resolver, source, system);
        let command = resolve(evaluation, &names, Writes::Derivations);
        assert_eq!(
            text(&command),
            "nix-instantiate --eval --strict --json \
             --option restrict-eval false --option restrict-eval true --option nix-path  \
             --option allowed-uris https://a/ https://b/ \
             --option allow-import-from-derivation false \
             -I nixgate-expression=/r.nix -I nixgate-packages=/packages.nix -I nixgate-set=/pkgs /r.nix \
             --argstr source /pkgs --argstr system x86_64-linux --read-write-mode --argstr names [\"git\",\"a\\\"b\"]"
        );
        assert_eq!(command.arguments.last().unwrap(), "[\"git\",\"a\\\"b\"]");
    }

    #[test]
    fn the_wanted_outputs_are_realised_under_roots() {
        let derivation = Derivation::example("git");
        assert_eq!(
            text(&realise(
                &NixOptions::default(),
                &[derivation],
                Path::new("/roots/1"),
                60
            )),
            "nix-store --realise --timeout 60 --log-format internal-json --add-root /roots/1/root --indirect \
             /nix/store/00000000000000000000000000000000-git.drv!out"
        );
    }
}
