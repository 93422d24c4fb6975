//! Which store paths share a layer.
//!
//! An image may have about a hundred layers, a closure has up to thousands of store paths. A good
//! grouping lets two images share as many bytes as possible, so that a machine that has pulled
//! one already has most of the other. What two images share is whatever two packages both need.
//! So the question is, for each path: *who needs it?* If just one package does, it may as well
//! travel with that package. If several do, it deserves a layer of its own. That is exactly what
//! dominators tell.
//!
//! # The graph
//!
//! The closure's references, below a made-up root that stands for the image:
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
//! A path is *dominated* by another when every way from the image to it leads through the other.
//! The dominators of a graph form a tree, and each child of the image in that tree becomes a
//! group, together with all that it dominates:
//!
//! ```text
//!              image
//!            ╱   │   ╲
//!         git  glibc  htop           groups: {git, perl, zlib}
//!        ╱   ╲           ╲                   {glibc}
//!     perl   zlib      ncurses               {htop, ncurses}
//! ```
//!
//! glibc is needed by both git and htop, hence dominated by neither. perl comes with git here; had
//! it been asked for, large or popular, the extra edge from the image would have set it free. That
//! is the use of those edges: they make the same layer appear in images that differ elsewhere.
//!
//! # Rating and order
//!
//! A group's rating is the popularity of the path that heads it times the bytes of its members:
//! what may be saved by having it apart. Layers are ordered by rating, highest first, since clients
//! with a chain of layers (Docker) fetch anew whatever follows the first layer that differs. Ties
//! are broken by content, so that the order depends on nothing else.
//!
//! # Budget
//!
//! While there are more groups than the image may have layers, the two of the lowest rating are
//! merged, their ratings added, *and the result takes its place in the order again*. So the rest
//! beyond the budget spreads evenly:
//!
//! ```text
//!   budget 3      9   7   4   2   1
//!                 9   7   4   [2+1]     = 3
//!                 9   7   [4+[2+1]]     = 7, which is level with the second now
//! ```
//!
//! All of this is a function of closure, popularity and budget alone. Two machines that agree on
//! these make the same layers.

mod plan;
mod popularity;

pub(crate) use plan::plan;
pub(crate) use popularity::Popularity;
