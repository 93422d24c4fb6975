//! A page of the list of images (`/v2/_catalog`, of Docker's registry).
//!
//! ```text
//!   builder: every name with images, and their facts ──► one entry of the cache
//!                                                            │ for each caller
//!              a page of names that can be pulled  ◄── those that the policy allows
//! ```
//!
//! The list is filtered before it is cut into pages: a short page, or a link to an empty one, would reveal
//! that there are more names.

use serde_json::json;

use super::judge::{Case, Judged};
use super::{Caller, Image, Reply, page};
use crate::config::Config;
use crate::distribution::Repository;
use crate::policy::ImageFacts;
use crate::wire::{Catalog, CatalogItem};

/// The page that `path` requests, of the names in the builder's `list` that `caller` may have; none when
/// the list is malformed.
pub(super) fn page(config: &Config, caller: &Caller, path: &str, list: &[u8]) -> Option<Reply> {
    let Catalog { repositories } = Catalog::parse(list)?;
    let names = repositories
        .into_iter()
        .filter(|item| may_have(config, caller, item))
        .map(|CatalogItem { name, .. }| match &config.name_prefix {
            Some(prefix) => format!("{prefix}/{name}"),
            None => name,
        });
    Some(page::of(
        path,
        names.collect(),
        |names| json!({ "repositories": names }),
    ))
}

/// Whether the caller may have any image of that name.
fn may_have(config: &Config, caller: &Caller, item: &CatalogItem) -> bool {
    let image =
        Repository::parse(&item.name).and_then(|name| Image::of(&name, &config.opaque_namespaces));
    image.is_ok_and(|Image { name, written }| {
        let case = Case {
            name: &name,
            written,
            tag: None,
            caller,
        };
        // Malformed facts allow nothing.
        let facts = ImageFacts::parse(&item.facts).unwrap_or_default();
        let judged = case.judge(config, Some(&facts));
        matches!(judged, Judged::Allowed(..))
    })
}
