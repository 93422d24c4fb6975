//! What to run: programs and their arguments, as values.

use std::ffi::OsString;
use std::path::Path;

use super::output::Derivation;
use crate::closure::{STORE_DIR, StorePath};
use nixgate_core::package_set::System;

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Looked up on `PATH`.
    pub program: &'static str,
    /// Arguments, none of which passes a shell.
    pub arguments: Vec<OsString>,
}

/// Settings of Nix that every process is given (`--option name value`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NixOptions(pub Vec<(String, String)>);

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

/// Evaluates the resolver (`nix/resolve.nix`), which writes the derivations to the store.
pub(super) fn resolve(
    options: &NixOptions,
    resolver: &Path,
    source: &Path,
    system: System,
    names: &[String],
) -> Command {
    let json = serde_json::Value::from(names).to_string();
    let mut arguments: Vec<OsString> = ["--eval", "--strict", "--json", "--read-write-mode"]
        .map(Into::into)
        .into();
    arguments.extend(options.arguments());
    arguments.push(resolver.into());
    for (name, value) in [
        ("source", source.into()),
        ("system", system.nix().into()),
        ("names", OsString::from(json)),
    ] {
        arguments.extend(["--argstr".into(), name.into(), value]);
    }
    Command {
        program: "nix-instantiate",
        arguments,
    }
}

/// Evaluates one name without catching what it throws.
pub(super) fn explain(
    options: &NixOptions,
    resolver: &Path,
    source: &Path,
    system: System,
    name: &str,
) -> Command {
    let mut command = resolve(options, resolver, source, system, &[name.to_owned()]);
    let explain = ["--arg", "explain", "true"].map(Into::into);
    command.arguments.extend(explain);
    command
}

/// Evaluates what a package set has at attribute paths (`nix/attributes.nix`).
pub(super) fn look(
    options: &NixOptions,
    expression: &Path,
    source: &Path,
    system: System,
    paths: &[Vec<String>],
) -> Command {
    let json = serde_json::Value::from(paths.to_vec()).to_string();
    let mut arguments: Vec<OsString> = ["--eval", "--strict", "--json", "--read-write-mode"]
        .map(Into::into)
        .into();
    arguments.extend(options.arguments());
    arguments.push(expression.into());
    for (name, value) in [
        ("source", source.into()),
        ("system", system.nix().into()),
        ("paths", OsString::from(json)),
    ] {
        arguments.extend(["--argstr".into(), name.into(), value]);
    }
    Command {
        program: "nix-instantiate",
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

/// Copies a folder into the store; prints the store path as a JSON string. Sockets and the like are
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
    fn names_travel_as_one_json_string() {
        let options = NixOptions(vec![("sandbox".into(), "true".into())]);
        let names = ["git".to_owned(), "a\"b".to_owned()];
        let (resolver, source) = (Path::new("/r.nix"), Path::new("/pkgs"));
        let command = resolve(&options, resolver, source, System::X86_64Linux, &names);
        assert_eq!(
            text(&command),
            "nix-instantiate --eval --strict --json --read-write-mode --option sandbox true /r.nix \
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
            "nix-store --realise --timeout 60 --add-root /roots/1/root --indirect \
             /nix/store/00000000000000000000000000000000-git.drv!out"
        );
    }
}
