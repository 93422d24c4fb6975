use std::sync::atomic::Ordering;

use super::*;
use crate::closure::StorePath;
use crate::nix::fake::FakeNix;

fn set(names: &[&str]) -> Attribute {
    Attribute::Set {
        names: names.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn nix() -> FakeNix {
    let attributes = [
        (
            "",
            set(&[
                "Git",
                "_1password",
                "__internal",
                "bad",
                "git",
                "lib",
                "python3",
                "python3Packages",
                "shell",
            ]),
        ),
        ("git", Attribute::Package),
        ("_1password", Attribute::Package),
        ("lib", set(&["version", "licenses"])),
        ("lib.version", Attribute::Other),
        ("python3", Attribute::Package),
        ("python3Packages", set(&["requests", "Six"])),
        ("python3Packages.requests", Attribute::Package),
        ("python3Packages.Six", Attribute::Package),
    ];
    FakeNix {
        attributes: attributes
            .map(|(path, seen)| (path.to_owned(), seen))
            .into(),
        broken: vec!["bad".to_owned()],
        ..FakeNix::default()
    }
}

async fn list(nix: &Arc<FakeNix>) -> Listing {
    let shared: Arc<dyn Nix> = Arc::clone(nix) as _;
    Listing::list(None, shared, Path::new("/"), System::X86_64Linux)
        .await
        .unwrap()
}

fn glob(text: &str, reach: Reach) -> Glob {
    Glob::parse(text, reach).unwrap().remove(0)
}

fn all(index: &Listing) -> String {
    index.names().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn names_are_those_that_images_can_have() {
    let nix = Arc::new(nix());
    let index = list(&nix).await;
    assert_eq!(all(&index), "1password bad git lib python3 python3packages");
    // The one that is resolved, of two that differ in case.
    assert_eq!(index.names["git"], ["git"]);
    assert_eq!(nix.looked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn sets_are_opened_when_a_pattern_reaches_into_them() {
    let nix = Arc::new(nix());
    let mut index = list(&nix).await;
    let (git, all_of) = (
        glob("git*", Reach::OneAttribute),
        glob("python3packages.*", Reach::OneAttribute),
    );
    index.look_into(&[&git]).await.unwrap();
    assert!(!all(&index).contains('.'));
    index.look_into(&[&git, &all_of]).await.unwrap();
    let names = all(&index);
    assert!(
        names.contains("python3packages.six") && !names.contains("lib.version"),
        "{names}"
    );
}

#[tokio::test]
async fn a_broken_package_hides_no_other() {
    let nix = Arc::new(nix());
    let mut index = list(&nix).await;
    let everything = glob("*", Reach::Anything);
    index.look_into(&[&everything]).await.unwrap();
    let names: BTreeSet<String> = index.names().map(str::to_owned).collect();
    assert!(names.contains("lib.version"));
    let packages = index.packages(&names).await.unwrap();
    assert_eq!(index.not_looked_at(), None);
    let packages: Vec<_> = packages.into_iter().collect();
    assert_eq!(
        packages,
        [
            "1password",
            "git",
            "python3",
            "python3packages.requests",
            "python3packages.six"
        ]
    );
}

#[tokio::test]
async fn the_search_for_bad_names_is_bounded_and_says_what_it_left_out() {
    let names: Vec<_> = (0..3000).map(|number| format!("p{number:04}")).collect();
    let attributes = names
        .iter()
        .map(|name| (name.clone(), Attribute::Package))
        .chain([(
            String::new(),
            Attribute::Set {
                names: names.clone(),
            },
        )]);
    let (good, bad) = names.split_at(PATHS_AT_ONCE);
    let nix = Arc::new(FakeNix {
        attributes: attributes.collect(),
        broken: bad.to_vec(),
        ..FakeNix::default()
    });
    let mut index = list(&nix).await;
    let wanted = names.iter().cloned().collect();
    let packages = index.packages(&wanted).await.unwrap();
    assert!(packages.iter().eq(good), "{} are known", packages.len());
    // The list, the good ones, and those that failed.
    assert_eq!(nix.looked.load(Ordering::SeqCst), 2 + MAX_FAILURES);
    let told = index.not_looked_at().unwrap();
    assert!(told.starts_with("2000 names not looked at"), "{told}");
    assert!(
        told.contains("p1000, p1001") && told.ends_with(", and others"),
        "{told}"
    );
    // It stays so for what is asked next.
    index.packages(&wanted).await.unwrap();
    assert_eq!(nix.looked.load(Ordering::SeqCst), 2 + MAX_FAILURES);
}

#[tokio::test]
async fn an_index_answers_without_nix() {
    let nix = Arc::new(nix());
    let output = StorePath::example;
    let index = Index::example(&[
        ("git", output("git")),
        ("python3Packages.requests", output("requests")),
        ("python313Packages.requests", output("requests")),
    ]);
    let shared: Arc<dyn Nix> = Arc::clone(&nix) as _;
    let listing = Listing::list(
        Some(Arc::new(index)),
        shared,
        Path::new("/"),
        System::X86_64Linux,
    );
    let mut listing = listing.await.unwrap();
    let everything = glob("*", Reach::Anything);
    listing.look_into(&[&everything]).await.unwrap();
    let both = ["python313packages.requests", "python3packages.requests"];
    assert_eq!(all(&listing), format!("git {}", both.join(" ")));
    let names = ["git", "lib", both[0], both[1]].map(str::to_owned).into();
    let packages = listing.packages(&names).await.unwrap();
    assert!(packages.iter().eq(["git", both[1]]));
    assert!(listing.same(both[0]).iter().eq(both));
    assert!(listing.same("lib").iter().eq(["lib"]));
    assert_eq!(nix.looked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_pattern_reaches_into_sets_that_it_could_match() {
    for (text, name, inside, anywhere) in [
        ("git", "git", false, false),
        ("git*", "git", false, true),
        ("*", "git", false, true),
        ("*-unwrapped", "llvm", false, true),
        ("git-*", "git", false, false),
        ("python3packages.*", "python3packages", true, true),
        ("python3packages.*", "python3", false, false),
        ("python3*.requests", "python3packages", true, true),
        ("py*.requests", "git", false, false),
        ("xorg.xev", "xorg", true, true),
        ("xorg.xev", "lib", false, false),
    ] {
        assert_eq!(
            reaches_into(&glob(text, Reach::OneAttribute), name),
            inside,
            "{text} {name}"
        );
        assert_eq!(
            reaches_into(&glob(text, Reach::Anything), name),
            anywhere,
            "{text} {name}"
        );
    }
}
