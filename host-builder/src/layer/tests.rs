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

fn check(packed: &Packed, expected: &Expect) {
    expected.assert_eq(&format!(
        "diff_id {}, {} bytes\ndigest  {}, {} bytes\n",
        packed.diff_id, packed.diff_size, packed.digest, packed.size
    ));
}

#[test]
fn store_paths_become_a_pinned_layer() {
    let (root, paths) = small_store();
    let mut out = Vec::new();
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
    check(
        &packed,
        &expect![[r#"
            diff_id sha256:b2ba682cdd39f742d49a3d4769512eb56c7b60a8223042ebe2af6db18650aa90, 14336 bytes
            digest  sha256:722e4b78c679ae1f90483bc291bc41132fab64d8347835b9d40cb755c5e30078, 477 bytes
        "#]],
    );
}

#[test]
fn neither_the_order_of_paths_nor_the_disk_shows_in_the_bytes() {
    let (root, [first, second]) = small_store();
    let pack = |paths: &[StorePath]| {
        let mut out = Vec::new();
        pack_store_paths(root.path(), paths, &mut out).unwrap();
        out
    };
    let before = pack(&[first.clone(), second.clone()]);
    assert!(before == pack(&[second.clone(), first.clone(), second.clone()]));

    // What `nix-store --optimise` does, and a clumsy chmod.
    let text = first.on_disk(root.path()).join("text");
    let copy = second
        .on_disk(root.path())
        .join("x".repeat(120))
        .join("copy");
    fs::remove_file(&copy).unwrap();
    fs::hard_link(&text, &copy).unwrap();
    fs::set_permissions(&text, Permissions::from_mode(0o644)).unwrap();
    assert!(before == pack(&[first, second]));
}

#[test]
fn a_path_that_is_a_file_or_a_link_is_packed_as_such() {
    let root = tempfile::tempdir().unwrap();
    let [file, link] = ["file", "link"].map(store_path);
    fs::create_dir_all(root.path().join("nix/store")).unwrap();
    fs::write(file.on_disk(root.path()), "x").unwrap();
    symlink(file.to_string(), link.on_disk(root.path())).unwrap();
    let mut out = Vec::new();
    pack_store_paths(root.path(), &[link, file], &mut out).unwrap();
    expect![[r#"
        0755 nix/
        0755 nix/store/
        0444 nix/store/…-file "x"
        0777 nix/store/…-link -> /nix/store/…-file
    "#]]
    .assert_eq(&listing(&out));
}

#[test]
fn what_can_not_be_packed_is_named() {
    let root = tempfile::tempdir().unwrap();
    let error = pack_store_paths(root.path(), &[store_path("gone")], io::sink()).unwrap_err();
    assert!(
        matches!(&error, PackError::Io { path, .. } if path.ends_with(store_path("gone").base_name()))
    );
}

#[test]
fn a_full_disk_is_an_error_and_not_a_short_layer() {
    let (root, paths) = small_store();
    let mut little = [0; 100];
    let error = pack_store_paths(root.path(), &paths, &mut little[..]).unwrap_err();
    assert!(
        matches!(error, PackError::Io { .. } | PackError::Write(_)),
        "{error}"
    );
}

#[test]
fn the_root_becomes_a_pinned_layer() {
    let (root, paths) = small_store();
    let trees = paths
        .clone()
        .map(|path| read_tree(&path.on_disk(root.path())).unwrap());
    let merged = merge(paths.iter().zip(&trees));
    let mut out = Vec::new();
    let packed = pack_root(&merged.root, &mut out).unwrap();
    expect![[r#"
        0755 bin/
        0777 bin/link -> /nix/store/…-first-1.0/bin/link
        0777 bin/run -> /nix/store/…-first-1.0/bin/run
        0755 empty/
        0777 empty-too -> /nix/store/…-second-2.0/empty-too
        0755 etc/
        0644 etc/group "root:x:0:\nnogroup:x:65534:\nnobody:x:65534:\n"
        0644 etc/nsswitch.conf "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nservices: files\nprotocols: files\n"
        0644 etc/passwd "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        0777 long -> /nix/store/…-second-2.0/long
        0777 other -> /nix/store/…-second-2.0/other
        0700 root/
        0777 run -> /nix/store/…-second-2.0/run
        0777 text -> /nix/store/…-first-1.0/text
        1777 tmp/
        0755 xx…/
        0777 xx…/copy -> /nix/store/…-second-2.0/xx…/copy
    "#]].assert_eq(&listing(&out));
    check(
        &packed,
        &expect![[r#"
            diff_id sha256:4aaaa40e91c207b019d4cec62a8176ab3c94ccb3430b17d29f5bd68588334198, 14336 bytes
            digest  sha256:21b603fa49ee287287f487abd294bfa8b63120274c4069e3e3cf7ce94df46012, 593 bytes
        "#]],
    );
}
