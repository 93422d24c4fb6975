//! Other names of an image's packages, by the packages that the policy denies (`Nixgate-Denied`).

use nixgate_tests::live::poll;

use super::*;

/// The facts of an answer to one who denies these, and how long it counts.
fn told(builder: &Builder, path: &str, denied: &str) -> Result<(ImageFacts, String)> {
    let headers = [
        (wire::TOKEN, TOKEN),
        (wire::DENIED, denied),
        (wire::PREFER, "wait=60, return=minimal"),
    ];
    let answer = request(Method::GET, builder.port(), path, &headers)?;
    let text = answer.text();
    anyhow::ensure!(
        answer.status.is_success(),
        "{path}: {} {text}",
        answer.status
    );
    let images = ImageFacts::parse(answer.header(wire::FACTS)).context("facts")?;
    let [image] = <[ImageFacts; 1]>::try_from(images).ok().context("one")?;
    Ok((image, answer.header("cache-control").to_owned()))
}

#[test]
fn a_pattern_holds_soon_after_there_is_an_index() -> Result<()> {
    let served = ServedSet::start(PACKAGES, |settings| settings)?;
    let path = "/v2/vcsalias/manifests/latest";
    let vcs = names(&[("vcsalias", "vcs")]);
    // Whatever the rules say, the real name is told.
    let (image, _) = told(&served.builder, path, "nothing.of.it")?;
    assert_eq!((image.names, image.names_unknown), (vcs.clone(), false));
    let (image, _) = told(&served.builder, path, "vcs-1")?;
    let both = names(&[("vcsalias", "vcs"), ("vcsalias", "vcs-1")]);
    assert_eq!(image.names, both);
    let age = |age: &str| age.trim_start_matches("max-age=").parse::<u32>();
    let settled = poll::until("the pattern holds", || {
        let (image, seconds) = told(&served.builder, path, "vcs-*").ok()?;
        if image.names == both {
            return Some(seconds);
        }
        assert_eq!(image.names, vcs, "not yet");
        assert!(
            age(&seconds).is_ok_and(|seconds| seconds <= 60),
            "{seconds}"
        );
        None
    })?;
    assert!(age(&settled)? > 60, "{settled}");
    Ok(())
}

/// Makes all records those of an older version.
fn age(folder: &std::path::Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            age(&path)?;
            continue;
        }
        let mut record: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let origin = record
            .as_object_mut()
            .and_then(|record| record.remove("origin"));
        origin.context("it has none")?;
        fs::write(&path, record.to_string())?;
    }
    Ok(())
}

#[test]
fn an_image_of_an_older_version_is_unknown_by_its_digest_and_known_by_its_tag() -> Result<()> {
    let served = ServedSet::start(PACKAGES, |settings| settings)?;
    let (digest, blobs) = manifest(&served.builder, "vcsalias", "latest", OCI)?;
    let served = served.restart(PACKAGES)?;
    age(&served.storage().join("facts"))?;
    let held = [
        format!("/v2/vcsalias/manifests/{digest}"),
        format!("/v2/vcsalias/blobs/{}", blobs[0]),
    ];
    for path in &held {
        let (image, age) = told(&served.builder, path, "vcs-1")?;
        assert!(image.names_unknown, "{path}");
        assert_eq!(age, "max-age=60", "{path}");
        // Nobody who denies nothing misses it.
        let image = facts(
            &served.builder,
            path,
            "return=minimal",
            if path == &held[0] { 200 } else { 204 },
        )?;
        assert!(!image[0].names_unknown);
    }
    assert_eq!(
        pulled(&served.builder, "vcsalias", "latest")?.names,
        names(&[("vcsalias", "vcs")])
    );

    for path in ["/v2/vcsalias/manifests/latest", &held[0], &held[1]] {
        let (image, _) = told(&served.builder, path, "vcs-1")?;
        assert!(!image.names_unknown, "{path}");
        assert!(
            image.names.iter().any(|(_, other)| other == "vcs-1"),
            "{path}"
        );
    }
    Ok(())
}
