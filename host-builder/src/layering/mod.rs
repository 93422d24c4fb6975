//! Which store paths share a layer.
//!
//! An image has up to about a hundred layers, a closure up to thousands of store paths. A good grouping
//! lets images share as many bytes as possible, so that a machine that has pulled one has most of the
//! next. There are two: by [dominators], the default; and by the cost
//! of sharing.
//!
//! # The cost of sharing
//!
//! Two paths in one layer are pulled, packed and stored together. That is in vain when
//!
//! - another image has only one of them: its layer is another, with the same path in it again;
//! - one of them changes: the other comes with it;
//! - something happens that can't be seen in this closure.
//!
//! The closure tells much about other images, since each of its paths may be a package of one. An image
//! that has a path has all that it needs:
//!
//! ```text
//!        git     htop             {zlib, glibc}   git and zlib need both, htop, perl and ncurses a part
//!       ╱   ╲   ╱    ╲            {perl, zlib}    git needs both, perl and zlib a part
//!   perl    zlib    ncurses       {git, perl}     git needs both, perl a part
//!       ╲    │    ╱
//!          glibc
//! ```
//!
//! For a group of paths, some paths need all of it and some only a part. The more of the latter, the
//! likelier an image has only a part; the more a group needs, the likelier it changes. That chance times
//! the group's bytes is its cost (`sharing.rs`).
//!
//! ```text
//!   each path alone ── merge the pair that costs least ──► as many groups as layers
//!                   ── merge small groups with each other ──► no more than five small layers
//! ```
//!
//! So paths that the same paths need share a layer at once, for nothing; large ones stay alone; and small
//! ones, of which hundreds are a tenth of an image's bytes, share layers with their like.
//!
//! Packages of every image are a layer of their own, the first; then comes the largest layer. Clients with
//! a chain of layers (Docker's older storage) pull everything after the first layer that differs. By
//! measurement, this order saves them more than one by the number of paths that need a layer.
//!
//! The result depends on closure and budget alone (of dominators, on popularity too), so all machines make
//! the same layers. `docs/src/layers.md` compares it with other groupings.

mod dominators;
mod popularity;
mod reach;
mod sharing;

use std::num::NonZeroUsize;

use crate::closure::{Closure, StorePath};

pub(crate) use popularity::Popularity;

/// Store paths that share a layer. Ordered by rating, then by content: the order of merging.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    /// By dominators, popularity times bytes; else bytes.
    pub(crate) rating: u64,
    /// Sorted.
    pub(crate) paths: Vec<StorePath>,
}

/// How paths are grouped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Layering {
    /// By dominators and popularity, as Nixery does.
    #[default]
    Dominators,
    /// By what it costs to share a layer.
    Sharing,
}

impl Layering {
    /// Part of the key of an image. Must change whenever the same closure gives other groups.
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Layering::Sharing => "sharing-1",
            Layering::Dominators => "dominators-1",
        }
    }

    /// Groups the paths of a closure into at most `budget` layers, highest rating first. Each path of the
    /// closure is in exactly one.
    pub(crate) fn plan(
        self,
        closure: &Closure,
        popularity: &Popularity,
        budget: NonZeroUsize,
    ) -> Vec<Group> {
        match self {
            Layering::Sharing => sharing::plan(closure, budget),
            Layering::Dominators => dominators::plan(closure, popularity, budget),
        }
    }
}

#[cfg(test)]
mod tests;
