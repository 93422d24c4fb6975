//! `GET /v2/_catalog`: the names that can be pulled without a build, for the edge to choose from.
//!
//! One listing says of all images which there are; those are read that are not remembered. A name is
//! in storage by its fingerprint alone, and a record has what it was made of: who may share storage
//! has other fingerprints for the same packages, and is left out by that.

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
use crate::builder::Builder;
use crate::recipes::Recipes;
use crate::wanted::Wanted;

/// Names that are listed, those first that were built or had by another tag last. The list is kept
/// as one entry of the edge's cache, which takes 256 KiB, and it is judged as a whole for each
/// caller.
const MAX_NAMES: usize = 1000;
/// Names that are read at once.
const NAMES_AT_ONCE: usize = 8;
/// For how long the list holds, in seconds.
const MAX_AGE: u64 = 60;

impl<B: Builder> App<B> {
    /// The names of which there are images, with what the edge's policy has to know of these.
    pub(super) async fn catalog(
        &self,
        request: &Request<Incoming>,
    ) -> Result<Response<Body>, Error> {
        let rules = facts::rules_of(request)?;
        let at = Instant::now();
        let names = self.storage.all_facts().await.map_err(unready)?;
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|(_, facts)| Reverse(facts.iter().map(|fact| fact.written).max()));
        let recipes = self.recipes.current();
        let items = names.into_iter().map(|(name, facts)| {
            let (rules, recipes) = (&rules, &recipes);
            async move {
                let images = self.images.listed(&self.storage, &name, facts, at).await;
                Ok(self.item(&name, images.map_err(unready)?, rules, recipes))
            }
        });
        let items = stream::iter(items).buffered(NAMES_AT_ONCE);
        let items = items.try_filter_map(|item| ready(Ok::<_, Error>(item)));
        let mut repositories: Vec<_> = items.take(MAX_NAMES).try_collect().await?;
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

    /// What is said of a name with these images; none when it is no name of this builder's.
    fn item(
        &self,
        name: &str,
        images: Vec<Image>,
        rules: &FactRules,
        recipes: &Recipes,
    ) -> Option<CatalogItem> {
        let record = &images.first()?.record;
        let system = (record.system != self.system).then_some(record.system.architecture());
        let packages = record.packages.iter().map(String::as_str);
        let written: Vec<&str> = match &record.opaque_name {
            Some(opaque) => vec![opaque],
            None => system.into_iter().chain(packages).collect(),
        };
        // A recipe may be no more.
        let repository = Repository::parse(&written.join("/")).ok()?;
        let wanted = Wanted::of(&repository, recipes, self.system).ok()?;
        (self.link_folder(&wanted) == name).then(|| CatalogItem {
            name: wanted.short_name(),
            facts: facts::header(images, rules),
        })
    }
}
