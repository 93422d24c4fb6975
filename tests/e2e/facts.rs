//! What the builder says of the images that an answer belongs to (`Nixgate-Facts`), at its own
//! port: what the edge makes of it is tested elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::slice::from_ref;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_core::distribution::Tag;
use nixgate_core::package_set::System;
use nixgate_core::policy::ImageFacts;
use nixgate_core::wire;
use nixgate_tests::live::builder::{Builder, TOKEN};
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::s3::S3;
use nixgate_tests::live::scratch;
use nixgate_tests::live::served_set::ServedSet;
use serde_json::Value;

const PACKAGES: &str = r#"
  vcs-1 = package "vcs-1" "mkdir -p $out; echo ${package "beneath-2.3" "echo > $out"} > $out/needs" // {
    pname = "VCS";
    meta.license = [
      { shortName = "gpl2"; spdxId = "GPL-2.0-only"; free = true; }
      { fullName = "Some licence"; free = false; }
    ];
  };
  vcs = vcs-1;
  vcsalias = vcs-1;
  sound = package "sound-1" "echo > $out" // { meta.license = "MIT"; };
  leaky = package "leaky-1" "echo > $out" // { meta.knownVulnerabilities = [ "CVE-1" ]; };
  awkward = package "awkward-1" "echo > $out" // {
    meta.license = [ (throw "none") 7 { shortName = throw "none"; fullName = "BSD"; } ];
    meta.insecure = throw "none";
  };
"#;

/// One rule for each fact that some of these packages have, and one for what none has.
const RULES: &str = r#"{
  "beneath": {"closure": ["beneath-2.*"]},
  "bsd": {"licences": ["BSD"]},
  "full": {"licences": ["Some licen?e"]},
  "gpl": {"licences": ["GPL-*"]},
  "insecure": {"insecure": true},
  "itself": {"closure": ["vcs-1"]},
  "mit": {"licences": ["MIT"]},
  "none": {"licences": ["agpl*"], "closure": ["beneath-1.*"]},
  "unfree": {"licences": ["unfree"]}
}"#;

/// Asks as the edge does.
fn ask(builder: &Builder, path: &str, rules: &str, prefer: &str) -> Result<Response> {
    let rules = rules.replace('\n', "");
    let headers = [
        (wire::TOKEN, TOKEN),
        (wire::RULES, &rules),
        (wire::PREFER, prefer),
    ];
    request(Method::GET, builder.port(), path, &headers)
}

/// What an answer says, which has to be one of this status.
fn facts(builder: &Builder, path: &str, prefer: &str, status: u16) -> Result<Vec<ImageFacts>> {
    let answer = ask(builder, path, RULES, prefer)?;
    let text = answer.text();
    anyhow::ensure!(answer.status == status, "{path}: {} {text}", answer.status);
    let header = answer.header(wire::FACTS);
    ImageFacts::parse(header).with_context(|| format!("{path}: {header:?}"))
}

/// What the answer to a pull says.
fn pulled(builder: &Builder, name: &str, tag: &str) -> Result<ImageFacts> {
    let path = format!("/v2/{name}/manifests/{tag}");
    let images = facts(builder, &path, "wait=60", 200)?;
    let [image] = <[ImageFacts; 1]>::try_from(images).ok().context("one")?;
    Ok(image)
}

fn names(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(from, to): &(&str, &str)| ((*from).to_owned(), (*to).to_owned());
    pairs.iter().map(owned).collect()
}

fn texts<'a>(set: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    set.into_iter().map(str::to_owned).collect()
}

fn tags(image: &ImageFacts) -> Vec<&str> {
    image.tags.iter().map(Tag::as_str).collect()
}

/// The digest of a manifest in a format, and the digests of its config and layers.
fn manifest(builder: &Builder, name: &str, tag: &str, kind: &str) -> Result<(String, Vec<String>)> {
    let path = format!("/v2/{name}/manifests/{tag}");
    let headers = [(wire::TOKEN, TOKEN), ("accept", kind)];
    let answer = request(Method::GET, builder.port(), &path, &headers)?;
    let image: Value = serde_json::from_slice(&answer.body)?;
    let layers = image["layers"].as_array().context("no layers")?;
    let blobs = [&image["config"]].into_iter().chain(layers);
    let blobs = blobs.map(|blob| blob["digest"].as_str().map(str::to_owned));
    let digest = answer.header("docker-content-digest").to_owned();
    Ok((digest, blobs.collect::<Option<_>>().context("no digest")?))
}

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[test]
fn an_image_is_told_by_what_its_packages_are() -> Result<()> {
    let served = ServedSet::start(PACKAGES, |settings| settings)?;
    let vcs = ["beneath", "full", "gpl", "itself", "unfree"];
    for (name, called, matched) in [
        ("vcs", &[][..], &vcs[..]),
        ("vcsalias", &[("vcsalias", "vcs")], &vcs),
        (
            "vcs-1/vcsalias",
            &[("vcs-1", "vcs"), ("vcsalias", "vcs")],
            &vcs,
        ),
        ("arm64/vcs", &[], &vcs),
        ("sound", &[], &["mit"]),
        ("leaky", &[], &["insecure"]),
        ("awkward", &[], &["bsd"]),
        ("leaky/sound", &[], &["insecure", "mit"]),
        ("cacert", &[], &[]),
    ] {
        let image = pulled(&served.builder, name, "latest")?;
        assert_eq!(tags(&image), ["latest"], "{name}");
        assert_eq!(image.names, names(called), "{name}");
        let found = image.matched;
        assert_eq!(found, texts(matched.iter().copied()), "{name}");
        let arm = name.starts_with("arm64");
        assert_eq!(image.system == System::Aarch64Linux, arm, "{name}");
    }
    // Whoever asks with other rules is answered by those, or by none.
    let path = "/v2/vcs/manifests/latest";
    for (rules, expected) in [
        (r#"{"x":{"closure":["beneath-*"]}}"#, texts(["x"])),
        ("{}", BTreeSet::new()),
    ] {
        let answer = ask(&served.builder, path, rules, "wait=60")?;
        let images = ImageFacts::parse(answer.header(wire::FACTS)).context("facts")?;
        assert_eq!(images[0].matched, expected, "{rules}");
    }
    let plain = served.builder.get(path)?;
    assert!(ImageFacts::parse(plain.header(wire::FACTS)).is_some());
    Ok(())
}

#[test]
fn every_way_to_an_image_says_the_same_of_it() -> Result<()> {
    let served = ServedSet::start(PACKAGES, |settings| {
        settings.with("NIXGATE_ANY_TAG", "true")
    })?;
    let builder = &served.builder;
    let first = pulled(builder, "vcsalias", "latest")?;
    // The same image by another tag, which the two now share.
    let second = pulled(builder, "vcsalias", "v1")?;
    assert_eq!(tags(&second), ["latest", "v1"]);
    assert_eq!(
        (&first.names, &first.matched),
        (&second.names, &second.matched)
    );

    let check = |builder: &Builder| -> Result<()> {
        let (oci, blobs) = manifest(builder, "vcsalias", "latest", OCI)?;
        let (docker, same) = manifest(builder, "vcsalias", "v1", DOCKER)?;
        assert_eq!(blobs, same);
        assert_ne!(oci, docker);
        for digest in [oci, docker] {
            let path = format!("/v2/vcsalias/manifests/{digest}");
            assert_eq!(facts(builder, &path, "wait=60", 200)?, *from_ref(&second));
        }
        for blob in &blobs {
            let path = format!("/v2/vcsalias/blobs/{blob}");
            for (prefer, status) in [("return=minimal", 204), ("wait=60", 200)] {
                let told = facts(builder, &path, prefer, status)?;
                assert_eq!(told, *from_ref(&second), "{blob}");
            }
        }
        Ok(())
    };
    check(builder)?;
    // Neither is it forgotten.
    let served = served.restart(PACKAGES)?;
    check(&served.builder)
}

#[test]
fn a_part_of_a_blob_comes_with_facts_and_what_is_refused_without() -> Result<()> {
    let served = ServedSet::start(PACKAGES, |settings| settings)?;
    let builder = &served.builder;
    pulled(builder, "sound", "latest")?;
    let (digest, blobs) = manifest(builder, "sound", "latest", OCI)?;
    let blob = format!("/v2/sound/blobs/{}", blobs[0]);
    for (range, prefer, status, told) in [
        ("bytes=0-1", "wait=60", 206, true),
        ("bytes=99999999-", "wait=60", 416, false),
        // So asks a client whose request the edge let through.
        ("bytes=0-1", "", 206, false),
    ] {
        let headers = [
            (wire::TOKEN, TOKEN),
            ("range", range),
            (wire::PREFER, prefer),
        ];
        let answer = request(Method::GET, builder.port(), &blob, &headers)?;
        assert_eq!(answer.status, status, "{}", answer.text());
        let facts = ImageFacts::parse(answer.header(wire::FACTS));
        assert_eq!(facts.is_some(), told, "{range} {prefer}");
    }
    for path in [
        "/v2/nope/manifests/latest".to_owned(),
        "/v2/sound/manifests/nope".to_owned(),
        format!("/v2/leaky/manifests/{digest}"),
        format!("/v2/leaky/blobs/{}", blobs[0]),
    ] {
        let answer = ask(builder, &path, RULES, "wait=60")?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(!answer.headers.contains_key(wire::FACTS), "{path}");
    }
    Ok(())
}

#[test]
fn a_blob_belongs_to_every_image_of_the_name_that_has_it() -> Result<()> {
    let served = ServedSet::start(PACKAGES, |settings| {
        settings.with("NIXGATE_ANY_TAG", "true")
    })?;
    pulled(&served.builder, "vcs", "old")?;
    let (_, old) = manifest(&served.builder, "vcs", "old", OCI)?;
    // The same store paths under another licence: the image differs by its config alone.
    let served = served.restart(&PACKAGES.replace("free = false", "free = true"))?;
    let builder = &served.builder;
    let blobs_of = |blob: &str| facts(builder, &format!("/v2/vcs/blobs/{blob}"), "wait=60", 200);
    assert_eq!(blobs_of(&old[1])?.len(), 1, "the new one is not there yet");
    pulled(builder, "vcs", "new")?;
    let (_, new) = manifest(builder, "vcs", "new", OCI)?;
    assert_eq!(old[1..], new[1..]);
    assert_ne!(old[0], new[0]);

    for layer in &new[1..] {
        let images = blobs_of(layer)?;
        let told: Vec<_> = images.iter().map(tags).collect();
        assert_eq!(told, [["new"], ["old"]], "the latest first");
        let unfree = images.iter().map(|image| image.matched.contains("unfree"));
        assert!(unfree.eq([false, true]), "{images:?}");
    }
    for (config, tag) in [(&old[0], "old"), (&new[0], "new")] {
        let images = blobs_of(config)?;
        assert_eq!(images.iter().map(tags).collect::<Vec<_>>(), [[tag]]);
    }
    Ok(())
}

#[test]
fn an_image_without_its_record_is_not_there_until_it_is_made_again() -> Result<()> {
    let served = ServedSet::start(PACKAGES, |settings| settings)?;
    let before = pulled(&served.builder, "leaky", "latest")?;
    let (digest, blobs) = manifest(&served.builder, "leaky", "latest", OCI)?;
    let served = served.restart(PACKAGES)?;
    fs::remove_dir_all(served.storage().join("facts"))?;
    let held = [
        format!("/v2/leaky/manifests/{digest}"),
        format!("/v2/leaky/blobs/{}", blobs[0]),
    ];
    for path in &held {
        let answer = ask(&served.builder, path, RULES, "wait=60")?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
    }
    assert_eq!(pulled(&served.builder, "leaky", "latest")?, before);
    for path in &held {
        let told = facts(&served.builder, path, "wait=60", 200)?;
        assert_eq!(told, *from_ref(&before));
    }
    Ok(())
}

#[test]
fn rules_that_the_builder_can_not_read_are_refused() -> Result<()> {
    let served = ServedSet::start(PACKAGES, |settings| settings)?;
    pulled(&served.builder, "sound", "latest")?;
    let (digest, blobs) = manifest(&served.builder, "sound", "latest", OCI)?;
    for path in [
        "/v2/sound/manifests/latest".to_owned(),
        format!("/v2/sound/manifests/{digest}"),
        format!("/v2/sound/blobs/{}", blobs[0]),
    ] {
        for rules in ["", "no JSON", r#"{"a":{"newer":true}}"#] {
            let answer = ask(&served.builder, &path, rules, "wait=60")?;
            let (code, message) = answer.error()?;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{message}");
            assert_eq!(code, "UNSUPPORTED");
            assert!(message.contains(wire::RULES), "{message}");
            assert!(!answer.headers.contains_key(wire::FACTS));
        }
    }
    Ok(())
}

#[test]
fn facts_come_with_redirects_and_what_was_told_before_is_not_read_again() -> Result<()> {
    let objects = scratch::folder("s3-")?;
    let s3 = S3::start(objects.path())?;
    let served = ServedSet::start(PACKAGES, |settings| s3.settings(settings))?;
    let image = pulled(&served.builder, "leaky", "latest")?;
    let (digest, blobs) = manifest(&served.builder, "leaky", "latest", OCI)?;
    // What is read below `facts/` by what `act` does.
    let reads = |act: &dyn Fn() -> Result<()>| -> Result<usize> {
        let before = s3.seen().len();
        act()?;
        let seen = s3.seen();
        let read = seen[before..].iter().filter(|seen| {
            let listing = seen.path.trim_end_matches('/') == "/images";
            seen.method == Method::GET && (listing || seen.path.contains("/facts/"))
        });
        Ok(read.count())
    };
    let by_tag = |builder: &Builder| -> Result<()> {
        assert_eq!(pulled(builder, "leaky", "latest")?, image);
        Ok(())
    };
    assert_eq!(reads(&|| by_tag(&served.builder))?, 0);
    let served = served.restart(PACKAGES)?;
    assert_eq!(reads(&|| by_tag(&served.builder))?, 1);
    assert_eq!(reads(&|| by_tag(&served.builder))?, 0);
    for blob in &blobs {
        let path = format!("/v2/leaky/blobs/{blob}");
        let told = facts(&served.builder, &path, "return=minimal", 307)?;
        assert_eq!(told, *from_ref(&image));
    }
    let path = format!("/v2/leaky/manifests/{digest}");
    assert_eq!(facts(&served.builder, &path, "", 200)?, [image]);
    Ok(())
}
