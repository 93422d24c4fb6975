//! Blobs and the images that have them.

use super::*;

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
