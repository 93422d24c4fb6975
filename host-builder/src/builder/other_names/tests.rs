//! Which names are found, with an index and without, and what is remembered.

use std::path::Path;
use std::sync::atomic::Ordering;

use nixgate_core::distribution::Digest;
use tokio::sync::Semaphore;

use super::*;
use crate::nix::fake::FakeNix;
use crate::nix::{Derivation, Described};

const PATIENT: Patience = Patience {
    wait: Duration::from_secs(60),
    only_when_idle: false,
};

fn output(name: &str) -> StorePath {
    StorePath::example(name)
}

fn package(name: &str, outputs: &[&str]) -> (String, Resolution) {
    let derivation = Derivation {
        outputs: Vec::new(),
        identity: outputs.iter().map(|name| output(name)).collect(),
        ..Derivation::example("any")
    };
    (name.to_owned(), Resolution::Derivation(derivation))
}

/// As nixpkgs is.
fn nix() -> FakeNix {
    let set = Resolution::NotADerivation {
        kind: "set".to_owned(),
    };
    FakeNix {
        packages: [
            package("python3packages.requests", &["requests"]),
            package("python3.pkgs.requests", &["requests"]),
            package("python313packages.requests", &["requests"]),
            package("xorg.libx11", &["libx11", "libx11-dev"]),
            package("libx11.dev", &["libx11-dev"]),
            package("git", &["git", "git-doc"]),
            package("git.doc", &["git-doc"]),
            ("unfree".to_owned(), Resolution::Refused),
            ("python3packages".to_owned(), set),
        ]
        .into(),
        broken: vec!["mess".to_owned()],
        ..FakeNix::default()
    }
}

fn index() -> Arc<Index> {
    Arc::new(Index::example(&[
        ("python3", output("git")),
        ("python3Packages.requests", output("requests")),
        ("python313Packages.requests", output("requests")),
    ]))
}

/// An image with packages that have one output each.
fn image(packages: &[(&str, &str)]) -> ImageRecord {
    let outputs = packages
        .iter()
        .map(|(name, one)| ((*name).to_owned(), [output(one)].into()));
    let mut image = ImageRecord::example(&[(Digest::of(b""), 1)]);
    image.origin = Some(Origin {
        set: "/".into(),
        revision: "r".to_owned(),
        outputs: outputs.collect(),
    });
    image
}

struct Scene {
    nix: Arc<FakeNix>,
    others: OtherNames,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self::of(nix())
    }

    fn of(nix: FakeNix) -> Self {
        let (folder, nix) = (tempfile::tempdir().unwrap(), Arc::new(nix));
        let shared: Arc<dyn Nix> = Arc::clone(&nix) as _;
        let indexes = Indexes::example(Arc::clone(&shared), folder.path(), false);
        Self {
            nix,
            others: OtherNames::new(shared, indexes, true, "s".to_owned()),
            _folder: folder,
        }
    }

    async fn with(
        &self,
        index: Option<Arc<Index>>,
        image: &ImageRecord,
        denied: &str,
        patience: Patience,
    ) -> Others {
        let denied = DeniedPatterns::parse(denied).unwrap();
        let origin = image.origin.as_ref().unwrap();
        self.others
            .found(image, origin, index, &denied, patience)
            .await
    }

    fn evaluations(&self) -> usize {
        self.nix.resolved.load(Ordering::SeqCst)
    }
}

/// What is known: `package=name,name package=…`, with `…` when there may be more.
fn told(others: &Others) -> String {
    let Others::Known { names, may_grow } = others else {
        return format!("{others:?}");
    };
    let names = names.iter().map(|(name, others)| {
        let others: Vec<_> = others.iter().map(String::as_str).collect();
        format!("{name}={}", others.join(","))
    });
    let more = may_grow.then(|| "…".to_owned());
    names.chain(more).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn without_an_index_literals_are_compared_by_all_their_outputs() {
    for (packages, denied, expected) in [
        (
            &[("python3.pkgs.requests", "requests")][..],
            "python3packages.requests",
            "python3.pkgs.requests=python3packages.requests",
        ),
        (
            &[("python3.pkgs.requests", "requests")],
            "python3.pkgs.requests",
            "",
        ),
        (&[("python3.pkgs.requests", "requests")], "python3", ""),
        // The edge compares the own name and what it is in.
        (
            &[("libx11.dev", "libx11-dev")],
            "xorg.libx11",
            "libx11.dev=xorg.libx11",
        ),
        (
            &[("xorg.libx11.dev", "libx11-dev")],
            "libx11.dev",
            "xorg.libx11.dev=libx11.dev",
        ),
        (&[("xorg.libx11", "libx11")], "libx11.dev", ""),
        // The documentation is denied, and not in the image.
        (&[("gitalias", "git")], "git.doc", ""),
        (&[("gitalias", "git")], "git git.doc", "gitalias=git"),
        (
            &[("gitalias", "git"), ("htop", "xev")],
            "git nope unfree",
            "gitalias=git",
        ),
        // Those that Nix can't evaluate hide no other.
        (&[("gitalias", "git")], "git mess", "gitalias=git"),
        // Only an index knows all names.
        (&[("gitalias", "git")], "git x*", "gitalias=git …"),
        (&[("gitalias", "git")], "python3packages", "…"),
    ] {
        let found = Scene::new()
            .with(None, &image(packages), denied, PATIENT)
            .await;
        assert_eq!(told(&found), expected, "{packages:?} {denied}");
    }
}

#[tokio::test]
async fn an_index_knows_all_names_and_nix_those_that_lead_through_a_package() {
    let requests = &[("requests", "requests")];
    for (denied, expected, evaluations) in [
        (
            "python3packages.requests",
            "requests=python3packages.requests",
            0,
        ),
        (
            "python313packages.*",
            "requests=python313packages.requests",
            0,
        ),
        ("python3packages", "requests=python3packages", 0),
        ("git nope unfree", "", 0),
        ("python3.pkgs.requests", "requests=python3.pkgs.requests", 1),
        ("libx11.dev", "", 1),
    ] {
        let scene = Scene::new();
        let found = scene
            .with(Some(index()), &image(requests), denied, PATIENT)
            .await;
        assert_eq!(told(&found), expected, "{denied}");
        assert_eq!(scene.evaluations(), evaluations, "{denied}");
    }
}

#[tokio::test]
async fn what_an_index_could_not_evaluate_is_asked_for() {
    let failed = Described::Failed {
        reason: "no memory".to_owned(),
    };
    let index = || Arc::new(Index::described([("git", failed.clone())]));
    for denied in ["git", "g*"] {
        let scene = Scene::new();
        let found = scene
            .with(Some(index()), &image(&[("vcs", "git")]), denied, PATIENT)
            .await;
        assert_eq!(told(&found), "vcs=git", "{denied}");
    }
}

#[tokio::test]
async fn what_can_not_be_told_is_unknown() {
    let gone = |packages| {
        let mut image = image(packages);
        image.origin.as_mut().unwrap().set = Path::new("/nonexistent").into();
        image
    };
    let requests = &[("requests", "requests")];
    let known = "requests=python3packages.requests";
    for (index, denied, expected) in [
        (None, "python3packages.requests", "Unknown"),
        (Some(index()), "python3packages.requests", known),
        (
            Some(index()),
            "nope python3packages.* python3packages.nope",
            known,
        ),
        // The index did not look into that.
        (Some(index()), "python3packages.* unfree.inside", "Unknown"),
        (Some(index()), "python3.pkgs.requests", "Unknown"),
    ] {
        let found = Scene::new()
            .with(index, &gone(requests), denied, PATIENT)
            .await;
        assert_eq!(told(&found), expected, "{denied}");
    }
    // Too many to look at.
    let names: Vec<_> = (10..90).map(|number| format!("mess{number}")).collect();
    let scene = Scene::of(FakeNix {
        broken: names.clone(),
        ..nix()
    });
    let found = scene
        .with(None, &image(requests), &names.join(" "), PATIENT)
        .await;
    assert_eq!(told(&found), "Unknown");
}

#[tokio::test]
async fn a_record_of_an_older_version_is_unknown_where_packages_are_denied() {
    let scene = Scene::new();
    let older = ImageRecord::example(&[(Digest::of(b""), 1)]);
    for (denied, expected) in [("git", "Unknown"), ("", "")] {
        let denied = match denied {
            "" => DeniedPatterns::default(),
            denied => DeniedPatterns::parse(denied).unwrap(),
        };
        let found = scene.others.of(&older, &denied, PATIENT).await;
        assert_eq!(told(&found), expected);
    }
    assert_eq!(scene.evaluations(), 0);
}

#[tokio::test]
async fn literals_are_looked_up_once_for_all_images_of_a_package_set() {
    let scene = Scene::new();
    for packages in [
        &[("gitalias", "git")][..],
        &[("vcs", "git"), ("xev", "xev")],
    ] {
        for _ in 0..2 {
            let found = scene
                .with(None, &image(packages), "git xorg.xev", PATIENT)
                .await;
            assert!(told(&found).ends_with("=git"), "{found:?}");
        }
    }
    assert_eq!(scene.evaluations(), 1);
    let mut newer = image(&[("gitalias", "git")]);
    newer.origin.as_mut().unwrap().revision = "s".to_owned();
    for (image, denied) in [(&newer, "git xorg.xev"), (&newer, "git")] {
        scene.with(None, image, denied, PATIENT).await;
    }
    assert_eq!(scene.evaluations(), 3);
}

#[tokio::test]
async fn a_list_starts_no_second_search_and_nobody_waits_longer_than_he_wants() {
    let scene = Scene::of(FakeNix {
        resolve_gate: Some(Semaphore::new(0)),
        ..nix()
    });
    let patience = |only_when_idle| Patience {
        wait: Duration::ZERO,
        only_when_idle,
    };
    let image = image(&[("gitalias", "git")]);
    let first = scene.with(None, &image, "git", patience(true)).await;
    assert!(matches!(first, Others::Pending(_)), "{first:?}");
    let second = scene.with(None, &image, "hg", patience(true)).await;
    assert_eq!(second, Others::Unknown);
    let urgent = scene.with(None, &image, "hg", patience(false)).await;
    assert!(matches!(urgent, Others::Pending(_)), "{urgent:?}");
    scene.nix.resolve_gate.as_ref().unwrap().close();
    let first = scene.with(None, &image, "git", PATIENT).await;
    assert_eq!(told(&first), "gitalias=git");
}
