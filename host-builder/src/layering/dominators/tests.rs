//! Examples drawn as edges, and properties over random closures.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::closure::PathInfo;
use crate::layering::tests::check_groups;

fn path(name: &str) -> StorePath {
    format!("/nix/store/{}-{name}", "0".repeat(32))
        .parse()
        .unwrap()
}

fn budget(layers: usize) -> NonZeroUsize {
    NonZeroUsize::new(layers).unwrap()
}

/// A closure of `(name, bytes, references)`.
fn closure(roots: &[&str], paths: &[(&str, u64, &[&str])]) -> Closure {
    let records = paths
        .iter()
        .map(|&(name, nar_size, references)| {
            let info = PathInfo {
                nar_hash: String::new(),
                nar_size,
                references: references.iter().map(|name| path(name)).collect(),
            };
            (path(name), info)
        })
        .collect();
    Closure::new(roots.iter().map(|name| path(name)), records).unwrap()
}

fn popularity(counts: &[(&str, u64)]) -> Popularity {
    counts
        .iter()
        .map(|&(name, count)| (name.to_owned(), count))
        .collect()
}

fn check(plan: &[Group], expected: &Expect) {
    let mut shown = String::new();
    for group in plan {
        let names: Vec<&str> = group.paths.iter().map(StorePath::name).collect();
        writeln!(shown, "{}: {}", group.rating, names.join(" ")).unwrap();
    }
    expected.assert_eq(&shown);
}

#[test]
fn a_dependency_shares_the_layer_of_its_only_user_and_a_shared_one_has_its_own() {
    let closure = closure(
        &["git", "htop"],
        &[
            ("git", 40, &["perl", "zlib"]),
            ("htop", 5, &["glibc", "ncurses"]),
            ("perl", 50, &["glibc"]),
            ("zlib", 1, &["glibc"]),
            ("ncurses", 3, &["glibc"]),
            ("glibc", 30, &[]),
        ],
    );
    check(
        &plan(&closure, &Popularity::default(), budget(94)),
        &expect![[r#"
            91: git perl zlib
            30: glibc
            8: htop ncurses
        "#]],
    );
}

#[test]
fn popular_paths_are_apart_and_first() {
    let closure = closure(
        &["git"],
        &[
            ("git", 40, &["perl", "zlib", "nss-cacert-3.98"]),
            ("perl", 50, &[]),
            ("zlib", 1, &[]),
            ("nss-cacert-3.98", 1, &[]),
        ],
    );
    check(
        &plan(
            &closure,
            &popularity(&[("perl", 999), ("zlib", 1000)]),
            budget(94),
        ),
        &expect![[r#"
            4294967295: nss-cacert-3.98
            1000: zlib
            90: git perl
        "#]],
    );
}

#[test]
fn a_path_is_apart_when_its_closure_is_large_although_its_own_size_is_not() {
    let closure = closure(
        &["app"],
        &[
            ("app", 1, &["wrapper", "plain"]),
            ("wrapper", 2, &["engine", "data"]),
            ("engine", 50_000_001, &[]),
            ("data", 50_000_000, &[]),
            ("plain", 100_000_000, &[]),
        ],
    );
    // `plain` is at the limit, not over it; `engine` and `data` are small on their own.
    check(
        &plan(&closure, &Popularity::default(), budget(94)),
        &expect![[r#"
            100000003: data engine wrapper
            100000001: app plain
        "#]],
    );
}

#[test]
fn a_shared_dependency_counts_once_in_a_closure_s_size() {
    let closure = closure(
        &["app"],
        &[
            ("app", 1, &["left", "right", "other"]),
            ("left", 1, &["shared"]),
            ("right", 1, &["shared"]),
            ("other", 1, &["left", "right"]),
            ("shared", 60_000_000, &[]),
        ],
    );
    assert_eq!(plan(&closure, &Popularity::default(), budget(94)).len(), 1);
}

#[test]
fn beyond_the_budget_the_lowest_rated_are_merged_in_order() {
    let closure = closure(
        &["a", "b", "c", "d", "e"],
        &[
            ("a", 9, &[]),
            ("b", 7, &[]),
            ("c", 4, &[]),
            ("d", 2, &[]),
            ("e", 1, &[]),
        ],
    );
    check(
        &plan(&closure, &Popularity::default(), budget(3)),
        &expect![[r#"
            9: a
            7: b
            7: c d e
        "#]],
    );
    check(
        &plan(&closure, &Popularity::default(), budget(1)),
        &expect![[r#"
            23: a b c d e
        "#]],
    );
}

#[test]
fn the_excess_spreads_over_all_layers() {
    let names: Vec<String> = (0..1000).map(|i| format!("package-{i:04}x")).collect();
    let roots: Vec<&str> = names.iter().map(String::as_str).collect();
    let paths: Vec<(&str, u64, &[&str])> = roots
        .iter()
        .map(|&name| (name, 10, [].as_slice()))
        .collect();
    let plan = plan(&closure(&roots, &paths), &Popularity::default(), budget(94));
    let largest = plan.iter().map(|group| group.paths.len()).max().unwrap();
    assert_eq!(plan.len(), 94);
    assert!(
        largest <= 2 * 1000_usize.div_ceil(94),
        "one layer holds {largest} of 1000 paths"
    );
}

#[test]
fn ratings_saturate() {
    let closure = closure(
        &["nss-cacert", "iana-etc"],
        &[("nss-cacert", u64::MAX, &[]), ("iana-etc", u64::MAX, &[])],
    );
    check(
        &plan(&closure, &Popularity::default(), budget(1)),
        &expect![[r#"
            18446744073709551615: iana-etc nss-cacert
        "#]],
    );
}

#[test]
fn a_cycle_is_grouped_like_anything_else() {
    let closure = closure(
        &["a"],
        &[("a", 1, &["b"]), ("b", 2, &["c"]), ("c", 3, &["b"])],
    );
    check(
        &plan(&closure, &Popularity::default(), budget(94)),
        &expect![[r#"
            6: a b c
        "#]],
    );
}

/// The dominators of a long chain and of a dense graph are where a naive way would be quadratic.
/// In a debug build, on a slow machine, this stays far below the limit.
#[test]
fn five_thousand_paths_are_planned_at_once() {
    let count = 5000_usize;
    let names: Vec<String> = (0..count).map(|i| format!("p{i}")).collect();
    let references: Vec<Vec<&str>> = (0..count)
        .map(|i| {
            (1..=10)
                .map(|j| i + j * j)
                .filter(|&k| k < count)
                .map(|k| names[k].as_str())
                .collect()
        })
        .collect();
    let paths: Vec<(&str, u64, &[&str])> = names
        .iter()
        .zip(&references)
        .map(|(name, to)| (name.as_str(), 100_000, to.as_slice()))
        .collect();
    let closure = closure(&["p0"], &paths);

    let start = std::time::Instant::now();
    let plan = plan(&closure, &Popularity::default(), budget(94));
    assert_eq!(plan.len(), 94);
    assert!(start.elapsed().as_secs() < 10, "took {:?}", start.elapsed());
}

/// Random paths `(bytes, references to later paths)`, with names that make some of them popular.
fn random_records() -> impl Strategy<Value = Vec<(StorePath, PathInfo)>> {
    let one = (
        0..150_000_000_u64,
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    );
    prop::collection::vec(one, 1..40).prop_map(|shapes| {
        let name = |i: usize| path(&format!("p{i}"));
        let count = shapes.len();
        let info = |i: usize, nar_size, to: Vec<prop::sample::Index>| PathInfo {
            nar_hash: String::new(),
            nar_size,
            references: to
                .iter()
                .map(|to| name(to.index(count)))
                .filter(|to| *to != name(i))
                .collect(),
        };
        shapes
            .into_iter()
            .enumerate()
            .map(|(i, (size, to))| (name(i), info(i, size, to)))
            .collect()
    })
}

proptest! {
    #[test]
    fn each_path_is_in_one_layer_and_the_order_of_the_input_is_nothing(
        (records, shuffled) in random_records()
            .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle())),
        wanted in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        layers in 1..20_usize,
    ) {
        let roots: Vec<StorePath> =
            wanted.iter().map(|index| records[index.index(records.len())].0.clone()).collect();
        let popularity = popularity(&[("p1", 1000), ("p2", 7), ("p3", 1_000_000)]);
        let closure = Closure::new(roots.clone(), records.into_iter().collect()).unwrap();
        let planned = plan(&closure, &popularity, budget(layers));

        let again = Closure::new(roots.into_iter().rev(), shuffled.into_iter().collect()).unwrap();
        prop_assert_eq!(&planned, &plan(&again, &popularity, budget(layers)));

        check_groups(&closure, layers, &planned)?;
    }

    /// The definition, checked by brute force: in a group of two or more, taking away the head
    /// leaves no way from the image to any other member.
    #[test]
    fn nothing_outside_a_group_needs_more_of_it_than_its_head(
        records in random_records(),
        wanted in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let roots: Vec<StorePath> =
            wanted.iter().map(|index| records[index.index(records.len())].0.clone()).collect();
        let closure = Closure::new(roots, records.into_iter().collect()).unwrap();
        for group in plan(&closure, &Popularity::default(), budget(usize::MAX)) {
            let entrances: BTreeSet<&StorePath> = closure
                .paths()
                .iter()
                .filter(|(path, _)| !group.paths.contains(path))
                .flat_map(|(_, info)| &info.references)
                .chain(closure.roots())
                .filter(|path| group.paths.contains(path))
                .collect();
            prop_assert!(entrances.len() <= 1, "{entrances:?}");
        }
    }
}
