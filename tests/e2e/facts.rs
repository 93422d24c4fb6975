//! What the builder says of the images that an answer belongs to (`Nixgate-Facts`), at its own
//! port: what the edge makes of it is tested elsewhere.

mod blobs;
mod images;
mod other_names;
mod records;

use std::collections::BTreeSet;
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

fn names(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
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
