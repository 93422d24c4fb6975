//! Which images there are of a name: their blobs, and what is known of them.
//!
//! Nothing of that ever changes, it only grows. So what was read once is remembered, and a pull by a
//! tag that was answered before costs no read. A blob or a digest belongs to every image of the name
//! that has it, and another builder may have published one meanwhile, or answered another tag: the
//! name is listed again when that was done too long ago, or when nothing that is remembered fits,
//! and those images are read that are new.
//!
//! A name of which somebody else has the images, who shares the storage, is never asked for here. It
//! turns up where all names are listed, and takes no place among those that are asked for: it is
//! remembered that it is foreign, and nothing else, for as long as it is listed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::stream::{StreamExt, TryStreamExt};
use nixgate_core::distribution::{Digest, Tag};

use crate::records::{ImageId, ImageRecord};
use crate::storage::{Fact, Key, Storage, StorageError};

/// Digests and names of store paths that are remembered, of about 100 bytes each.
const REMEMBERED: usize = 500_000;
/// Records that are read at once.
const READS_AT_ONCE: usize = 8;
/// For how long a listing holds. What another builder learns is known here so much later at most.
const LISTED_FOR: Duration = Duration::from_secs(10);
/// Tags that are kept of one image. Only where every tag is answered (`NIXGATE_ANY_TAG`) could
/// clients make more and more of them.
const MAX_TAGS: usize = 100;

/// An image of a name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Image {
    /// What is known of it.
    pub(super) record: Arc<ImageRecord>,
    /// The tags by which it was had.
    pub(super) tags: BTreeSet<Tag>,
    /// When it was made, or had by another tag, whichever is later.
    pub(super) latest: SystemTime,
}

/// What is remembered of a name.
#[derive(Default)]
struct Name {
    used: Option<Instant>,
    listed: Option<Instant>,
    images: BTreeMap<ImageId, Image>,
}

/// See the module.
pub(crate) struct Images {
    names: Mutex<BTreeMap<String, Name>>,
    foreign: Mutex<BTreeSet<String>>,
    listed_for: Duration,
    remembered: usize,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            names: Mutex::default(),
            foreign: Mutex::default(),
            listed_for: LISTED_FOR,
            remembered: REMEMBERED,
        }
    }
}

impl Images {
    /// The image that is had by a tag, which is kept among its tags from now on; none when nothing
    /// is known of it.
    pub(super) async fn tagged(
        &self,
        storage: &Storage,
        name: &str,
        image: &ImageId,
        tag: &Tag,
    ) -> Result<Option<Image>, StorageError> {
        let known = self.recall(name, |known| known.images.get(image).cloned());
        if let Some(known) = known.filter(|known| known.tags.contains(tag)) {
            return Ok(Some(known));
        }
        let key = Key::tagged(name, image, tag);
        let (record, kept) = match ImageRecord::read(storage, &key).await? {
            Some(record) => (record, true),
            None => {
                let Some(record) = ImageRecord::read(storage, &Key::record(name, image)).await?
                else {
                    return Ok(None);
                };
                let facts = storage.facts(name, Some(image)).await?;
                let tags = facts.iter().filter(|fact| fact.tag.is_some()).count();
                if tags < MAX_TAGS {
                    record.write(storage, &key).await?;
                } else {
                    tracing::warn!(%tag, "an image was had by {tags} tags already: not kept");
                }
                (record, tags < MAX_TAGS)
            }
        };
        let found = Image {
            record: Arc::new(record),
            tags: [tag.clone()].into(),
            latest: SystemTime::now(),
        };
        if !kept {
            return Ok(Some(found));
        }
        let learnt = BTreeMap::from([(image.clone(), found)]);
        let found = |known: &Name| known.images.get(image).cloned();
        Ok(self.learn(name, learnt, None, found))
    }

    /// The image itself.
    pub(super) async fn image(
        &self,
        storage: &Storage,
        name: &str,
        image: &ImageId,
    ) -> Result<Option<Image>, StorageError> {
        let images = self.fitting(storage, name, |id, _| id == image).await?;
        Ok(images.into_iter().next())
    }

    /// The images that have a blob.
    pub(super) async fn with_blob(
        &self,
        storage: &Storage,
        name: &str,
        blob: &Digest,
    ) -> Result<Vec<Image>, StorageError> {
        let has = |_: &ImageId, image: &Image| image.record.size(blob).is_some();
        self.fitting(storage, name, has).await
    }

    async fn fitting(
        &self,
        storage: &Storage,
        name: &str,
        fits: impl Fn(&ImageId, &Image) -> bool,
    ) -> Result<Vec<Image>, StorageError> {
        let fitting = |known: &Name| {
            let images = known.images.iter().filter(|(id, image)| fits(id, image));
            images.map(|(_, image)| image.clone()).collect::<Vec<_>>()
        };
        let known = self.recall(name, |known| match known.listed {
            Some(listed) if listed.elapsed() < self.listed_for => fitting(known),
            _ => Vec::new(),
        });
        if !known.is_empty() {
            return Ok(known);
        }
        let listed = Instant::now();
        let facts = storage.facts(name, None).await?;
        let images = self.read_new(storage, name, facts).await?;
        Ok(self.learn(name, images, Some(listed), fitting))
    }

    /// Of all names that there are, those that aren't known to be foreign.
    pub(super) fn without_foreign(
        &self,
        mut names: BTreeMap<String, Vec<Fact>>,
    ) -> BTreeMap<String, Vec<Fact>> {
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        foreign.retain(|name| names.remove(name).is_some());
        names
    }

    /// The images of a name of which this was listed, at that time; none when it is foreign: by any
    /// of its records, `is_ours` says whether it isn't.
    pub(super) async fn listed(
        &self,
        storage: &Storage,
        name: &str,
        facts: Vec<Fact>,
        at: Instant,
        is_ours: impl Fn(&ImageRecord) -> bool,
    ) -> Result<Vec<Image>, StorageError> {
        if self.recall(name, |known| known.images.is_empty()) {
            let Some(record) = first(storage, &facts).await? else {
                return Ok(Vec::new());
            };
            if !is_ours(&record) {
                let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
                foreign.insert(name.to_owned());
                return Ok(Vec::new());
            }
        }
        let images = self.read_new(storage, name, facts).await?;
        let all = |known: &Name| known.images.values().cloned().collect();
        Ok(self.learn(name, images, Some(at), all))
    }

    /// The images of a name of which this was listed. Those are read that are new.
    async fn read_new(
        &self,
        storage: &Storage,
        name: &str,
        listed: Vec<Fact>,
    ) -> Result<BTreeMap<ImageId, Image>, StorageError> {
        let mut facts: BTreeMap<ImageId, Vec<Fact>> = BTreeMap::new();
        for fact in listed {
            facts.entry(fact.image.clone()).or_default().push(fact);
        }
        let known = self.recall(name, |known| {
            let records = known.images.iter();
            let records = records.map(|(id, image)| (id.clone(), Arc::clone(&image.record)));
            records.collect::<BTreeMap<_, _>>()
        });
        let reads = facts.into_iter().map(|(id, facts)| {
            let known = known.get(&id).cloned();
            async move {
                let image = read(storage, facts, known).await?;
                Ok::<_, StorageError>(image.map(|image| (id, image)))
            }
        });
        let images: Vec<Option<_>> = futures::stream::iter(reads)
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(images.into_iter().flatten().collect())
    }

    fn recall<T>(&self, name: &str, what: impl FnOnce(&Name) -> T) -> T {
        match self.lock().get_mut(name) {
            Some(known) => {
                known.used = Some(Instant::now());
                what(known)
            }
            None => what(&Name::default()),
        }
    }

    /// Adds what was read to what is remembered, which may have grown meanwhile, and says `what`
    /// of it. When it is too much, the names are forgotten that were used longest ago; one without
    /// images takes no place.
    fn learn<T>(
        &self,
        name: &str,
        images: BTreeMap<ImageId, Image>,
        listed: Option<Instant>,
        what: impl FnOnce(&Name) -> T,
    ) -> T {
        let mut names = self.lock();
        if images.is_empty() && !names.contains_key(name) {
            return what(&Name::default());
        }
        let known = names.entry(name.to_owned()).or_default();
        known.used = Some(Instant::now());
        known.listed = known.listed.max(listed);
        for (id, image) in images {
            match known.images.get_mut(&id) {
                Some(known) => {
                    known.tags.extend(image.tags);
                    known.latest = known.latest.max(image.latest);
                }
                None => {
                    known.images.insert(id, image);
                }
            }
        }
        let answer = what(known);
        while names.len() > 1 && names.values().map(Name::weight).sum::<usize>() > self.remembered {
            let oldest = names.iter().min_by_key(|(_, known)| known.used);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                break;
            };
            names.remove(&oldest);
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Name {
    /// How many digests and words it holds.
    fn weight(&self) -> usize {
        let images = self.images.values();
        1 + images
            .map(|image| image.record.weight() + image.tags.len())
            .sum::<usize>()
    }
}

/// The first record that can be read: storage may have lost others.
async fn first(storage: &Storage, facts: &[Fact]) -> Result<Option<ImageRecord>, StorageError> {
    for fact in facts {
        if let Some(record) = ImageRecord::read(storage, &fact.key).await? {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// An image by what was listed of it. Any of its records will do.
async fn read(
    storage: &Storage,
    facts: Vec<Fact>,
    known: Option<Arc<ImageRecord>>,
) -> Result<Option<Image>, StorageError> {
    let record = match known {
        Some(known) => Some(known),
        None => first(storage, &facts).await?.map(Arc::new),
    };
    let latest = facts.iter().map(|fact| fact.written).max();
    Ok(record.zip(latest).map(|(record, latest)| Image {
        record,
        tags: facts.into_iter().filter_map(|fact| fact.tag).collect(),
        latest,
    }))
}

#[cfg(test)]
mod tests;
