//! The images of each name, with their records and tags, cached.
//!
//! Records never change, and their number only grows. So each record is read once, and a repeated pull by
//! tag reads nothing. A blob or digest belongs to every image of the name that has it, and another builder
//! may publish one or record a tag at any time. So the name is listed again when the last listing is
//! older than [`LISTING_TTL`] or nothing in the cache matches; then the new images are read.
//!
//! Names of others who share the storage are never requested here. They only appear when all names are
//! listed. The cache has a set of these foreign names, and none of their images.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::stream::{self, StreamExt, TryStreamExt};
use nixgate_core::distribution::{Digest, Tag};
use parking_lot::Mutex;

use crate::records::{ImageId, ImageRecord};
use crate::storage::{Fact, Key, Storage, StorageError};

/// The size of the cache, in digests, tags and names of store paths of about 100 bytes each.
const MAX_WEIGHT: usize = 500_000;
/// Records that are read at once.
const READS_AT_ONCE: usize = 8;
/// How far the cache may be behind other builders.
const LISTING_TTL: Duration = Duration::from_secs(10);
/// Tags that are recorded of one image. With `NIXGATE_ANY_TAG`, clients can invent tags.
const MAX_TAGS: usize = 100;

/// An image of a name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Image {
    pub(super) record: Arc<ImageRecord>,
    /// The tags by which it was pulled.
    pub(super) tags: BTreeSet<Tag>,
    /// When it was built or first pulled by its latest tag.
    pub(super) latest: SystemTime,
}

type ImagesById = BTreeMap<ImageId, Image>;

/// The cache of a name.
#[derive(Default)]
struct CachedName {
    used: Option<Instant>,
    listed: Option<Instant>,
    images: ImagesById,
}

/// See the module.
pub(crate) struct Images {
    names: Mutex<BTreeMap<String, CachedName>>,
    foreign: Mutex<BTreeSet<String>>,
    listing_ttl: Duration,
    max_weight: usize,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            names: Mutex::default(),
            foreign: Mutex::default(),
            listing_ttl: LISTING_TTL,
            max_weight: MAX_WEIGHT,
        }
    }
}

impl Images {
    /// Looks up an image and records `tag` as one of its tags. None when the image has no record; if its
    /// `origin` is needed, a record of an older version, which lacks it, is none.
    pub(super) async fn tagged(
        &self,
        storage: &Storage,
        name: &str,
        image: &ImageId,
        tag: &Tag,
        origin: bool,
    ) -> Result<Option<Image>, StorageError> {
        let cached = self.cached(name, |known| known.images.get(image).cloned());
        let is_enough = |record: &ImageRecord| !origin || record.origin.is_some();
        let cached = cached.filter(|cached| is_enough(&cached.record));
        if let Some(cached) = cached.filter(|cached| cached.tags.contains(tag)) {
            return Ok(Some(cached));
        }
        let key = Key::tagged(name, image, tag);
        let mut is_recorded = true;
        let record = match ImageRecord::read(storage, &key).await? {
            Some(record) if is_enough(&record) => record,
            // The image was built by an older version, and maybe again since.
            Some(_) => {
                let record = ImageRecord::read(storage, &Key::record(name, image)).await?;
                let Some(record) = record.filter(is_enough) else {
                    return Ok(None);
                };
                record.write(storage, &key).await?;
                record
            }
            None => {
                let record = ImageRecord::read(storage, &Key::record(name, image)).await?;
                let Some(record) = record.filter(is_enough) else {
                    return Ok(None);
                };
                let facts = storage.facts(name, Some(image)).await?;
                let tags = facts.iter().filter(|fact| fact.tag.is_some()).count();
                is_recorded = tags < MAX_TAGS;
                if is_recorded {
                    record.write(storage, &key).await?;
                } else {
                    tracing::warn!(%tag, "image already has {tags} tags; not recording another");
                }
                record
            }
        };
        let found = Image {
            record: Arc::new(record),
            tags: [tag.clone()].into(),
            latest: SystemTime::now(),
        };
        if !is_recorded {
            return Ok(Some(found));
        }
        let new = [(image.clone(), found)].into();
        Ok(self.add(name, new, None, |known| known.images.get(image).cloned()))
    }

    pub(super) async fn image(
        &self,
        storage: &Storage,
        name: &str,
        image: &ImageId,
    ) -> Result<Option<Image>, StorageError> {
        let images = self.matching(storage, name, |id, _| id == image).await?;
        Ok(images.into_iter().next())
    }

    /// The images that have a blob.
    pub(super) async fn with_blob(
        &self,
        storage: &Storage,
        name: &str,
        blob: &Digest,
    ) -> Result<Vec<Image>, StorageError> {
        let has_blob = |_: &ImageId, image: &Image| image.record.size(blob).is_some();
        self.matching(storage, name, has_blob).await
    }

    async fn matching(
        &self,
        storage: &Storage,
        name: &str,
        matches: impl Fn(&ImageId, &Image) -> bool,
    ) -> Result<Vec<Image>, StorageError> {
        let matching = |known: &CachedName| {
            let images = known.images.iter().filter(|(id, image)| matches(id, image));
            images.map(|(_, image)| image.clone()).collect::<Vec<_>>()
        };
        let cached = self.cached(name, |known| match known.listed {
            Some(listed) if listed.elapsed() < self.listing_ttl => matching(known),
            _ => Vec::new(),
        });
        if !cached.is_empty() {
            return Ok(cached);
        }
        let listed = Instant::now();
        let facts = storage.facts(name, None).await?;
        let images = self.read_new(storage, name, facts).await?;
        Ok(self.add(name, images, Some(listed), matching))
    }

    /// Removes the foreign names from a list of all names.
    pub(super) fn without_foreign(
        &self,
        mut names: BTreeMap<String, Vec<Fact>>,
    ) -> BTreeMap<String, Vec<Fact>> {
        self.foreign
            .lock()
            .retain(|name| names.remove(name).is_some());
        names
    }

    /// The images of a name, by a listing of the time `at`. A foreign name has none: `is_ours` tells by
    /// any record of the name.
    pub(super) async fn listed(
        &self,
        storage: &Storage,
        name: &str,
        facts: Vec<Fact>,
        at: Instant,
        is_ours: impl Fn(&ImageRecord) -> bool,
    ) -> Result<Vec<Image>, StorageError> {
        if self.cached(name, |known| known.images.is_empty()) {
            let Some(record) = first(storage, &facts).await? else {
                return Ok(Vec::new());
            };
            if !is_ours(&record) {
                self.foreign.lock().insert(name.to_owned());
                return Ok(Vec::new());
            }
        }
        let images = self.read_new(storage, name, facts).await?;
        let all = |known: &CachedName| known.images.values().cloned().collect();
        Ok(self.add(name, images, Some(at), all))
    }

    /// The images in a listing of a name. Reads the records of those that are not cached.
    async fn read_new(
        &self,
        storage: &Storage,
        name: &str,
        listed: Vec<Fact>,
    ) -> Result<ImagesById, StorageError> {
        let mut facts: BTreeMap<ImageId, Vec<Fact>> = BTreeMap::new();
        for fact in listed {
            facts.entry(fact.image.clone()).or_default().push(fact);
        }
        let reads = facts.into_iter().map(|(id, facts)| {
            let record = |known: &CachedName| Some(Arc::clone(&known.images.get(&id)?.record));
            let cached = self.cached(name, record);
            async move {
                // An image of an older version may have been built again, by another builder.
                let record = match cached.filter(|record| record.origin.is_some()) {
                    Some(record) => Some(record),
                    None => first(storage, &facts).await?.map(Arc::new),
                };
                let latest = facts.iter().map(|fact| fact.written).max();
                let image = record.zip(latest).map(|(record, latest)| Image {
                    record,
                    tags: facts.into_iter().filter_map(|fact| fact.tag).collect(),
                    latest,
                });
                Ok::<_, StorageError>(image.map(|image| (id, image)))
            }
        });
        let reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        let images: Vec<Option<_>> = reads.try_collect().await?;
        Ok(images.into_iter().flatten().collect())
    }

    /// Reads the cache of a name, which is empty for an unknown one.
    fn cached<T>(&self, name: &str, read: impl FnOnce(&CachedName) -> T) -> T {
        match self.names.lock().get_mut(name) {
            Some(known) => {
                known.used = Some(Instant::now());
                read(known)
            }
            None => read(&CachedName::default()),
        }
    }

    /// Adds images to the cache of a name, which may have grown meanwhile, and reads it. Beyond the
    /// maximum weight, the names that were used longest ago are evicted. A name without images is not
    /// cached.
    fn add<T>(
        &self,
        name: &str,
        images: ImagesById,
        listed: Option<Instant>,
        read: impl FnOnce(&CachedName) -> T,
    ) -> T {
        let mut names = self.names.lock();
        if images.is_empty() && !names.contains_key(name) {
            return read(&CachedName::default());
        }
        let known = names.entry(name.to_owned()).or_default();
        known.used = Some(Instant::now());
        known.listed = known.listed.max(listed);
        for (id, image) in images {
            let known = known.images.entry(id).or_insert_with(|| image.clone());
            if known.record.origin.is_none() {
                known.record = Arc::clone(&image.record);
            }
            known.tags.extend(image.tags);
            known.latest = known.latest.max(image.latest);
        }
        let answer = read(known);
        while names.len() > 1
            && names.values().map(CachedName::weight).sum::<usize>() > self.max_weight
        {
            let oldest = names.iter().min_by_key(|(_, known)| known.used);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|name| names.remove(&name));
        }
        answer
    }
}

impl CachedName {
    fn weight(&self) -> usize {
        let images = self.images.values();
        let weights = images.map(|image| image.record.weight() + image.tags.len());
        1 + weights.sum::<usize>()
    }
}

/// The first readable record: storage may have lost others. Those of tags may be older than the image's own, if
/// it was built again by a newer version.
async fn first(storage: &Storage, facts: &[Fact]) -> Result<Option<ImageRecord>, StorageError> {
    let (own, of_tags): (Vec<_>, Vec<_>) = facts.iter().partition(|fact| fact.tag.is_none());
    for fact in own.into_iter().chain(of_tags) {
        if let Some(record) = ImageRecord::read(storage, &fact.key).await? {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
