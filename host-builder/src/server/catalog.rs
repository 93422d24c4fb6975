//! `GET /v2/_catalog`: the names that clients can pull without a build. The edge shows each caller those
//! that the policy allows.
//!
//! One listing of storage finds all images; records are read only of new ones. Storage has a name as its
//! fingerprint, and a record has the packages that the name is made of. Another builder that shares the
//! storage has other fingerprints for the same packages, so a record tells whose a name is. Of each
//! foreign name, one record is read, once.
//!
//! The list is cut where it gets too long for the edge's cache, in names or in bytes. It begins with the
//! images that were built, or pulled by a new tag, last.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use futures::future::ready;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::request::Parts;
use nixgate_core::distribution::Repository;
use nixgate_core::wire::{Catalog, CatalogItem};

use super::App;
use super::error::HttpError;
use super::facts::{Inquiry, Rules};
use super::headers::{JSON, deadline, max_age};
use super::images::Image;
use crate::records::ImageRecord;
use crate::request::recipes::Recipes;
use crate::request::{NamedImage, link_folder};

/// The most names of a list. The edge judges all of them for each caller.
const MAX_NAMES: usize = 1000;
/// The most bytes of a list. The edge caches it as one entry, which holds 256 KiB with its metadata; it
/// would fetch a longer list for every request.
const MAX_BYTES: usize = 240 << 10;
/// How many names are read at once.
const CONCURRENT_NAMES: usize = 8;
const MAX_AGE: Duration = Duration::from_secs(60);

impl App {
    /// Lists the names of all images, with the facts that the edge's policy needs.
    pub(super) async fn catalog(&self, request: &Parts) -> Result<Response, HttpError> {
        let rules = Rules::of(&request.headers)?;
        let deadline = deadline(&request.headers);
        let inquiry = Inquiry::new(&self.engine.other_names, &rules, deadline).for_list();
        let at = Instant::now();
        let storage = &self.engine.storage;
        let names = self.images.without_foreign(storage.all_facts().await?);
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|(_, facts)| Reverse(facts.iter().map(|fact| fact.written).max()));
        let recipes = self.engine.recipes.current();
        let items = names.into_iter().map(|(name, facts)| {
            let (inquiry, recipes) = (&inquiry, &recipes);
            async move {
                let is_ours = |record: &ImageRecord| self.is_ours(record, &name);
                let images = self.images.listed(storage, &name, facts, at, is_ours);
                Ok::<_, HttpError>(self.item(&name, images.await?, inquiry, recipes).await)
            }
        });
        let mut limits = Limits::default();
        let mut repositories: Vec<_> = stream::iter(items)
            .buffered(CONCURRENT_NAMES)
            .try_filter_map(|item| ready(Ok(item)))
            .try_take_while(|item| ready(Ok(limits.admit(item))))
            .try_collect()
            .await?;
        repositories.sort_by(|a, b| a.name.cmp(&b.name));
        let body = serde_json::to_vec(&Catalog { repositories });
        let body = body.map_err(|error| HttpError::internal(error.to_string()))?;
        Ok(([max_age(MAX_AGE)], JSON, body).into_response())
    }

    /// Whether the name is the one that this builder has for the record's packages.
    fn is_ours(&self, record: &ImageRecord, name: &str) -> bool {
        let (source, opaque) = (self.engine.sources.identity(), &record.opaque_name);
        link_folder(&source, record.system, &record.packages, opaque.as_deref()) == name
    }

    /// The item for a name with these images. `None` for a foreign name, and for a recipe that was removed.
    async fn item(
        &self,
        name: &str,
        images: Vec<Image>,
        inquiry: &Inquiry<'_>,
        recipes: &Recipes,
    ) -> Option<CatalogItem> {
        let record = &images.first()?.record;
        if !self.is_ours(record, name) {
            return None;
        }
        let default = self.engine.settings.system;
        let system = (record.system != default).then_some(record.system.architecture());
        let packages = record.packages.iter().map(String::as_str);
        let components: Vec<&str> = match &record.opaque_name {
            Some(opaque) => vec![opaque],
            None => system.into_iter().chain(packages).collect(),
        };
        let repository = Repository::parse(&components.join("/")).ok()?;
        let named = NamedImage::of(&repository, recipes, default).ok()?;
        Some(CatalogItem {
            name: named.short_name(),
            facts: inquiry.facts(images).await.ok()?.header,
        })
    }
}

/// The length of a list so far.
#[derive(Default)]
struct Limits {
    names: usize,
    bytes: usize,
}

impl Limits {
    /// Counts the item. Once one does not fit into the list, none of the later ones does, so that the list
    /// has no gaps.
    fn admit(&mut self, item: &CatalogItem) -> bool {
        const AROUND: usize = r#"{"repositories":[]}"#.len();
        const COMMA: usize = 1;
        self.names += 1;
        self.bytes += serde_json::to_vec(item).map_or(0, |json| json.len()) + COMMA;
        self.names <= MAX_NAMES && AROUND + self.bytes <= MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use nixgate_core::cache::{Content, Directory, Entry, Key};

    use super::*;

    /// The items that fit into a list: their number, and the response's body.
    fn cut(items: Vec<CatalogItem>) -> (usize, Vec<u8>) {
        let mut limits = Limits::default();
        let repositories: Vec<_> = items
            .into_iter()
            .take_while(|one| limits.admit(one))
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
            // Each quote is two bytes in JSON.
            facts: "\"".repeat(facts),
        }
    }

    #[test]
    fn a_list_has_as_many_names_as_the_edge_can_cache() {
        for (facts, all) in [(0, 2000), (100, 2000), (1000, 500), (7000, 100)] {
            let items = |count| (0..count).map(|number| item(number, facts)).collect();
            let (names, body) = cut(items(all));
            assert!(0 < names && names < all, "{facts}");
            assert!(body.len() <= MAX_BYTES, "{facts}: {}", body.len());
            // One more would not fit.
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
            assert!(placed.is_some(), "{facts}: the edge caches it");
        }
    }

    #[test]
    fn a_list_has_no_gaps() {
        let items = vec![item(0, 1), item(1, MAX_BYTES), item(2, 1)];
        assert_eq!(cut(items).0, 1);
    }
}
