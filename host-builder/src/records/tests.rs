//! Records survive storage; damaged and incomplete ones are ignored.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::*;
use crate::layer::MAX_DEPTH;
use std::collections::BTreeMap;

fn record() -> PackageRecord {
    let derivation = Derivation::example("git");
    let file = |executable| Tree::File {
        executable,
        size: 3,
    };
    let names = vec![
        (
            OsString::from("bin"),
            Tree::Directory([("git".into(), file(true))].into()),
        ),
        (OsString::from_vec(vec![b'a', 0xff, 0xc3]), file(false)),
        ("läden".into(), Tree::Symlink("bin/git".into())),
    ];
    let info = PathInfo {
        nar_hash: "00".to_owned(),
        nar_size: 1,
        references: [].into(),
    };
    let outputs = derivation.outputs.iter();
    let folder = |name: &str| Tree::Directory([(name.into(), file(false))].into());
    PackageRecord {
        reach: Reach {
            linked: vec![(derivation.outputs[0].path.clone(), folder("lib"))],
            modules: vec![(derivation.outputs[0].path.clone(), folder("y.py"))],
            has_utf8: true,
        },
        paths: outputs
            .map(|output| (output.path.clone(), info.clone()))
            .collect(),
        trees: vec![Tree::Directory(BTreeMap::from_iter(names)); derivation.outputs.len()],
        derivation,
    }
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let encoded = record().encode().unwrap();
    assert_eq!(PackageRecord::decode(&encoded), Some(record()));
}

#[test]
fn a_record_of_the_deepest_tree_can_be_read() {
    let mut deep = record();
    let bottom = Tree::Directory(BTreeMap::new());
    deep.trees[0] = (0..MAX_DEPTH).fold(bottom, |tree, _| {
        Tree::Directory([("a".into(), tree)].into())
    });
    deep.reach.linked[0].1 = deep.trees[0].clone();
    let encoded = deep.encode().unwrap();
    assert_eq!(PackageRecord::decode(&encoded), Some(deep));
}

#[test]
fn an_incomplete_record_is_none() {
    let changes: [fn(&mut PackageRecord); 5] = [
        |record| record.paths.clear(),
        |record| record.trees.clear(),
        |record| {
            let up = BTreeMap::from([("..".into(), Tree::Symlink("/".into()))]);
            record.reach.linked[0].1 = Tree::Directory(up);
        },
        |record| {
            let up = BTreeMap::from([("..".into(), Tree::Symlink("/".into()))]);
            record.trees = vec![Tree::Directory(up)];
        },
        |record| {
            let deep = BTreeMap::from([("a/b".into(), Tree::Symlink("/".into()))]);
            record.trees = vec![Tree::Directory(deep)];
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut damaged = record();
        change(&mut damaged);
        let encoded = damaged.encode().unwrap();
        assert_eq!(PackageRecord::decode(&encoded), None, "change {index}");
    }
    let encoded = record().encode().unwrap();
    assert_eq!(PackageRecord::decode(&encoded[..encoded.len() / 2]), None);
}

#[tokio::test]
async fn the_first_record_stays_and_a_damaged_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::filesystem(folder.path()).unwrap();
    let records = Records::new(storage.clone(), None);
    let key = Key::package("k");
    assert_eq!(records.get(&key).await.unwrap(), None);
    storage.put(&key, "half".into()).await.unwrap();
    assert_eq!(records.get(&key).await.unwrap(), None);
    assert_eq!(records.keep(&key, &record()).await.unwrap(), record());

    let mut other = record();
    other.derivation.version = "2".to_owned();
    assert_eq!(records.keep(&key, &other).await.unwrap(), record());
    assert_eq!(records.get(&key).await.unwrap(), Some(record()));
}

#[tokio::test]
async fn copies_are_read_first_and_can_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    let shared = || Storage::filesystem(&folder.path().join("shared")).unwrap();
    let copies =
        |name: &str, max_age| LocalCache::open(&folder.path().join(name), max_age).unwrap();
    let day = Duration::from_secs(24 * 3600);
    let records = Records::new(shared(), Some(copies("copies", day)));
    let key = Key::package("k");
    records.keep(&key, &record()).await.unwrap();
    let elsewhere = Records::new(shared(), Some(copies("others", day)));
    assert_eq!(elsewhere.get(&key).await.unwrap(), Some(record()));
    // It has copied the record.
    std::fs::remove_dir_all(folder.path().join("shared/packages")).unwrap();
    assert_eq!(elsewhere.get(&key).await.unwrap(), Some(record()));
    let until_now = Records::new(shared(), Some(copies("others", Duration::ZERO)));
    assert_eq!(until_now.get(&key).await.unwrap(), None);
}
