//! Which store paths share a layer.
//!
//! An image has up to about a hundred layers, a closure up to thousands of store paths. A good grouping
//! lets images share as many bytes as possible, so that a machine that has pulled one has most of the
//! next. Images share what their packages have in common. So a path that one package needs goes into
//! that package's layer; a path that several need gets its own. Dominators tell which is which.
//!
//! # The graph
//!
//! The closure's references, below a root that stands for the image:
//!
//! ```text
//!                  image                     an edge from the image to
//!               ╱    │   ╲                     · each requested package
//!             git  htop   ╲                    · each path whose own closure is
//!            ╱   ╲   │ ╲   ╲                     larger than 100 MB
//!         perl  zlib │ ncurses ╲               · each path that is popular
//!            ╲    ╲  │  ╱       ╲
//!             ╰────▶ glibc ◀─────╯
//! ```
//!
//! # Dominators
//!
//! One path *dominates* another if every way from the image to the other leads through it. The
//! dominators of a graph form a tree. Each child of the image in that tree becomes a group, with all
//! that it dominates:
//!
//! ```text
//!              image
//!            ╱   │   ╲
//!         git  glibc  htop           groups: {git, perl, zlib}
//!        ╱   ╲           ╲                   {glibc}
//!     perl   zlib      ncurses               {htop, ncurses}
//! ```
//!
//! Both git and htop need glibc, so neither dominates it. perl is in git's group here; if it were
//! requested, large or popular, its edge from the image would give it its own. These edges make the
//! same layer appear in images that differ elsewhere.
//!
//! # Rating and order
//!
//! A group's rating is the popularity of its head times the bytes of its members: the bytes that a
//! layer of its own may save. Layers are ordered by rating, highest first, since clients with a chain
//! of layers (Docker) fetch everything after the first layer that differs. Content breaks ties, so the
//! order is deterministic.
//!
//! # Budget
//!
//! While there are more groups than layers, the two with the lowest ratings are merged, their ratings
//! added, *and the result is sorted in again*. So groups beyond the budget spread evenly:
//!
//! ```text
//!   budget 3      9   7   4   2   1
//!                 9   7   4   [2+1]     = 3
//!                 9   7   [4+[2+1]]     = 7, as high as the second
//! ```
//!
//! The result depends on closure, popularity and budget alone, so all machines make the same layers.

mod plan;
mod popularity;

pub(crate) use plan::plan;
pub(crate) use popularity::Popularity;
