//! `GET /v2/_catalog`: the names that can be pulled without a build, for the edge to choose from.
//!
//! One listing says of all images which there are; those are read that are not remembered. A name is
//! in storage by its fingerprint alone, and a record has what it was made of: who may share storage
//! has other fingerprints for the same packages, and is left out by that. One record of each such
//! foreign name is read, once.
//!
//! The list is cut where it gets too long to be kept by the edge, in names or in bytes: what was
//! built or had last is in it.

use std::cmp::Reverse;
use std::time::Instant;

use futures::future::ready;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use nixgate_core::distribution::{Error, ErrorKind, Repository};
use nixgate_core::policy::FactRules;
use nixgate_core::wire::{Catalog, CatalogItem};

use super::answer::{self, Body};
use super::images::Image;
use super::manifests::unready;
use super::{App, facts};
use crate::records::ImageRecord;
use crate::request::recipes::Recipes;
use crate::request::{NamedImage, link_folder};

/// Names that are listed, those first that were built or had by another tag last. The edge judges
/// the list as a whole for each caller.
const MAX_NAMES: usize = 1000;
/// Bytes of the list. The edge keeps it as one entry of its cache, which takes 256 KiB with what is
/// around it; a longer list would be fetched anew for every request.
const MAX_BYTES: usize = 240 << 10;
/// Names that are read at once.
const NAMES_AT_ONCE: usize = 8;
/// For how long the list holds, in seconds.
const MAX_AGE: u64 = 60;

impl App {
    /// The names of which there are images, with what the edge's policy has to know of these.
    pub(super) async fn catalog(
        &self,
        request: &Request<Incoming>,
    ) -> Result<Response<Body>, Error> {
        let rules = facts::rules_of(request)?;
        let at = Instant::now();
        let names = self.engine.storage.all_facts().await.map_err(unready)?;
        let mut names: Vec<_> = self.images.without_foreign(names).into_iter().collect();
        names.sort_by_key(|(_, facts)| Reverse(facts.iter().map(|fact| fact.written).max()));
        let recipes = self.engine.recipes.current();
        let items = names.into_iter().map(|(name, facts)| {
            let (rules, recipes) = (&rules, &recipes);
            async move {
                let is_ours = |record: &ImageRecord| self.is_ours(record, &name);
                let images = self
                    .images
                    .listed(&self.engine.storage, &name, facts, at, is_ours);
                let images = images.await;
                Ok(self.item(&name, images.map_err(unready)?, rules, recipes))
            }
        });
        let items = stream::iter(items).buffered(NAMES_AT_ONCE);
        let items = items.try_filter_map(|item| ready(Ok::<_, Error>(item)));
        let mut room = Room::default();
        let items = items.try_take_while(|item| ready(Ok(room.takes(item))));
        let mut repositories: Vec<_> = items.try_collect().await?;
        repositories.sort_by(|a, b| a.name.cmp(&b.name));
        let body = serde_json::to_vec(&Catalog { repositories })
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        let mut response = answer::json(200, body);
        let (name, value) = answer::max_age(MAX_AGE);
        if let Ok(value) = value.try_into() {
            response.headers_mut().insert(name, value);
        }
        Ok(response)
    }

    /// Whether the name is this builder's for what the record tells of.
    fn is_ours(&self, record: &ImageRecord, name: &str) -> bool {
        let (source, opaque) = (self.engine.sources.source().identity(), &record.opaque_name);
        link_folder(&source, record.system, &record.packages, opaque.as_deref()) == name
    }

    /// What is said of a name with these images; none when it is no name of this builder's.
    fn item(
        &self,
        name: &str,
        images: Vec<Image>,
        rules: &FactRules,
        recipes: &Recipes,
    ) -> Option<CatalogItem> {
        let record = &images.first()?.record;
        if !self.is_ours(record, name) {
            return None;
        }
        let system =
            (record.system != self.engine.settings.system).then_some(record.system.architecture());
        let packages = record.packages.iter().map(String::as_str);
        let written: Vec<&str> = match &record.opaque_name {
            Some(opaque) => vec![opaque],
            None => system.into_iter().chain(packages).collect(),
        };
        // A recipe may be no more.
        let repository = Repository::parse(&written.join("/")).ok()?;
        let wanted = NamedImage::of(&repository, recipes, self.engine.settings.system).ok()?;
        Some(CatalogItem {
            name: wanted.short_name(),
            facts: facts::header(images, rules),
        })
    }
}

/// What is left of the list's bounds.
#[derive(Default)]
struct Room {
    names: usize,
    bytes: usize,
}

impl Room {
    /// Whether the item has a place in the list. After the first that has none, nothing has: what
    /// is listed has no gaps.
    fn takes(&mut self, item: &CatalogItem) -> bool {
        const AROUND: usize = r#"{"repositories":[]}"#.len();
        let comma = 1;
        self.names += 1;
        // What can't be encoded is told where the whole list is.
        self.bytes += serde_json::to_vec(item).map_or(0, |json| json.len()) + comma;
        self.names <= MAX_NAMES && AROUND + self.bytes <= MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use nixgate_core::cache::{Content, Directory, Entry, Key};

    use super::*;

    /// The newest items of a list that fit, as the body of an answer.
    fn cut(items: Vec<CatalogItem>) -> (usize, Vec<u8>) {
        let mut room = Room::default();
        let repositories: Vec<_> = items
            .into_iter()
            .take_while(|one| room.takes(one))
            .collect();
        let names = repositories.len();
        (
            names,
            serde_json::to_vec(&Catalog { repositories }).unwrap(),
        )
    }

    fn item(number: usize, facts: usize) -> CatalogItem {
        CatalogItem {
            name: format!("{number:05}"),
            // Each of them is two bytes in JSON.
            facts: "\"".repeat(facts),
        }
    }

    #[test]
    fn a_list_has_so_many_names_as_the_edge_can_keep() {
        for (facts, all) in [(0, 2000), (100, 2000), (1000, 500), (7000, 100)] {
            let items = |count| (0..count).map(|number| item(number, facts)).collect();
            let (names, body) = cut(items(all));
            assert!(0 < names && names < all, "{facts}");
            assert!(body.len() <= MAX_BYTES, "{facts}: {}", body.len());
            // Not one more would have had a place.
            let (_, more) = cut(items(names));
            assert_eq!(more, body, "{facts}");
            let another = serde_json::to_vec(&item(names, facts)).unwrap().len() + 1;
            assert!(
                names == MAX_NAMES || body.len() + another > MAX_BYTES,
                "{facts}: {names}"
            );

            let entry = Entry {
                learnt: 0,
                expires: 60,
                content: Content::Document {
                    media_type: "application/json".to_owned(),
                    digest: None,
                    source: None,
                    body: body.into(),
                },
                facts: String::new(),
            };
            let key = Key::catalog("a cluster with a long name, and what else is in a scope");
            let length = entry.encode(&key).len() + 1024;
            let placed = Directory::default().place(&key, length, 60, 0);
            assert!(placed.is_some(), "{facts}: the edge keeps it");
        }
    }

    #[test]
    fn a_list_has_no_gaps() {
        let items = vec![item(0, 1), item(1, MAX_BYTES), item(2, 1)];
        assert_eq!(cut(items).0, 1);
    }
}
