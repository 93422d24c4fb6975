//! What to run: programs and their arguments, as values.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::output::Derivation;
use crate::closure::{STORE_DIR, StorePath};
use crate::process::Command;
use nixgate_core::package_set::System;

/// Settings of Nix that every process is given (`--option name value`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NixOptions(pub(crate) Vec<(String, String)>);

impl NixOptions {
    fn arguments(&self) -> impl Iterator<Item = OsString> {
        self.0
            .iter()
            .flat_map(|(name, value)| ["--option".into(), name.into(), value.into()])
    }
}

/// `nix --version`
pub(super) fn version() -> Command {
    Command {
        program: "nix",
        arguments: vec!["--version".into()],
    }
}

/// Asks the store whether it has a path that nobody has: whatever it says, it has answered.
/// `--version` would not open the store at all.
pub(super) fn ask_store(options: &NixOptions) -> Command {
    let nobody = format!("{STORE_DIR}/{}-nixgate-readiness", "0".repeat(32));
    let mut arguments: Vec<OsString> = vec!["--check-validity".into(), "--print-invalid".into()];
    arguments.extend(options.arguments());
    arguments.push(nobody.into());
    Command {
        program: "nix-store",
        arguments,
    }
}

/// What Nix code of a package set may do while it is evaluated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EvalPermissions {
    /// URIs that it may fetch from, by their beginnings.
    pub(crate) allowed_uris: Vec<String>,
    /// Whether it may wait for builds and read what they made.
    pub(crate) import_from_derivation: bool,
}

/// Evaluates an expression of ours over a package set. The set's Nix code reads the set itself and
/// what that refers to in the store, and nothing else of the machine: in restricted mode, Nix opens
/// what `-I` names alone. What this says comes last, so no other setting undoes it.
fn evaluate(
    options: &NixOptions,
    freedom: &EvalPermissions,
    expression: &Path,
    source: &Path,
    strings: &[(&str, &str)],
) -> Command {
    let mut arguments: Vec<OsString> = ["--eval", "--strict", "--json", "--read-write-mode"]
        .map(Into::into)
        .into();
    arguments.extend(options.arguments());
    let safety = [
        ("restrict-eval", "true"),
        // What a machine's configuration puts there could be read.
        ("nix-path", ""),
        ("allowed-uris", &freedom.allowed_uris.join(" ")),
        (
            "allow-import-from-derivation",
            match freedom.import_from_derivation {
                true => "true",
                false => "false",
            },
        ),
    ];
    let safety = safety.map(|(name, value)| (name.to_owned(), value.to_owned()));
    arguments.extend(NixOptions(safety.into()).arguments());
    // With a prefix: a store path may have an `=` in it.
    for (name, path) in [("nixgate-expression", expression), ("nixgate-set", source)] {
        let mut readable = OsString::from(format!("{name}="));
        readable.push(path);
        arguments.extend(["-I".into(), readable]);
    }
    arguments.push(expression.into());
    arguments.extend(["--argstr".into(), "source".into(), source.into()]);
    for (name, value) in strings {
        arguments.extend(["--argstr", name, value].map(Into::into));
    }
    Command {
        program: "nix-instantiate",
        arguments,
    }
}

/// Evaluates the resolver (`nix/resolve.nix`), which writes the derivations to the store.
pub(super) fn resolve(
    options: &NixOptions,
    freedom: &EvalPermissions,
    resolver: &Path,
    source: &Path,
    system: System,
    names: &[String],
) -> Command {
    let names = serde_json::Value::from(names).to_string();
    let strings = [("system", system.nix()), ("names", &names)];
    evaluate(options, freedom, resolver, source, &strings)
}

/// Evaluates one name without catching what it throws.
pub(super) fn explain(
    options: &NixOptions,
    freedom: &EvalPermissions,
    resolver: &Path,
    source: &Path,
    system: System,
    name: &str,
) -> Command {
    let names = [name.to_owned()];
    let mut command = resolve(options, freedom, resolver, source, system, &names);
    let explain = ["--arg", "explain", "true"].map(Into::into);
    command.arguments.extend(explain);
    command
}

/// Evaluates what a package set has at attribute paths (`nix/attributes.nix`).
pub(super) fn look(
    options: &NixOptions,
    freedom: &EvalPermissions,
    expression: &Path,
    source: &Path,
    system: System,
    paths: &[Vec<String>],
) -> Command {
    let paths = serde_json::Value::from(paths.to_vec()).to_string();
    let strings = [("system", system.nix()), ("paths", &paths)];
    evaluate(options, freedom, expression, source, &strings)
}

/// A build that shows what builds can do (`nix/sandbox.nix`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    /// What no other trial was called.
    pub(crate) unique: String,
    /// The folder with what it runs.
    pub(crate) folder: PathBuf,
    /// The file in there.
    pub(crate) program: String,
    /// That program's arguments.
    pub(crate) arguments: Vec<String>,
    /// Whether it has the network, as a build whose output is known before.
    pub(crate) download: bool,
}

/// Builds it; prints its store path.
pub(super) fn probe_sandbox(options: &NixOptions, expression: &Path, trial: &Trial) -> Command {
    let mut arguments: Vec<OsString> = vec!["--no-out-link".into()];
    arguments.extend(options.arguments());
    // It is nowhere to be had.
    arguments.extend(["--option", "substitute", "false"].map(Into::into));
    arguments.push(expression.into());
    arguments.extend(["--argstr".into(), "folder".into(), (&trial.folder).into()]);
    let list = serde_json::Value::from(trial.arguments.clone()).to_string();
    let download = trial.download.to_string();
    for (name, value) in [
        ("unique", &trial.unique),
        ("program", &trial.program),
        ("arguments", &list),
        ("download", &download),
    ] {
        arguments.extend(["--argstr", name, value].map(Into::into));
    }
    Command {
        program: "nix-build",
        arguments,
    }
}

/// Realises derivations, with one link for each output in `roots`.
///
/// `timeout` is for one derivation, in seconds.
pub(super) fn realise(
    options: &NixOptions,
    derivations: &[Derivation],
    roots: &Path,
    timeout: u64,
) -> Command {
    let mut arguments: Vec<OsString> = vec!["--realise".into()];
    arguments.extend(options.arguments());
    arguments.extend(["--timeout".into(), timeout.to_string().into()]);
    arguments.extend(["--log-format", "internal-json"].map(Into::into));
    arguments.extend([
        "--add-root".into(),
        roots.join("root").into(),
        "--indirect".into(),
    ]);
    arguments.extend(derivations.iter().map(|derivation| {
        let outputs: Vec<_> = derivation
            .outputs
            .iter()
            .map(|output| output.name.as_str())
            .collect();
        format!("{}!{}", derivation.path, outputs.join(",")).into()
    }));
    Command {
        program: "nix-store",
        arguments,
    }
}

/// Fetches or builds valid store paths again whose contents were changed, and puts them in place.
pub(super) fn repair(options: &NixOptions, paths: &[StorePath], timeout: u64) -> Command {
    let mut arguments: Vec<OsString> = vec!["--repair-path".into()];
    arguments.extend(options.arguments());
    arguments.extend(["--timeout".into(), timeout.to_string().into()]);
    arguments.extend(["--log-format", "internal-json"].map(Into::into));
    arguments.extend(paths.iter().map(|path| path.to_string().into()));
    Command {
        program: "nix-store",
        arguments,
    }
}

/// Asks for a closure with its hashes, sizes and references.
pub(super) fn path_info(options: &NixOptions, roots: &[StorePath]) -> Command {
    let mut arguments: Vec<OsString> = vec![
        "--extra-experimental-features".into(),
        "nix-command".into(),
        "path-info".into(),
        "--json".into(),
        "--recursive".into(),
    ];
    arguments.extend(options.arguments());
    arguments.extend(roots.iter().map(|path| path.to_string().into()));
    Command {
        program: "nix",
        arguments,
    }
}

/// Fetches and unpacks a tarball; prints its hash and its store path.
pub(super) fn prefetch_tarball(options: &NixOptions, url: &str) -> Command {
    let mut arguments: Vec<OsString> = vec!["--unpack".into(), "--print-path".into()];
    arguments.extend(options.arguments());
    arguments.extend(["--name".into(), "source".into(), url.into()]);
    Command {
        program: "nix-prefetch-url",
        arguments,
    }
}

/// Fetches a flake and all its inputs into the store, as its own lock says; prints where they are.
/// A lock that is missing or lags behind is an error, not something to mend: others would get other
/// packages. Names of registries differ between machines.
pub(super) fn archive_flake(options: &NixOptions, url: &str) -> Command {
    let mut arguments: Vec<OsString> = ["--extra-experimental-features", "nix-command flakes"]
        .map(Into::into)
        .into();
    arguments.extend(["flake", "archive", "--json"].map(Into::into));
    arguments.extend(options.arguments());
    arguments.extend(["--option", "use-registries", "false"].map(Into::into));
    arguments.extend(["--no-update-lock-file", "--", url].map(Into::into));
    Command {
        program: "nix",
        arguments,
    }
}

/// Makes a package set of a flake that was archived (`nix/flake.nix`); prints its store path as a
/// JSON string.
pub(super) fn pin_flake(
    options: &NixOptions,
    expression: &Path,
    archive: &str,
    dir: &str,
) -> Command {
    let mut arguments: Vec<OsString> = ["--eval", "--json", "--read-write-mode"]
        .map(Into::into)
        .into();
    arguments.extend(options.arguments());
    arguments.push(expression.into());
    for (name, value) in [("archive", archive), ("dir", dir)] {
        arguments.extend(["--argstr", name, value].map(Into::into));
    }
    Command {
        program: "nix-instantiate",
        arguments,
    }
}

/// LocalCache a folder into the store; prints the store path as a JSON string. Sockets and the like are
/// left out, which can't be copied.
pub(super) fn add_folder(options: &NixOptions, folder: &Path) -> Command {
    const COPY: &str = r#"
        { folder }:
        builtins.path {
          name = "package-set";
          path = /. + folder;
          filter = path: type: type != "unknown" && baseNameOf path != ".git";
        }"#;
    let mut arguments: Vec<OsString> = ["--eval", "--json", "--read-write-mode"]
        .map(Into::into)
        .into();
    arguments.extend(options.arguments());
    arguments.extend(["--expr".into(), COPY.into()]);
    arguments.extend(["--argstr".into(), "folder".into(), folder.into()]);
    Command {
        program: "nix-instantiate",
        arguments,
    }
}

/// Links to a store path, so that the garbage collector keeps it.
pub(super) fn keep(options: &NixOptions, path: &Path, link: &Path) -> Command {
    let mut arguments: Vec<OsString> = vec!["--realise".into()];
    arguments.extend(options.arguments());
    arguments.extend(["--add-root".into(), link.into(), "--indirect".into()]);
    arguments.push(path.into());
    Command {
        program: "nix-store",
        arguments,
    }
}

/// Fetches a commit; prints the store path as a JSON string.
pub(super) fn fetch_git(options: &NixOptions, url: &str, reference: &str, commit: &str) -> Command {
    let mut arguments: Vec<OsString> = ["--eval", "--json", "--read-write-mode"]
        .map(Into::into)
        .into();
    arguments.extend(options.arguments());
    arguments.extend([
        "--expr".into(),
        "{ url, ref, rev }: (builtins.fetchGit { inherit url ref rev; }).outPath".into(),
    ]);
    for (name, value) in [("url", url), ("ref", reference), ("rev", commit)] {
        arguments.extend(["--argstr".into(), name.into(), value.into()]);
    }
    Command {
        program: "nix-instantiate",
        arguments,
    }
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
        let freedom = EvalPermissions {
            allowed_uris: vec!["https://a/".to_owned(), "https://b/".to_owned()],
            import_from_derivation: false,
        };
        let (resolver, source) = (Path::new("/r.nix"), Path::new("/pkgs"));
        let system = System::X86_64Linux;
        let command = resolve(&options, &freedom, resolver, source, system, &names);
        assert_eq!(
            text(&command),
            "nix-instantiate --eval --strict --json --read-write-mode \
             --option restrict-eval false --option restrict-eval true --option nix-path  \
             --option allowed-uris https://a/ https://b/ \
             --option allow-import-from-derivation false \
             -I nixgate-expression=/r.nix -I nixgate-set=/pkgs /r.nix \
             --argstr source /pkgs --argstr system x86_64-linux --argstr names [\"git\",\"a\\\"b\"]"
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
