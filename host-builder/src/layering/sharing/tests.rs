//! Examples, and properties over random closures.

use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::closure::PathInfo;
use crate::layering::tests::check_groups;

const MB: u64 = 1_000_000;

/// A path of this name, with a hash that a revision changes.
fn path(name: &str, revision: char) -> StorePath {
    let hash = revision.to_string().repeat(32);
    format!("/nix/store/{hash}-{name}").parse().unwrap()
}

fn budget(layers: usize) -> NonZeroUsize {
    NonZeroUsize::new(layers).unwrap()
}

/// A closure of `(name, bytes, references)`.
fn closure(roots: &[&str], paths: &[(&str, u64, &[&str])]) -> Closure {
    let records = paths.iter().map(|&(name, nar_size, references)| {
        let info = PathInfo {
            nar_hash: String::new(),
            nar_size,
            references: references.iter().map(|name| path(name, '0')).collect(),
        };
        (path(name, '0'), info)
    });
    Closure::new(roots.iter().map(|name| path(name, '0')), records.collect()).unwrap()
}

fn names(plan: &[Group]) -> Vec<String> {
    let names = |group: &Group| {
        let names: Vec<&str> = group.paths.iter().map(StorePath::name).collect();
        names.join(" ")
    };
    plan.iter().map(names).collect()
}

fn check(plan: &[Group], expected: &Expect) {
    expected.assert_eq(&names(plan).join("\n"));
}

#[test]
fn each_path_is_alone_while_there_are_layers_and_the_largest_is_first() {
    let closure = closure(
        &["git", "htop", "nss-cacert-3", "iana-etc-1"],
        &[
            ("git", 40 * MB, &["perl", "zlib"]),
            ("htop", 5 * MB, &["glibc"]),
            ("perl", 50 * MB, &["glibc"]),
            ("zlib", MB, &["glibc"]),
            ("glibc", 30 * MB, &[]),
            ("nss-cacert-3", MB, &[]),
            ("iana-etc-1", MB, &[]),
        ],
    );
    check(
        &plan(&closure, budget(64)),
        &expect![[r#"
            iana-etc-1 nss-cacert-3
            perl
            git
            glibc
            htop
            zlib"#]],
    );
    check(
        &plan(&closure, budget(1)),
        &expect!["git glibc htop iana-etc-1 nss-cacert-3 perl zlib"],
    );
}

#[test]
fn paths_that_the_same_paths_need_share_a_layer_before_others() {
    let closure = closure(
        &["editor", "shell"],
        &[
            ("editor", 9 * MB, &["libx11", "libxcb", "readline"]),
            ("shell", 9 * MB, &["readline"]),
            ("libx11", 2 * MB, &[]),
            ("libxcb", 2 * MB, &[]),
            ("readline", 2 * MB, &[]),
        ],
    );
    check(
        &plan(&closure, budget(4)),
        &expect![[r#"
            editor
            shell
            libx11 libxcb
            readline"#]],
    );
}

#[test]
fn a_large_path_stays_alone_and_small_ones_share() {
    let closure = closure(
        &["app"],
        &[
            ("app", 90 * MB, &["data", "one", "two", "three"]),
            ("data", 100 * MB, &[]),
            ("one", MB, &[]),
            ("two", MB, &[]),
            ("three", MB, &[]),
        ],
    );
    check(
        &plan(&closure, budget(3)),
        &expect![[r#"
            data
            app
            one three two"#]],
    );
}

#[test]
fn small_layers_are_few_although_there_is_room_for_more() {
    let names: Vec<String> = (0..60).map(|i| format!("p{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut paths: Vec<(&str, u64, &[&str])> = names
        .iter()
        .map(|&name| (name, 100_000, [].as_slice()))
        .collect();
    paths.push(("app", 90 * MB, &names));
    let groups = plan(&closure(&["app"], &paths), budget(64));
    let small = |group: &&Group| group.paths.len() < 7;
    assert_eq!(
        groups.iter().filter(small).count(),
        SMALL_LAYERS + 1,
        "{:?}",
        names_of(&groups)
    );
    assert!(
        groups
            .iter()
            .any(|group| names_of(std::slice::from_ref(group)) == ["app"])
    );
}

fn names_of(plan: &[Group]) -> Vec<String> {
    names(plan)
}

#[test]
fn a_cycle_and_sizes_out_of_range_are_grouped_like_anything_else() {
    let closure = closure(
        &["a"],
        &[
            ("a", u64::MAX, &["b"]),
            ("b", u64::MAX, &["c"]),
            ("c", 0, &["b"]),
        ],
    );
    assert_eq!(plan(&closure, budget(1)).len(), 1);
    assert_eq!(plan(&closure, budget(9)).len(), 3);
}

/// Of a closure with more paths than are compared, all are placed, and the largest are not in bins.
#[test]
fn the_smallest_paths_of_a_large_closure_begin_in_bins() {
    let names: Vec<String> = (0..1000).map(|i| format!("p{i}x")).collect();
    let paths: Vec<(&str, u64, &[&str])> = names
        .iter()
        .zip(0..)
        .map(|(name, i)| (name.as_str(), MB + i * 1000, [].as_slice()))
        .collect();
    let roots: Vec<&str> = names.iter().map(String::as_str).collect();
    let groups = plan(&closure(&roots, &paths), budget(600));
    assert_eq!(
        groups.iter().map(|group| group.paths.len()).sum::<usize>(),
        1000
    );
    let alone = groups.iter().filter(|group| group.paths.len() == 1).count();
    assert!(alone >= COMPARED - BINS, "{alone}");
    assert!(groups.len() <= COMPARED);
}

/// Random paths `(bytes, references to later paths)`.
type Shape = Vec<(u64, Vec<prop::sample::Index>)>;

fn shapes() -> impl Strategy<Value = Shape> {
    let bytes = prop_oneof![0..MB, 0..150 * MB];
    prop::collection::vec(
        (
            bytes,
            prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ),
        1..40,
    )
}

/// The closure of a shape's paths, all of them roots; `changed` and all that need it have other hashes.
fn of_shape(shape: &Shape, changed: Option<usize>, is_reversed: bool) -> Closure {
    let count = shape.len();
    let mut is_changed = vec![false; count];
    let references = |at: usize| -> Vec<usize> {
        let later = count - at - 1;
        let to = shape[at].1.iter().filter(|_| later > 0);
        to.map(|to| at + 1 + to.index(later)).collect()
    };
    for at in (0..count).rev() {
        is_changed[at] = changed == Some(at) || references(at).iter().any(|&to| is_changed[to]);
    }
    let name = |at: usize| path(&format!("p{at:02}"), if is_changed[at] { '1' } else { '0' });
    let mut records: Vec<(StorePath, PathInfo)> = (0..count)
        .map(|at| {
            let info = PathInfo {
                nar_hash: String::new(),
                nar_size: shape[at].0,
                references: references(at).into_iter().map(name).collect(),
            };
            (name(at), info)
        })
        .collect();
    if is_reversed {
        records.reverse();
    }
    Closure::new((0..count).map(name), records.into_iter().collect()).unwrap()
}

proptest! {
    #[test]
    fn each_path_is_in_one_layer_and_the_order_of_the_input_is_nothing(
        shape in shapes(),
        layers in 1..20_usize,
    ) {
        let closure = of_shape(&shape, None, false);
        let planned = plan(&closure, budget(layers));
        prop_assert_eq!(&planned, &plan(&of_shape(&shape, None, true), budget(layers)));
        check_groups(&closure, layers, &planned)?;
        let small = planned.iter().filter(|group| {
            group.paths.iter().map(|path| closure.paths()[path].nar_size).sum::<u64>() < SMALL
        });
        prop_assert!(small.count() <= SMALL_LAYERS);
    }

    /// A layer without changed paths stays as it was.
    #[test]
    fn a_change_keeps_the_grouping(
        shape in shapes(),
        changed in any::<prop::sample::Index>(),
        layers in 1..20_usize,
    ) {
        let before = plan(&of_shape(&shape, None, false), budget(layers));
        let changed = Some(changed.index(shape.len()));
        let after = plan(&of_shape(&shape, changed, false), budget(layers));
        let sorted = |plan: &[Group]| {
            let groups = plan.iter().map(|group| {
                group.paths.iter().map(|path| path.name().to_owned()).collect::<BTreeSet<_>>()
            });
            groups.collect::<Vec<_>>()
        };
        prop_assert_eq!(sorted(&before), sorted(&after));
    }
}
