//! A page of the list of images (`/v2/_catalog`, of Docker's registry).
//!
//! ```text
//!   builder: every name that it has images of, with their facts ──► one entry of the cache
//!                                                                     │ for each caller
//!              a page, under the names that can be pulled  ◄── what the policy lets it have
//! ```
//!
//! The pages are cut from what the caller may have, never before: a page that is short, or a link
//! to the next one, would tell that there are others.

use serde_json::json;

use super::judge::{Case, Judged};
use super::{Caller, Image, Reply, page};
use crate::config::Config;
use crate::distribution::Repository;
use crate::policy::ImageFacts;
use crate::wire::{Catalog, CatalogItem};

/// The page that `path` asks for, of what `caller` may have of the builder's `list`. None when the
/// list is none.
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

/// Whether the caller may have an image of that name, as of a blob: one of those that there are.
fn may_have(config: &Config, caller: &Caller, item: &CatalogItem) -> bool {
    let image = Repository::parse(&item.name).and_then(|name| Image::of(&name));
    image.is_ok_and(|Image { packages, written }| {
        let case = Case {
            packages: &packages,
            written,
            tag: None,
            caller,
        };
        // Those that can't be read allow nothing.
        let facts = ImageFacts::parse(&item.facts).unwrap_or_default();
        let judged = case.judge(config, Some(&facts));
        matches!(judged, Judged::Allowed(..))
    })
}
