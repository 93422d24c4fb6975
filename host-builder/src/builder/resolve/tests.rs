//! Who is told what, and how many evaluations that takes.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;
use crate::nix::fake::FakeNix;

fn image(packages: impl IntoIterator<Item = impl ToString>) -> ImageRequest {
    ImageRequest {
        packages: packages.into_iter().map(|name| name.to_string()).collect(),
        ..ImageRequest::example(&[])
    }
}

fn nix() -> FakeNix {
    let packages = [
        ("git", Resolution::Derivation(Derivation::example("git"))),
        (
            "lib",
            Resolution::NotADerivation {
                kind: "lambda".to_owned(),
            },
        ),
        ("unfree", Resolution::Refused),
    ];
    FakeNix {
        packages: packages
            .map(|(name, found)| (name.to_owned(), found))
            .into(),
        ..FakeNix::default()
    }
}

async fn error(nix: &FakeNix, packages: &[&str]) -> Error {
    resolve(nix, &image(packages), None).await.unwrap_err()
}

#[tokio::test]
async fn every_unknown_package_is_named_at_once() {
    let error = error(&nix(), &["foo", "git", "nope"]).await;
    assert_eq!(error.kind, ErrorKind::ManifestUnknown);
    assert_eq!(error.message, "the package set has no foo, nope");
    assert_eq!(error.detail, json!({ "unknown": ["foo", "nope"] }));
}

#[tokio::test]
async fn what_the_package_set_refuses_is_denied_with_nix_s_reason() {
    let error = error(&nix(), &["git", "lib", "unfree"]).await;
    assert_eq!(error.kind, ErrorKind::Denied);
    assert_eq!(
        error.message,
        "refused by the package set: lib (a function, not a package), unfree (unfree has an unfree license)"
    );
}

#[tokio::test]
async fn a_package_that_breaks_the_evaluation_of_all_is_named() {
    let names: Vec<_> = (0..100).map(|number| format!("p{number}")).collect();
    let derivation = |name: &String| Resolution::Derivation(Derivation::example(name));
    let mut nix = FakeNix {
        packages: names
            .iter()
            .map(|name| (name.clone(), derivation(name)))
            .collect(),
        ..FakeNix::default()
    };
    assert_eq!(
        resolve(&nix, &image(&names), None).await.unwrap().len(),
        100
    );
    nix.broken = vec!["p7".to_owned(), "p70".to_owned()];
    nix.resolved = 0.into();
    let error = resolve(&nix, &image(&names), None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BuildFailed);
    for part in ["p7 (p7 is a mess)", "p70 (p70 is a mess)"] {
        assert!(error.message.contains(part), "{error}");
    }
    let evaluations = nix.resolved.load(Ordering::SeqCst);
    assert!(evaluations < 30, "{evaluations} evaluations");

    // However many there are, the work is bounded.
    nix.broken = names.clone();
    nix.resolved = 0.into();
    let error = resolve(&nix, &image(&names), None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BuildFailed);
    let evaluations = nix.resolved.load(Ordering::SeqCst);
    assert!(
        evaluations <= MAX_EVALUATIONS + 2,
        "{evaluations} evaluations"
    );
    assert!(error.message.contains("names not looked at: "), "{error}");
}

#[tokio::test]
async fn all_sorts_of_wrong_names_are_told_at_once() {
    let mut nix = nix();
    nix.broken = vec!["mess".to_owned()];
    for (names, begins) in [
        (
            ["foo", "git", "mess"],
            "the package set has no foo. Nix cannot",
        ),
        (
            ["git", "mess", "unfree"],
            "refused by the package set: unfree",
        ),
    ] {
        let error = error(&nix, &names).await;
        assert!(error.message.starts_with(begins), "{error}");
        assert!(error.message.contains("mess (mess is a mess)"), "{error}");
    }
}

#[tokio::test]
async fn a_package_set_that_has_gone_is_no_failed_build() {
    let mut nix = nix();
    nix.broken = vec!["git".to_owned()];
    let mut image = image(["git"]);
    image.pin.path = "/nonexistent".into();
    let error = resolve(&nix, &image, None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BuilderUnready);
}
