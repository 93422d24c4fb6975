//! Whole indexes, with a Nix that has two packages under three names.

use std::io::Write;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nixgate_core::distribution::Tag;

use super::*;
use crate::closure::StorePath;
use crate::nix::fake::FakeNix;

const SYSTEM: System = System::X86_64Linux;

fn nix() -> FakeNix {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let package = |name| Described::example(&StorePath::example(name));
    let inside = Described::Set {
        names: names(&["git"]),
        recurse: true,
    };
    let top = Described::Set {
        names: names(&["git", "htop", "set", "wrong"]),
        recurse: false,
    };
    let described = [
        ("", top),
        ("git", package("git")),
        ("htop", package("htop")),
        ("set", inside),
        ("set.git", package("git")),
    ];
    FakeNix {
        described_as: described.map(|(path, one)| (path.to_owned(), one)).into(),
        broken: vec!["wrong".to_owned()],
        store: "/".into(),
        ..FakeNix::default()
    }
}

async fn of(indexes: &Indexes, pin: &Pin) -> Option<Arc<Index>> {
    let index = indexes.of(&pin.revision, SYSTEM, WAIT).await;
    index.ok().flatten()
}

async fn pinned(indexes: &Indexes) -> Pin {
    indexes.sources.wait_for(&Tag::latest()).await.unwrap()
}

/// Waits for the index in the background.
async fn complete(indexes: &Indexes, pin: &Pin) -> Arc<Index> {
    let making = indexes.clone().keep_making(SYSTEM);
    let index = async {
        loop {
            if let Some(index) = of(indexes, pin).await {
                return index;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        index = index => index,
        () = making => unreachable!("it goes on"),
    }
}

#[tokio::test]
async fn an_index_is_made_once_for_all_builders_that_share_storage() {
    let (folder, nix) = (tempfile::tempdir().unwrap(), Arc::new(nix()));
    let indexes = Indexes::example(Arc::clone(&nix) as _, folder.path(), true);
    let pin = pinned(&indexes).await;
    assert!(of(&indexes, &pin).await.is_none());

    let index = complete(&indexes, &pin).await;
    let names: Vec<_> = index.names().collect();
    let expected = [
        ("git", State::Package),
        ("htop", State::Package),
        ("set.git", State::Package),
        ("wrong", State::Failed),
    ];
    assert_eq!(names, expected);
    assert!(index.same("git").iter().eq(["git", "set.git"]));
    assert!(index.derivation("wrong").unwrap().is_none());
    let described = nix.described.load(Ordering::SeqCst);

    // Another builder, and this one after a start with an empty state folder.
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let other = Indexes::example(Arc::clone(&nix) as _, folder.path(), true);
    let pin = pinned(&other).await;
    complete(&other, &pin).await;
    assert_eq!(nix.described.load(Ordering::SeqCst), described);
}

#[tokio::test]
async fn a_builder_that_was_stopped_goes_on_where_it_was() {
    let (folder, nix) = (tempfile::tempdir().unwrap(), Arc::new(nix()));
    let indexes = Indexes::example(Arc::clone(&nix) as _, folder.path(), true);
    let pin = pinned(&indexes).await;
    let key = indexes.key(&pin.revision, SYSTEM);
    std::fs::create_dir_all(&indexes.folder).unwrap();
    let draft = indexes.folder.join(format!("{key}.draft"));
    let known = Described::Refused;
    let (mut file, _) = Draft::open(&draft).unwrap();
    for name in ["git", "htop", "wrong"] {
        file.add(&[(vec![name.to_owned()], known.clone())]).unwrap();
    }
    let index = complete(&indexes, &pin).await;
    assert_eq!(
        index.names().collect::<Vec<_>>(),
        [("set.git", State::Package)]
    );
    // The top, what is left of it, and the names in the set.
    assert_eq!(nix.described.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_damaged_index_in_storage_is_made_again() {
    let (folder, nix) = (tempfile::tempdir().unwrap(), Arc::new(nix()));
    let indexes = Indexes::example(nix, folder.path(), true);
    let pin = pinned(&indexes).await;
    let key = Key::index(&indexes.key(&pin.revision, SYSTEM));
    for damaged in [&b"no gzip"[..], &pack_bytes(b"no line\n")] {
        let damaged = Bytes::copy_from_slice(damaged);
        indexes.storage.put(&key, damaged).await.unwrap();
        let indexes = Indexes::example(Arc::clone(&indexes.nix), folder.path(), true);
        let pin = pinned(&indexes).await;
        assert!(of(&indexes, &pin).await.is_none());
        complete(&indexes, &pin).await;
        std::fs::remove_dir_all(&indexes.folder).unwrap();
    }
}

fn pack_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[tokio::test]
async fn what_another_platform_has_so_far_is_kept() {
    let (folder, nix) = (tempfile::tempdir().unwrap(), Arc::new(nix()));
    let indexes = Indexes::example(nix, folder.path(), true);
    let pin = pinned(&indexes).await;
    complete(&indexes, &pin).await;
    let other = indexes.key(&pin.revision, System::Aarch64Linux);
    let old = indexes.key("an older revision", SYSTEM);
    for key in [&other, &old] {
        std::fs::write(indexes.folder.join(format!("{key}.draft")), "").unwrap();
    }
    let keys = [SYSTEM, System::Aarch64Linux].map(|system| indexes.key(&pin.revision, system));
    indexes.remove_others(&keys.each_ref().map(String::as_str));
    let is_there = |name: String| indexes.folder.join(name).exists();
    assert!(is_there(keys[0].clone()) && is_there(format!("{other}.draft")));
    assert!(!is_there(format!("{old}.draft")));
}

#[tokio::test]
async fn without_the_setting_there_is_none() {
    let (folder, nix) = (tempfile::tempdir().unwrap(), Arc::new(nix()));
    let indexes = Indexes::example(Arc::clone(&nix) as _, folder.path(), false);
    let pin = pinned(&indexes).await;
    indexes.clone().keep_making(SYSTEM).await;
    assert!(of(&indexes, &pin).await.is_none());
    assert_eq!(nix.described.load(Ordering::SeqCst), 0);
}
