//! How often records are read, and which builder knows which tags.

use nixgate_core::distribution::Digest;

use super::*;
use crate::records::Origin;

const NAME: &str = "name";

/// A storage, and an empty cache.
fn fresh() -> (tempfile::TempDir, Storage, Images) {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::filesystem(folder.path()).unwrap();
    (folder, storage, Images::default())
}

/// A cache that lists a name for each request.
fn uncached() -> Images {
    Images {
        listing_ttl: Duration::ZERO,
        ..Images::default()
    }
}

fn blob(content: &[u8]) -> Digest {
    Digest::of(content)
}

/// Publishes an image with these blobs.
async fn publish(storage: &Storage, name: &str, blobs: &[Digest]) -> ImageId {
    let blobs: Vec<(Digest, u64)> = blobs.iter().map(|blob| (*blob, 7)).collect();
    let record = ImageRecord::example(&blobs);
    let image = record.image_id();
    let key = Key::record(name, &image);
    record.write(storage, &key).await.unwrap();
    image
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn tags(image: &Image) -> Vec<&str> {
    image.tags.iter().map(Tag::as_str).collect()
}

/// The tags of each image that has a blob.
async fn tags_with(images: &Images, storage: &Storage, blob: &Digest) -> Vec<Vec<String>> {
    let found = images.with_blob(storage, NAME, blob).await.unwrap();
    let owned = |tags: Vec<&str>| tags.into_iter().map(str::to_owned).collect();
    found.iter().map(|image| owned(tags(image))).collect()
}

#[tokio::test]
async fn a_repeated_pull_by_tag_reads_nothing() {
    let (folder, storage, images) = fresh();
    let one = publish(&storage, NAME, &[blob(b"1")]).await;
    let latest = Tag::latest();
    for _ in 0..2 {
        let found = images
            .tagged(&storage, NAME, &one, &latest, false)
            .await
            .unwrap();
        assert_eq!(tags(&found.unwrap()), ["latest"]);
        let _ = std::fs::remove_dir_all(folder.path().join("facts"));
    }
    let unknown = uncached()
        .tagged(&storage, NAME, &one, &latest, false)
        .await;
    assert_eq!(unknown.unwrap(), None, "the record is lost");
}

#[tokio::test]
async fn a_tag_is_recorded_for_all_builders_and_stays_with_its_image() {
    let (_folder, storage, images) = fresh();
    let shared = blob(b"shared");
    let one = publish(&storage, NAME, &[blob(b"1"), shared]).await;
    let two = publish(&storage, NAME, &[blob(b"2"), shared]).await;
    publish(&storage, "other", &[blob(b"3"), shared]).await;
    let others = [uncached(), uncached()];
    assert_eq!(tags_with(&images, &storage, &blob(b"1")).await, [[""; 0]]);

    // Two builders record a tag each at the same time; a third one gets requests for the blobs.
    let (v1, v2) = (tag("v1"), tag("v2"));
    let (first, second) = tokio::join!(
        others[0].tagged(&storage, NAME, &one, &v1, false),
        others[1].tagged(&storage, NAME, &one, &v2, false),
    );
    assert_eq!(tags(&first.unwrap().unwrap()), ["v1"]);
    assert_eq!(tags(&second.unwrap().unwrap()), ["v2"]);
    images
        .tagged(&storage, NAME, &two, &v2, false)
        .await
        .unwrap();
    for other in &others {
        let image = other.image(&storage, NAME, &one).await.unwrap();
        assert_eq!(tags(&image.unwrap()), ["v1", "v2"]);
        let mut both = tags_with(other, &storage, &shared).await;
        both.sort();
        assert_eq!(both, [vec!["v1", "v2"], vec!["v2"]]);
        assert_eq!(tags_with(other, &storage, &blob(b"2")).await, [["v2"]]);
        assert!(tags_with(other, &storage, &blob(b"3")).await.is_empty());
    }
    // It knows its own answer at once.
    let image = images.image(&storage, NAME, &two).await.unwrap();
    assert_eq!(tags(&image.unwrap()), ["v2"]);
}

#[tokio::test]
async fn an_image_is_read_once_and_a_new_one_is_found() {
    let (folder, storage, images) = fresh();
    let (first, second) = (blob(b"1"), blob(b"2"));
    let one = publish(&storage, NAME, &[first]).await;
    assert_eq!(tags_with(&images, &storage, &first).await.len(), 1);
    let record = folder.path().join("facts/name").join(&one).join("record");
    std::fs::write(record, "damaged").unwrap();
    publish(&storage, NAME, &[second]).await;
    for blob in [&second, &first] {
        assert_eq!(tags_with(&images, &storage, blob).await.len(), 1);
    }
    assert_eq!(tags_with(&uncached(), &storage, &first).await.len(), 0);
}

#[tokio::test]
async fn an_image_is_known_as_long_as_one_of_its_records_is_there() {
    let (folder, storage, images) = fresh();
    let one = publish(&storage, NAME, &[blob(b"1")]).await;
    let latest = Tag::latest();
    images
        .tagged(&storage, NAME, &one, &latest, false)
        .await
        .unwrap();
    let record = folder.path().join("facts/name").join(&one).join("record");
    std::fs::write(&record, "damaged").unwrap();
    for _ in 0..2 {
        let other = Images::default();
        assert_eq!(tags_with(&other, &storage, &blob(b"1")).await, [["latest"]]);
        let found = other
            .tagged(&storage, NAME, &one, &latest, false)
            .await
            .unwrap();
        assert!(found.is_some());
        let _ = std::fs::remove_file(&record);
    }
}

#[tokio::test]
async fn the_number_of_recorded_tags_is_bounded() {
    let (_folder, storage, images) = fresh();
    let one = publish(&storage, NAME, &[blob(b"1")]).await;
    for number in 0..MAX_TAGS + 2 {
        let tag = tag(&format!("t{number}"));
        let found = images
            .tagged(&storage, NAME, &one, &tag, false)
            .await
            .unwrap();
        assert!(found.unwrap().tags.contains(&tag), "{number}");
    }
    for images in [images, uncached()] {
        let image = images.image(&storage, NAME, &one).await.unwrap();
        assert_eq!(image.unwrap().tags.len(), MAX_TAGS);
    }
}

#[tokio::test]
async fn the_name_that_was_used_longest_ago_is_evicted() {
    let (folder, storage, _) = fresh();
    // An image with one blob weighs one, and so does its name.
    let images = Images {
        max_weight: 4,
        ..Images::default()
    };
    let content = blob(b"1");
    for name in ["a", "b", "c"] {
        publish(&storage, name, &[content]).await;
    }
    for name in ["a", "b", "a", "c"] {
        let found = images.with_blob(&storage, name, &content).await.unwrap();
        assert_eq!(found.len(), 1, "{name}");
    }
    std::fs::remove_dir_all(folder.path().join("facts")).unwrap();
    for (name, known) in [("a", 1), ("b", 0), ("c", 1)] {
        let found = images.with_blob(&storage, name, &content).await.unwrap();
        assert_eq!(found.len(), known, "{name}");
    }
}

/// The number of images of each name, as the catalog has them. All names but `ours` are foreign.
async fn list(images: &Images, storage: &Storage, ours: &str) -> Vec<(String, usize)> {
    let names = images.without_foreign(storage.all_facts().await.unwrap());
    let mut list = Vec::new();
    for (name, facts) in names {
        let found = images.listed(storage, &name, facts, Instant::now(), |_| name == ours);
        let found = found.await.unwrap().len();
        list.push((name, found));
    }
    list
}

fn listed<const N: usize>(items: [(&str, usize); N]) -> Vec<(String, usize)> {
    items.map(|(name, images)| (name.to_owned(), images)).into()
}

#[tokio::test]
async fn a_foreign_name_is_read_once_and_is_not_cached() {
    let (folder, storage, _) = fresh();
    let images = Images {
        max_weight: 6,
        ..Images::default()
    };
    for number in 0..2_u8 {
        publish(&storage, "ours", &[blob(&[number])]).await;
        publish(&storage, "theirs", &[blob(&[number])]).await;
    }
    let both = listed([("ours", 2), ("theirs", 0)]);
    assert_eq!(list(&images, &storage, "ours").await, both);
    for _ in 0..2 {
        publish(&storage, "theirs", &[blob(b"another")]).await;
        let ours = listed([("ours", 2)]);
        assert_eq!(list(&images, &storage, "ours").await, ours);
    }
    let names: Vec<_> = images.names.lock().keys().cloned().collect();
    assert_eq!(names, ["ours"]);

    // A name that is gone from storage is no longer foreign.
    let facts = folder.path().join("facts");
    std::fs::remove_dir_all(facts.join("theirs")).unwrap();
    assert_eq!(list(&images, &storage, "ours").await.len(), 1);
    publish(&storage, "theirs", &[blob(b"1")]).await;
    assert_eq!(list(&images, &storage, "ours").await, both);

    // A name with unreadable records may be repaired, and is neither.
    let damaged = publish(&storage, "damaged", &[blob(b"1")]).await;
    let record = facts.join("damaged").join(damaged).join("record");
    let good = std::fs::read(&record).unwrap();
    std::fs::write(&record, "damaged").unwrap();
    let all = listed([("damaged", 0), ("ours", 2)]);
    assert_eq!(list(&images, &storage, "ours").await, all);
    std::fs::write(&record, good).unwrap();
    let all = listed([("damaged", 1), ("ours", 0)]);
    let fresh = Images::default();
    assert_eq!(list(&fresh, &storage, "damaged").await[..2], all);
}

#[tokio::test]
async fn a_record_of_an_older_version_is_none_where_more_is_needed_until_it_is_written_anew() {
    let (_folder, storage, images) = fresh();
    let one = publish(&storage, NAME, &[blob(b"1")]).await;
    let latest = Tag::latest();
    let has_origin = async |images: &Images, needed| {
        let found = images.tagged(&storage, NAME, &one, &latest, needed).await;
        found.unwrap().map(|image| image.record.origin.is_some())
    };
    assert_eq!(has_origin(&images, false).await, Some(false));
    assert_eq!(has_origin(&images, true).await, None);
    assert_eq!(has_origin(&images, false).await, Some(false));

    let mut newer = ImageRecord::example(&[(blob(b"1"), 7)]);
    newer.origin = Some(Origin {
        set: "/".into(),
        revision: "r".to_owned(),
        outputs: BTreeMap::new(),
    });
    let key = Key::record(NAME, &one);
    newer.write(&storage, &key).await.unwrap();
    let other = uncached();
    let image = other.image(&storage, NAME, &one).await.unwrap().unwrap();
    assert_eq!(image.record.origin, newer.origin, "the tag's copy is older");
    for images in [&images, &uncached()] {
        assert_eq!(has_origin(images, true).await, Some(true));
        let image = images.image(&storage, NAME, &one).await.unwrap();
        assert_eq!(image.unwrap().record.origin, newer.origin);
    }
}
