//! Contents of records, and damaged ones.

use expect_test::expect;

use super::*;
use crate::closure::PathInfo;
use crate::image::{Execution, Image, ImageSpec, LayerSpec};
use crate::layer::Packed;

fn request(packages: &[&str]) -> ImageRequest {
    ImageRequest {
        system: System::Aarch64Linux,
        ..ImageRequest::example(packages)
    }
}

fn package(pname: &str, licences: &[&str], insecure: bool) -> Derivation {
    Derivation {
        pname: pname.to_owned(),
        licences: licences.iter().map(|&name| name.to_owned()).collect(),
        insecure,
        ..Derivation::example("any")
    }
}

/// A closure of paths with these names, each needed.
fn closure(names: &[&str]) -> Closure {
    let digits = "0123456789".chars();
    let paths: Vec<StorePath> = names
        .iter()
        .zip(digits)
        .map(|(name, digit)| format!("/nix/store/{}-{name}", digit.to_string().repeat(32)))
        .map(|path| path.parse().unwrap())
        .collect();
    let info = PathInfo {
        nar_hash: String::new(),
        nar_size: 1,
        references: BTreeSet::new(),
    };
    let records = paths.iter().map(|path| (path.clone(), info.clone()));
    Closure::new(paths.iter().cloned(), records.collect()).unwrap()
}

fn documents(layer: &[u8]) -> Image {
    Image::new(&ImageSpec {
        system: System::Aarch64Linux,
        layers: vec![LayerSpec {
            packed: Packed {
                diff_id: Digest::of(b"uncompressed"),
                digest: Digest::of(layer),
                size: 7,
            },
            contents: Vec::new(),
        }],
        execution: Execution::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    })
}

#[test]
fn a_record_has_the_names_of_packages_and_the_contents_of_the_image() {
    let record = ImageRecord::new(
        &request(&["cacert", "git", "gitalias", "haskellpackages.hoogle"]),
        &[
            &package("CACert", &[], false),
            &package("git", &["gpl2", "GPL-2.0-only"], false),
            &package("git", &["gpl2"], true),
            &package("hoogle", &["unfree"], false),
        ],
        &closure(&["git-2", "glibc-2.40", "glibc-2.40"]),
        &documents(b"layer").oci_manifest.bytes,
    );
    let tags = BTreeSet::from([Tag::latest()]);
    let rules = r#"{"c":{"closure":["glibc-*"]},"i":{"insecure":true},"l":{"licences":["unfree"]},"o":{"closure":["openssl*"]}}"#;
    let rules = FactRules::parse(rules).unwrap();
    let hoogle = BTreeSet::from(["hs.hoogle".to_owned()]);
    let others = [("haskellpackages.hoogle".to_owned(), hoogle)].into();
    let facts = record.facts(tags.clone(), &rules, Some(others));
    expect![[r#"[{"tags":["latest"],"system":"aarch64-linux","names":[["gitalias","git"],["haskellpackages.hoogle","hoogle"],["haskellpackages.hoogle","hs.hoogle"]],"matched":["c","i","l"]}]"#]]
        .assert_eq(&ImageFacts::header(&[facts]));
    let unknown = record.facts(tags, &rules, None);
    assert!(unknown.names_unknown && unknown.names.len() == 2);
    let Contents {
        licences, closure, ..
    } = &record.contents;
    assert!(licences.iter().eq(["GPL-2.0-only", "gpl2", "unfree"]));
    assert!(closure.iter().eq(["git-2", "glibc-2.40"]));
    assert_eq!(record.size(&Digest::of(b"layer")), Some(7));
    assert_eq!(record.size(&Digest::of(b"other")), None);
}

#[test]
fn an_image_with_nothing_to_say_matches_no_rule() {
    let record = ImageRecord::new(
        &request(&["git"]),
        &[&package("git", &[], false)],
        &closure(&[]),
        b"",
    );
    let rules = r#"{"all":{"insecure":true,"licences":["*"],"closure":["*"]}}"#;
    let rules = FactRules::parse(rules).unwrap();
    let facts = record.facts(BTreeSet::new(), &rules, Some(BTreeMap::new()));
    assert!(facts.names.is_empty() && facts.matched.is_empty());
}

#[test]
fn both_manifests_lead_to_the_one_image_and_other_blobs_to_another() {
    let (one, other) = (documents(b"layer"), documents(b"other"));
    let image = image_of(&one.oci_manifest.bytes);
    assert_eq!(image_of(&one.docker_manifest.bytes), image);
    assert_ne!(image_of(&other.oci_manifest.bytes), image);
    let manifest = &one.oci_manifest.bytes;
    let record = ImageRecord::new(&request(&[]), &[], &closure(&[]), manifest);
    assert_eq!(record.image_id(), image);
    expect!["6675cd76df251be16d9b80673a8bb1a76f895b9287cc4fc46465017b808d27ac"]
        .assert_eq(&ImageRecord::example(&[(Digest::of(b"1"), 1)]).image_id());
}

#[tokio::test]
async fn a_record_is_read_as_it_was_written_and_a_damaged_one_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::filesystem(folder.path()).unwrap();
    let key = Key::record("name", "image");
    let record = ImageRecord::new(
        &request(&["git"]),
        &[&package("vcs", &["ü"], true)],
        &closure(&["git-2"]),
        &documents(b"layer").oci_manifest.bytes,
    );
    assert_eq!(ImageRecord::read(&storage, &key).await.unwrap(), None);
    record.write(&storage, &key).await.unwrap();
    let read = ImageRecord::read(&storage, &key).await.unwrap();
    assert_eq!(read.as_ref(), Some(&record));
    for damaged in ["", "{}", r#"{"system":"x86_64-linux""#] {
        storage.put(&key, damaged.into()).await.unwrap();
        assert_eq!(ImageRecord::read(&storage, &key).await.unwrap(), None);
    }
}

#[test]
fn a_record_of_an_older_version_lacks_only_where_its_packages_are_from() {
    let image = request(&["git"]);
    let record = ImageRecord::new(
        &image,
        &[&package("git", &[], false)],
        &closure(&["git-2"]),
        &documents(b"layer").oci_manifest.bytes,
    );
    let origin = record.origin.clone().unwrap();
    assert_eq!(
        (origin.set, origin.revision),
        (image.pin.path, image.pin.revision)
    );
    let outputs = BTreeSet::from([Derivation::example("any").outputs[0].path.clone()]);
    assert_eq!(origin.outputs, [("git".to_owned(), outputs)].into());
    let mut json = serde_json::to_value(&record).unwrap();
    json.as_object_mut().unwrap().remove("origin").unwrap();
    let older: ImageRecord = serde_json::from_value(json).unwrap();
    let expected = ImageRecord {
        origin: None,
        ..record
    };
    assert_eq!(older, expected);
}
