//! Images whose record is lost.

use super::*;

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
