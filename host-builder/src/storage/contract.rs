//! What every storage must do. The filesystem is tested here; S3 by the end-to-end tests.

use nixgate_core::distribution::Tag;

use super::*;
use crate::files::expiry::date;

async fn holds(storage: &Storage) {
    let key = Key::build("k");
    assert_eq!(storage.get(&key).await.unwrap(), None);
    assert_eq!(storage.size(&key).await.unwrap(), None);
    assert!(storage.put_if_absent(&key, "first".into()).await.unwrap());
    assert!(!storage.put_if_absent(&key, "second".into()).await.unwrap());
    assert_eq!(storage.get(&key).await.unwrap(), Some("first".into()));
    storage.put(&key, "third".into()).await.unwrap();
    assert_eq!(storage.get(&key).await.unwrap(), Some("third".into()));

    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &content).unwrap();
    let blob = Key::blob(&Digest::of(&content));
    storage
        .upload(&Digest::of(&content), file.path())
        .await
        .unwrap();
    assert_eq!(storage.size(&blob).await.unwrap(), Some(3_000_000));
    let part = storage.read(&blob, 10, 1_500_000).await.unwrap();
    let part: Vec<Bytes> = part.try_collect().await.unwrap();
    assert_eq!(part.concat(), content[10..1_500_000]);

    let tags = ["latest", "v1.0-rc_2"].map(|tag| Tag::parse(tag).unwrap());
    let keys = [
        Key::record("name", "image"),
        Key::tagged("name", "image", &tags[0]),
        Key::tagged("name", "image", &tags[1]),
        Key::record("name", "image2"),
        Key::record("name2", "image"),
    ];
    for key in &keys {
        storage.put(key, "{}".into()).await.unwrap();
    }
    for (image, expected) in [
        (None, &keys[..4]),
        (Some("image"), &keys[..3]),
        (Some("imag"), &[]),
    ] {
        let mut facts = storage.facts("name", image).await.unwrap();
        facts.sort_by_key(|fact| (fact.image.clone(), fact.tag.clone()));
        let found: Vec<Key> = facts.iter().map(|fact| fact.key.clone()).collect();
        assert_eq!(found, expected, "{image:?}");
        let found: Vec<_> = facts.iter().map(|fact| fact.tag.as_ref()).collect();
        let expected = [None, Some(&tags[0]), Some(&tags[1]), None];
        assert_eq!(found, expected[..found.len()], "{image:?}");
    }
    assert_eq!(storage.facts("nam", None).await.unwrap(), []);
    let all = storage.all_facts().await.unwrap();
    let count = |name: &str| all.get(name).map(Vec::len);
    assert_eq!(
        (count("name"), count("name2"), all.len()),
        (Some(4), Some(1), 2)
    );
    storage.probe().await.unwrap();
}

#[tokio::test]
async fn the_filesystem_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::filesystem(&folder.path().join("made/on/demand")).unwrap();
    holds(&storage).await;
    let key = Key::build("k");
    assert_eq!(
        storage.locate(&key, Method::GET).await.unwrap(),
        Location::Here
    );
}

#[tokio::test]
async fn a_damaged_blob_is_replaced_whatever_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::filesystem(folder.path()).unwrap();
    let digest = Digest::of(b"whole");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "whole").unwrap();
    for damaged in ["who", "WHOLE"] {
        let blob = Key::blob(&digest);
        storage.put(&blob, damaged.into()).await.unwrap();
        storage.upload(&digest, file.path()).await.unwrap();
        assert_eq!(storage.get(&blob).await.unwrap(), Some("whole".into()));
    }
}

#[tokio::test]
async fn only_old_unfinished_files_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::filesystem(folder.path()).unwrap();
    let now = std::time::SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    for key in [
        Key::blob(&Digest::of(b"layer")),
        Key::build("build"),
        Key::package("package"),
        Key::manifest("manifest"),
        Key::probe(),
    ] {
        storage.put(&key, "whole".into()).await.unwrap();
        let files = [("#1", now - day), ("#12", now), ("", now - day)];
        let files = files.map(|(end, written)| {
            let file = folder.path().join(format!("{}{end}", key.0));
            let mut options = std::fs::File::options();
            let opened = options.create(true).append(true).open(&file);
            opened.unwrap().set_modified(written).unwrap();
            file
        });
        Storage::filesystem(folder.path()).unwrap();
        let left = files.map(|file| file.exists());
        assert_eq!(left, [false, true, true], "{key:?}");
    }
}

#[test]
fn builders_that_start_together_do_not_fail_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let layers = folder.path().join("layers");
    std::fs::create_dir(&layers).unwrap();
    let day = Duration::from_secs(24 * 3600);
    let abandoned = || {
        let names = (0..1000).map(|number| format!("layer#{number}"));
        names.map(|name| layers.join(name))
    };
    for file in abandoned() {
        std::fs::write(&file, "half").unwrap();
        date(&file, day, false);
    }
    // One that nobody can remove: it is a folder.
    let odd = layers.join("odd#1");
    std::fs::create_dir(&odd).unwrap();
    date(&odd, day, false);
    let start = std::sync::Barrier::new(4);
    let open = || {
        start.wait();
        Storage::filesystem(folder.path()).map(drop)
    };
    std::thread::scope(|scope| {
        let builders = [(); 4].map(|()| scope.spawn(open));
        for builder in builders {
            builder.join().unwrap().unwrap();
        }
    });
    assert!(!abandoned().any(|file| file.exists()) && odd.exists());
}

#[tokio::test]
async fn a_url_of_temporary_credentials_is_handed_out_for_a_shorter_time() {
    for (token, seconds) in [(None, 2700), (Some("session"), 120)] {
        let mut s3 = object_store::aws::AmazonS3Builder::new()
            .with_bucket_name("images")
            .with_region("us-east-1")
            .with_access_key_id("key")
            .with_secret_access_key("secret");
        if let Some(token) = token {
            s3 = s3.with_token(token);
        }
        let storage = Storage::of_s3(s3.build().unwrap());
        let key = Key::blob(&Digest::of(b"blob"));
        match storage.locate(&key, Method::GET).await.unwrap() {
            Location::Redirect { url, max_age } => {
                assert_eq!(
                    url.contains("X-Amz-Security-Token="),
                    token.is_some(),
                    "{url}"
                );
                assert_eq!(max_age.as_secs(), seconds);
            }
            Location::Here => panic!("S3 signs URLs"),
        }
    }
}
