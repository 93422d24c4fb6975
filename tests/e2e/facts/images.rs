//! By what an image is told, and that every way to it says the same.

use super::*;

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
        // A licence that can't be read may be any, and a mark may be one.
        (
            "awkward",
            &[],
            &["bsd", "full", "gpl", "insecure", "mit", "none", "unfree"],
        ),
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
