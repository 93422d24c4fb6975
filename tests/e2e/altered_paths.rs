//! Store paths that somebody changed after Nix had made them: they are repaired, or they are not served.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use http::header::RETRY_AFTER;
use nixgate_tests::live::builder::{Builder, Settings};
use nixgate_tests::live::poll;
use nixgate_tests::live::served_set::ServedSet;
use nixgate_tests::live::unbuilt_set::{UnbuiltSet, pull};

/// `a` needs `lib`. Neither can be built while there is a file `closed` in the folder of the test.
const SET: &str = r#"{ system ? builtins.currentSystem }:
let
  package = name: script: derivation {
    name = "@salt@-${name}-1";
    pname = name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-c" "test ! -e @folder@/closed || exit 1; ${script}" ];
  };
  lib = package "lib" "mkdir -p $out/bin; echo of the lib > $out/bin/lib";
in
{
  a = package "a" "mkdir -p $out/bin; echo ${lib} > $out/bin/a";
  cacert = package "cacert" "mkdir -p $out/etc";
  iana-etc = package "iana-etc" "mkdir -p $out/etc";
}
"#;

struct Scene {
    set: UnbuiltSet,
    settings: Settings,
}

impl Scene {
    fn new() -> Result<Self> {
        let set = UnbuiltSet::of(SET)?;
        let settings = set.open_builder("one")?;
        Ok(Self { set, settings })
    }

    /// The file that a package has, in the store.
    fn file(&self, package: &str) -> Result<PathBuf> {
        let packages = self.set.packages()?;
        let is_it = |path: &&PathBuf| path.to_string_lossy().ends_with(&format!("-{package}-1"));
        let path = packages.iter().find(is_it).context("it is not built")?;
        Ok(path.join("bin").join(package))
    }

    /// Takes what was packed from storage, so that it has to be packed again.
    fn lose_layers(&self) -> Result<()> {
        for folder in ["builds", "layers", "manifests", "links", "facts"] {
            fs::remove_dir_all(self.set.storage().join(folder))?;
        }
        Ok(())
    }

    /// How many layers and manifests there are.
    fn stored(&self) -> usize {
        let count = |folder: &str| -> usize {
            let entries = fs::read_dir(self.set.storage().join(folder));
            entries.map_or(0, Iterator::count)
        };
        count("manifests") + count("links")
    }
}

fn digest(builder: &Builder, image: &str) -> Result<String> {
    let answer = pull(builder.port(), image)?;
    ensure!(
        answer.status == StatusCode::OK,
        "{image}: {} {}\n{}",
        answer.status,
        answer.text(),
        builder.log()
    );
    Ok(answer.header("docker-content-digest").to_owned())
}

fn overwrite(file: &Path) -> Result<Vec<u8>> {
    let original = fs::read(file)?;
    fs::write(file, vec![b'x'; original.len()])?;
    Ok(original)
}

fn repaired(builder: &Builder) -> Result<u64> {
    builder.counter("nixgate_altered_paths_total", &["outcome=\"repaired\""])
}

#[test]
fn a_package_that_was_changed_is_repaired_before_it_is_packed() -> Result<()> {
    let scene = Scene::new()?;
    let builder = Builder::start(&scene.settings)?;
    let first = digest(&builder, "a")?;
    for (round, package) in ["a", "lib"].into_iter().enumerate() {
        let file = scene.file(package)?;
        let original = overwrite(&file)?;
        scene.lose_layers()?;
        // The same image, byte for byte, and so of the original.
        assert_eq!(digest(&builder, "a")?, first, "{package}");
        assert_eq!(fs::read(&file)?, original, "{package}");
        assert_eq!(repaired(&builder)?, round as u64 + 1);
        let log = builder.log();
        let path = file.ancestors().nth(2).context("a store path")?;
        let told = |line: &&str| {
            let path = path.to_string_lossy();
            line.contains("was changed") && line.contains(&*path) && line.contains("recorded=")
        };
        assert!(log.lines().any(|line| told(&line)), "{log}");
    }
    // What is as it was is packed without a question to Nix.
    scene.lose_layers()?;
    let before = builder.nix_processes()?;
    assert_eq!(digest(&builder, "a")?, first);
    assert_eq!(builder.nix_processes()?, before);
    Ok(())
}

#[test]
fn of_a_package_that_was_changed_before_anybody_asked_nothing_wrong_is_learnt() -> Result<()> {
    let scene = Scene::new()?;
    let builder = Builder::start(&scene.settings)?;
    let first = digest(&builder, "a")?;
    drop(builder);
    // As if another one had built it.
    fs::remove_dir_all(scene.set.storage())?;
    let file = scene.file("a")?;
    overwrite(&file)?;
    fs::rename(&file, file.with_file_name("other"))?;
    let builder = Builder::start(&scene.settings)?;
    assert_eq!(digest(&builder, "a")?, first);
    assert_eq!(repaired(&builder)?, 1);
    Ok(())
}

#[test]
fn what_can_not_be_repaired_is_refused_and_nothing_of_it_is_published() -> Result<()> {
    let scene = Scene::new()?;
    let builder = Builder::start(&scene.settings)?;
    let first = digest(&builder, "a")?;
    overwrite(&scene.file("lib")?)?;
    scene.lose_layers()?;
    let closed = scene.set.folder().join("closed");
    fs::write(&closed, "")?;
    let answer = pull(builder.port(), "a")?;
    let text = answer.text();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(answer.headers.contains_key(RETRY_AFTER));
    for part in ["-lib-1: ", "were altered", "administrator"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("/nix/store"), "{text}");
    assert_eq!(scene.stored(), 0);
    let log = builder.log();
    for part in [
        "cannot repair a store path",
        "nix-store --repair-path /nix/store/",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let refused = builder.counter("nixgate_altered_paths_total", &["outcome=\"refused\""])?;
    assert_eq!(refused, 1);

    // It is not tried again for each who asks, and after a while for the next.
    let before = builder.nix_processes()?;
    let answer = pull(builder.port(), "a")?;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(builder.nix_processes()?, before);
    fs::remove_file(&closed)?;
    poll::until("the refusal is forgotten", || {
        let answer = pull(builder.port(), "a").ok()?;
        (answer.status == StatusCode::OK).then_some(())
    })?;
    assert_eq!(digest(&builder, "a")?, first);
    Ok(())
}

/// A wrong hash would be taken for a change.
#[test]
fn files_of_every_kind_are_hashed_as_nix_does() -> Result<()> {
    let packages = r#"
        odd = package "odd" ''
          mkdir -p $out/empty $out/deep/a/b/c "$out/a name" $out/.hidden
          cd $out
          for size in $(seq 0 40) 65535 65536 65537 1048576 1048577; do
            head -c $size /dev/zero > size-$size
            head -c $size /dev/urandom > noise-$size
            cp noise-$size twin-$size
          done
          cp noise-9 program; chmod +x program; cp program "a name/program"
          touch "$(printf '\377\303')" "$(printf 'new\nline')" Z a _ é 'a b' 'a.b' 'a-b' a0
          ln -s nowhere dangling; ln -s . here; ln -s /etc/passwd deep/absolute
          ln program linked; chmod 700 deep; chmod 4755 program || true
        '';
        single = package "single" "echo a file > $out; chmod +x $out";
        link = package "link" "ln -s ${single} $out";
    "#;
    let served = ServedSet::start(packages, |settings| settings)?;
    for name in ["odd", "single", "link"] {
        served.pulls(name)?;
    }
    let log = served.builder.log();
    assert!(!log.contains("was changed"), "{log}");
    Ok(())
}
