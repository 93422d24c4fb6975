//! Whole layers, from files on a disk to pinned bytes.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};

use expect_test::{Expect, expect};
use flate2::read::GzDecoder;

use super::*;

fn store_path(name: &str) -> StorePath {
    format!("/nix/store/{}-{name}", "0".repeat(32))
        .parse()
        .unwrap()
}

/// Two packages with all that a store path can hold.
fn small_store() -> (tempfile::TempDir, [StorePath; 2]) {
    let temporary = tempfile::tempdir().unwrap();
    let [first, second] = ["first-1.0", "second-2.0"].map(store_path);
    let on_disk = first.on_disk(temporary.path());
    fs::create_dir_all(on_disk.join("bin")).unwrap();
    fs::create_dir_all(on_disk.join("empty")).unwrap();
    fs::write(on_disk.join("bin/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(on_disk.join("bin/run"), Permissions::from_mode(0o700)).unwrap();
    fs::write(on_disk.join("text"), "the same\n").unwrap();
    symlink("./run", on_disk.join("bin/link")).unwrap();

    let on_disk = second.on_disk(temporary.path());
    fs::create_dir_all(on_disk.join("x".repeat(120))).unwrap();
    fs::write(on_disk.join("x".repeat(120)).join("copy"), "the same\n").unwrap();
    fs::write(on_disk.join("other"), "not same\n").unwrap();
    fs::write(on_disk.join("empty"), "").unwrap();
    fs::write(on_disk.join("empty-too"), "").unwrap();
    fs::write(on_disk.join("run"), "#!/bin/sh\n").unwrap();
    symlink("y".repeat(120), on_disk.join("long")).unwrap();
    (temporary, [first, second])
}

/// The paths with the hashes of what is there, as Nix would record them now.
fn recorded(root: &Path, paths: &[StorePath]) -> BTreeMap<StorePath, String> {
    let hash = |path: &StorePath| (path.clone(), store_paths::hash_of(root, path));
    paths.iter().map(hash).collect()
}

fn listing(gzip: &[u8]) -> String {
    let mut archive = ::tar::Archive::new(GzDecoder::new(gzip));
    let mut lines = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let target = match entry.link_name().unwrap() {
            Some(target) => format!(" -> {}", target.display()),
            None => String::new(),
        };
        let mode = entry.header().mode().unwrap();
        let path = entry.path().unwrap();
        let line = format!("{mode:04o} {}{target} {text:?}\n", path.display());
        lines += &line
            .replace(&"0".repeat(32), "…")
            .replace(&"x".repeat(120), "xx…")
            .replace(&"y".repeat(120), "yy…")
            .replace(" \"\"", "");
    }
    lines
}

fn check_bytes(packed: &Packed, expected: &Expect) {
    expected.assert_eq(&format!(
        "diff_id {}\ndigest  {}, {} bytes\n",
        packed.diff_id, packed.digest, packed.size
    ));
}

#[test]
fn store_paths_become_a_pinned_layer() {
    let (root, paths) = small_store();
    let mut out = Vec::new();
    let paths = recorded(root.path(), &paths);
    let packed = pack_store_paths(root.path(), &paths, &mut out).unwrap();
    expect![[r##"
        0755 nix/
        0755 nix/store/
        0555 nix/store/…-first-1.0/
        0555 nix/store/…-first-1.0/bin/
        0777 nix/store/…-first-1.0/bin/link -> ./run
        0555 nix/store/…-first-1.0/bin/run "#!/bin/sh\n"
        0555 nix/store/…-first-1.0/empty/
        0444 nix/store/…-first-1.0/text "the same\n"
        0555 nix/store/…-second-2.0/
        0444 nix/store/…-second-2.0/empty
        0444 nix/store/…-second-2.0/empty-too
        0777 nix/store/…-second-2.0/long -> yy…
        0444 nix/store/…-second-2.0/other "not same\n"
        0444 nix/store/…-second-2.0/run "#!/bin/sh\n"
        0555 nix/store/…-second-2.0/xx…/
        0444 nix/store/…-second-2.0/xx…/copy -> nix/store/…-first-1.0/text
    "##]]
    .assert_eq(&listing(&out));
    check_bytes(
        &packed,
        &expect![[r#"
            diff_id sha256:b2ba682cdd39f742d49a3d4769512eb56c7b60a8223042ebe2af6db18650aa90
            digest  sha256:722e4b78c679ae1f90483bc291bc41132fab64d8347835b9d40cb755c5e30078, 477 bytes
        "#]],
    );
}

#[test]
fn the_disk_does_not_show_in_the_bytes() {
    let (root, [first, second]) = small_store();
    let paths = recorded(root.path(), &[first.clone(), second.clone()]);
    let pack = || {
        let mut out = Vec::new();
        pack_store_paths(root.path(), &paths, &mut out).unwrap();
        out
    };
    let before = pack();

    // What `nix-store --optimise` does, and a clumsy chmod.
    let text = first.on_disk(root.path()).join("text");
    let copy = second
        .on_disk(root.path())
        .join("x".repeat(120))
        .join("copy");
    fs::remove_file(&copy).unwrap();
    fs::hard_link(&text, &copy).unwrap();
    fs::set_permissions(&text, Permissions::from_mode(0o644)).unwrap();
    assert!(before == pack());
}

#[test]
fn a_path_that_is_a_file_or_a_link_is_packed_as_such() {
    let root = tempfile::tempdir().unwrap();
    let [file, link] = ["file", "link"].map(store_path);
    fs::create_dir_all(root.path().join("nix/store")).unwrap();
    fs::write(file.on_disk(root.path()), "x").unwrap();
    symlink(file.to_string(), link.on_disk(root.path())).unwrap();
    let mut out = Vec::new();
    let paths = recorded(root.path(), &[link, file]);
    pack_store_paths(root.path(), &paths, &mut out).unwrap();
    expect![[r#"
        0755 nix/
        0755 nix/store/
        0444 nix/store/…-file "x"
        0777 nix/store/…-link -> /nix/store/…-file
    "#]]
    .assert_eq(&listing(&out));
}

#[test]
fn a_file_that_no_layer_can_hold_is_named_with_its_package() {
    let (root, [first, _]) = small_store();
    fs::write(first.on_disk(root.path()).join("bin/.wh.run"), "").unwrap();
    let paths = recorded(root.path(), std::slice::from_ref(&first));
    let unfit = |result: Result<(), PackError>| match result {
        Err(PackError::Unfit { path, file, reason }) => {
            assert_eq!((&path, reason), (&first, Unfit::ReservedName));
            assert_eq!(file, Path::new("bin/.wh.run"));
        }
        other => panic!("{other:?}"),
    };
    unfit(pack_store_paths(root.path(), &paths, io::sink()).map(drop));
    unfit(check(root.path(), &first, &paths[&first]).map(drop));
}

#[test]
fn a_tree_that_is_too_deep_is_refused_and_not_walked() {
    let root = tempfile::tempdir().unwrap();
    let path = store_path("deep");
    let on_disk = path.on_disk(root.path());
    fs::create_dir_all(&on_disk).unwrap();
    let mut deepest = on_disk.clone();
    let dig = |deepest: &mut PathBuf, levels| {
        for _ in 0..levels {
            deepest.push("a");
            fs::create_dir(&deepest).unwrap();
        }
    };
    dig(&mut deepest, MAX_DEPTH);
    let paths = recorded(root.path(), std::slice::from_ref(&path));
    check(root.path(), &path, &paths[&path]).unwrap();
    pack_store_paths(root.path(), &paths, io::sink()).unwrap();

    // About as many as a path has room for.
    dig(&mut deepest, 1880 - MAX_DEPTH);
    let unfit = |result: Result<(), PackError>| match result {
        Err(PackError::Unfit { file, reason, .. }) => {
            assert_eq!(reason, Unfit::TooDeep);
            assert_eq!(file, Path::new(&["a"; MAX_DEPTH + 1].join("/")));
        }
        other => panic!("{other:?}"),
    };
    unfit(pack_store_paths(root.path(), &paths, io::sink()).map(drop));
    unfit(check(root.path(), &path, &paths[&path]).map(drop));
    // The folder of the test would open one directory for each level.
    while deepest != on_disk {
        fs::remove_dir(&deepest).unwrap();
        deepest.pop();
    }
}

/// Of a change, the names of the paths that are found to be altered.
fn altered_by(change: impl FnOnce(&Path, &Path)) -> Vec<String> {
    let (root, paths) = small_store();
    let on_disk = paths.clone().map(|path| path.on_disk(root.path()));
    let paths = recorded(root.path(), &paths);
    pack_store_paths(root.path(), &paths, io::sink()).unwrap();
    change(&on_disk[0], &on_disk[1]);
    let found = match pack_store_paths(root.path(), &paths, io::sink()) {
        Ok(_) => Vec::new(),
        Err(PackError::Altered(altered)) => altered,
        Err(error) => panic!("{error}"),
    };
    for (path, hash) in &paths {
        let tree = check(root.path(), path, hash);
        let altered = found.iter().find(|one| one.path == *path);
        match (tree, altered) {
            (Ok(_), None) => {}
            (Err(PackError::Altered(alone)), Some(altered)) => {
                assert_eq!(alone, std::slice::from_ref(altered));
                assert_eq!(altered.recorded, *hash);
            }
            other => panic!("{other:?}"),
        }
    }
    let names = found.iter().map(|one| one.path.name().to_owned());
    names.collect()
}

#[test]
fn an_altered_store_path_is_not_packed() {
    let [first, second] = ["first-1.0", "second-2.0"];
    let overwrite = |file: PathBuf| fs::write(file, "evil one\n").unwrap();
    assert_eq!(altered_by(|_, _| {}), [""; 0]);
    // Of the same size, and equal to a file elsewhere.
    assert_eq!(altered_by(|one, _| overwrite(one.join("text"))), [first]);
    assert_eq!(altered_by(|_, two| overwrite(two.join("other"))), [second]);
    let all = |one: &Path, two: &Path| {
        overwrite(one.join("text"));
        overwrite(two.join("run"));
    };
    assert_eq!(altered_by(all), [first, second]);
    let changes: [fn(&Path); 10] = [
        // Not the fault of the package.
        |one| fs::write(one.join(".wh.text"), "").unwrap(),
        |one| fs::write(one.join("text"), "the same\n\n").unwrap(),
        |one| fs::write(one.join("more"), "").unwrap(),
        |one| fs::create_dir(one.join("more")).unwrap(),
        |one| fs::remove_dir(one.join("empty")).unwrap(),
        |one| fs::rename(one.join("text"), one.join("other")).unwrap(),
        |one| fs::set_permissions(one.join("text"), Permissions::from_mode(0o755)).unwrap(),
        |one| {
            fs::remove_file(one.join("bin/link")).unwrap();
            symlink("./evil", one.join("bin/link")).unwrap();
        },
        |one| fs::remove_dir_all(one).unwrap(),
        |one| drop(std::os::unix::net::UnixListener::bind(one.join("socket")).unwrap()),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert_eq!(altered_by(|one, _| change(one)), [first], "change {index}");
    }
}

#[test]
fn large_files_that_are_equal_are_stored_once() {
    let root = tempfile::tempdir().unwrap();
    let path = store_path("large");
    let on_disk = path.on_disk(root.path());
    fs::create_dir_all(&on_disk).unwrap();
    // Read in two ways: below and above a megabyte.
    for (size, name) in [(1 << 20, "s"), ((1 << 20) + 1, "l")] {
        for number in 0..3 {
            let content = vec![number / 2; size];
            fs::write(on_disk.join(format!("{name}{number}")), content).unwrap();
        }
    }
    let mut out = Vec::new();
    let paths = recorded(root.path(), &[path]);
    pack_store_paths(root.path(), &paths, &mut out).unwrap();
    let mut archive = ::tar::Archive::new(GzDecoder::new(&out[..]));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let name = entry.path().unwrap().file_name().unwrap().to_owned();
        let target = entry.link_name().unwrap();
        let target = target.map(|target| target.file_name().unwrap().to_owned());
        content.dedup();
        (name, target, content)
    });
    let files: Vec<_> = entries.skip(3).collect();
    let file = |name: &str, content| (name.into(), None, vec![content]);
    let link = |name: &str, target: &str| (name.into(), Some(target.into()), Vec::new());
    assert_eq!(
        files,
        [
            file("l0", 0),
            link("l1", "l0"),
            file("l2", 1),
            file("s0", 0),
            link("s1", "s0"),
            file("s2", 1)
        ]
    );
}

#[test]
fn a_file_gets_no_more_names_than_file_systems_allow() {
    let root = tempfile::tempdir().unwrap();
    let path = store_path("many");
    let on_disk = path.on_disk(root.path());
    fs::create_dir_all(&on_disk).unwrap();
    for number in 0..2500 {
        fs::write(on_disk.join(format!("{number:04}")), "same").unwrap();
    }
    let mut out = Vec::new();
    let paths = recorded(root.path(), &[path]);
    let packed = pack_store_paths(root.path(), &paths, &mut out).unwrap();
    let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut archive = ::tar::Archive::new(GzDecoder::new(&out[..]));
    for entry in archive.entries().unwrap().skip(3) {
        let entry = entry.unwrap();
        let file = entry.link_name().unwrap().unwrap_or(entry.path().unwrap());
        *names.entry(file.file_name().unwrap().into()).or_default() += 1;
    }
    let expected = [("0000", 1000), ("1000", 1000), ("2000", 500)];
    let expected = expected.map(|(file, names)| (PathBuf::from(file), names));
    assert_eq!(names, expected.into());
    check_bytes(
        &packed,
        &expect![[r#"
        diff_id sha256:e1b2bcb6f83c7df7f5edac0057f246dee9b7e7afde7cceebcb3747a701b417fc
        digest  sha256:87f94dd5e093468315c6188e6cfaecff8ea315707fc551180c073eb2745942ee, 15923 bytes
    "#]],
    );
}

#[test]
fn a_full_disk_is_an_error_and_not_a_short_layer() {
    let (root, paths) = small_store();
    let paths = recorded(root.path(), &paths);
    let mut little = [0; 100];
    let error = pack_store_paths(root.path(), &paths, &mut little[..]).unwrap_err();
    assert!(matches!(error, PackError::Write(_)), "{error}");
}

#[test]
fn the_root_becomes_a_pinned_layer() {
    let (root, paths) = small_store();
    let trees = paths.clone().map(|path| {
        check(
            root.path(),
            &path,
            &store_paths::hash_of(root.path(), &path),
        )
        .unwrap()
    });
    let merged = merge(paths.iter().zip(&trees), []);
    let mut out = Vec::new();
    let packed = pack_root(&merged.root, &mut out).unwrap();
    expect![[r#"
        0755 bin/
        0777 bin/link -> /nix/store/…-first-1.0/bin/link
        0777 bin/run -> /nix/store/…-first-1.0/bin/run
        0755 dev/
        0755 empty/
        0777 empty-too -> /nix/store/…-second-2.0/empty-too
        0755 etc/
        0644 etc/group "root:x:0:\nnogroup:x:65534:\nnobody:x:65534:\n"
        0644 etc/nsswitch.conf "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nservices: files\nprotocols: files\n"
        0644 etc/os-release "NAME=nixgate\nID=nixgate\nPRETTY_NAME=\"nixgate image\"\n"
        0644 etc/passwd "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        0755 home/
        0777 long -> /nix/store/…-second-2.0/long
        0755 nix/
        0755 nix/var/
        0755 nix/var/nixgate/
        0755 nix/var/nixgate/profile/
        0777 nix/var/nixgate/profile/bin -> /nix/store/…-first-1.0/bin
        0777 nix/var/nixgate/profile/empty -> /nix/store/…-first-1.0/empty
        0777 nix/var/nixgate/profile/empty-too -> /nix/store/…-second-2.0/empty-too
        0777 nix/var/nixgate/profile/long -> /nix/store/…-second-2.0/long
        0777 nix/var/nixgate/profile/other -> /nix/store/…-second-2.0/other
        0777 nix/var/nixgate/profile/text -> /nix/store/…-first-1.0/text
        0777 nix/var/nixgate/profile/xx… -> /nix/store/…-second-2.0/xx…
        0777 other -> /nix/store/…-second-2.0/other
        0755 proc/
        0700 root/
        0755 run/
        0755 sys/
        0777 text -> /nix/store/…-first-1.0/text
        1777 tmp/
        0755 var/
        1777 var/tmp/
        0755 xx…/
        0777 xx…/copy -> /nix/store/…-second-2.0/xx…/copy
    "#]].assert_eq(&listing(&out));
    check_bytes(
        &packed,
        &expect![[r#"
            diff_id sha256:7d31626b35cefd4068cee6f7d24a95cd741b227460da80619666db40da17c3cf
            digest  sha256:36a3aa559286c7d3e0d0d2ee0496a4002f0a0141d28d5a94fef39ff16add76f4, 933 bytes
        "#]],
    );
}
