//! In which order a package set is looked at.
//!
//! ```text
//!   the names of the set ──► chunks ──► packages, and what is none
//!                              ▲    └──► sets with packages in them
//!                              └─────────── their names, when the outer ones are done
//! ```
//!
//! A name may end the evaluation of its whole chunk. The answers before it are kept, and the next chunk
//! begins after it. A chunk that ran out of memory or time begins again where it ended: the name there is
//! to blame only if it is the first one.
//!
//! Sets with packages say so, or are scopes. Of the latter, large ones count only if their names are those of a
//! set that says so: nixpkgs has a dozen versions of Python with 11,000 modules each, and marks two.
//!
//! nixpkgs has sets that are others again (`python3Packages`, `python313Packages`). Nix evaluates a package
//! once in a chunk, however many names it has there. So sets with the same names are looked at side by
//! side.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use nixgate_core::package_set::canonical_path;

use crate::nix::Described;

/// As the package set spells it.
pub(super) type AttributePath = Vec<String>;

/// Names of a chunk. Nix takes about 2.3 MB for each of nixpkgs' and one GiB in all.
const CHUNK: usize = 300;
/// Levels of sets: `linuxKernel.packages.linux_6_12.perf` has four names.
const MAX_DEPTH: usize = 4;
/// Names of an index. nixpkgs has 27,000 at its top, and a few hundred thousand in all.
const MAX_NAMES: usize = 500_000;
/// Names of a scope that does not say that there are packages in it: `xorg` has 230.
const MAX_UNMARKED: usize = 1000;
/// Names that end an evaluation. Each takes a process.
const MAX_FAILED: usize = 3000;
/// What a set of packages has beside them: nixpkgs makes each by one of these.
const SCOPES: [&str; 3] = ["callPackage", "newScope", "overrideScope"];

struct Set {
    path: AttributePath,
    names: Vec<String>,
    /// Whether it says that there are packages in it.
    is_marked: bool,
}

/// How an evaluation ended.
pub(super) enum Ended {
    Whole,
    /// By an error of the name after the last answer; with Nix's reason.
    Failed(String),
    /// By a limit.
    Limit(String),
}

/// What is known of each name so far, and what is left.
pub(super) struct Survey {
    chunks: VecDeque<Vec<AttributePath>>,
    /// Sets whose names come after the chunks.
    sets: Vec<Set>,
    /// What an earlier run has found.
    known: HashMap<AttributePath, Described>,
    names: usize,
    looked_at: usize,
    failed: usize,
}

/// Why a survey ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_FAILED} names cannot be evaluated")]
pub(super) struct TooManyFailed;

impl Survey {
    /// Of a set with these names at its top. `known` is what is not to be looked at again.
    pub(super) fn new(names: Vec<String>, known: HashMap<AttributePath, Described>) -> Self {
        let mut survey = Self {
            chunks: VecDeque::new(),
            sets: Vec::new(),
            known,
            names: 0,
            looked_at: 0,
            failed: 0,
        };
        survey.add(vec![Set {
            path: AttributePath::new(),
            names,
            is_marked: true,
        }]);
        survey
    }

    /// The paths to describe next; none when all are known.
    pub(super) fn next(&mut self) -> Option<Vec<AttributePath>> {
        loop {
            if let Some(chunk) = self.chunks.pop_front() {
                return Some(chunk);
            }
            if self.sets.is_empty() {
                return None;
            }
            let sets = std::mem::take(&mut self.sets);
            self.add(sets);
        }
    }

    /// Takes the answers to a chunk: what is known now.
    pub(super) fn answered(
        &mut self,
        mut chunk: Vec<AttributePath>,
        answers: Vec<Described>,
        ended: Ended,
    ) -> Result<Vec<(AttributePath, Described)>, TooManyFailed> {
        let rest = chunk.split_off(answers.len().min(chunk.len()));
        let is_first = chunk.is_empty();
        let mut learnt: Vec<_> = chunk.into_iter().zip(answers).collect();
        let mut rest = VecDeque::from(rest);
        let reason = match ended {
            Ended::Whole => None,
            Ended::Failed(reason) => Some(reason),
            Ended::Limit(reason) => is_first.then_some(reason),
        };
        if let (Some(reason), Some(path)) = (reason, rest.front().cloned()) {
            rest.pop_front();
            self.failed += 1;
            learnt.push((path, Described::Failed { reason }));
        }
        if self.failed > MAX_FAILED {
            return Err(TooManyFailed);
        }
        if !rest.is_empty() {
            self.chunks.push_front(rest.into());
        }
        self.looked_at += learnt.len();
        for (path, described) in &learnt {
            self.find_set(path, described);
        }
        Ok(learnt)
    }

    /// Names that were looked at, of all that are known of.
    pub(super) const fn progress(&self) -> (usize, usize) {
        (self.looked_at, self.names)
    }

    /// Keeps a set whose names are to be looked at.
    fn find_set(&mut self, path: &AttributePath, described: &Described) {
        let Described::Set { names, recurse } = described else {
            return;
        };
        let is_scope = names.iter().any(|name| SCOPES.contains(&name.as_str()));
        if (*recurse || is_scope) && path.len() < MAX_DEPTH {
            self.sets.push(Set {
                path: path.clone(),
                names: names.clone(),
                is_marked: *recurse,
            });
        }
    }

    /// Makes chunks of the names of sets.
    fn add(&mut self, sets: Vec<Set>) {
        let mut alike: BTreeMap<Vec<String>, (bool, Vec<AttributePath>)> = BTreeMap::new();
        for set in sets {
            let (is_marked, outer) = alike.entry(reachable(set.names)).or_default();
            *is_marked |= set.is_marked;
            outer.push(set.path);
        }
        for (names, (is_marked, outer)) in alike {
            if !is_marked && names.len() > MAX_UNMARKED {
                continue;
            }
            let mut paths = Vec::new();
            for name in names {
                for path in &outer {
                    let mut path = path.clone();
                    path.push(name.clone());
                    paths.push(path);
                }
            }
            let room = MAX_NAMES.saturating_sub(self.names);
            if paths.len() > room {
                let left_out = paths.len() - room;
                tracing::warn!(left_out, "the package set has too many names for an index");
                paths.truncate(room);
            }
            self.names += paths.len();
            let mut unknown = Vec::new();
            for path in paths {
                match self.known.remove(&path) {
                    Some(described) => {
                        self.looked_at += 1;
                        self.failed += usize::from(matches!(described, Described::Failed { .. }));
                        self.find_set(&path, &described);
                    }
                    None => unknown.push(path),
                }
            }
            self.chunks.extend(unknown.chunks(CHUNK).map(<[_]>::to_vec));
        }
    }
}

/// Those of a set's names that clients can reach, sorted. Images' names are in lower case: of names that are
/// the same to them, only one is reached (`spelling` in `nix/resolve.nix`).
pub(super) fn reachable(mut names: Vec<String>) -> Vec<String> {
    names.sort_by_key(|name| {
        let canonical = canonical_path(name);
        let is_lower = *name == canonical;
        let has_mark = name.len() > canonical.len();
        (!is_lower, has_mark, name.clone())
    });
    let mut seen = HashSet::new();
    names.retain(|name| !name.contains('.') && seen.insert(canonical_path(name)));
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn path(path: &str) -> AttributePath {
        path.split('.').map(str::to_owned).collect()
    }

    fn set(names: &[&str], recurse: bool) -> Described {
        let names = strings(names);
        Described::Set { names, recurse }
    }

    /// Looks at everything as `describe` says; the paths in the order in which they became known.
    fn run(mut survey: Survey, describe: impl Fn(&str) -> Option<Described>) -> Vec<String> {
        let mut learnt = Vec::new();
        while let Some(chunk) = survey.next() {
            let answers: Vec<_> = chunk
                .iter()
                .map_while(|path| describe(&path.join(".")))
                .collect();
            let ended = match answers.len() == chunk.len() {
                true => Ended::Whole,
                false => Ended::Failed("no".to_owned()),
            };
            let new = survey.answered(chunk, answers, ended).unwrap();
            learnt.extend(new.into_iter().map(|(path, described)| {
                let mark = match described {
                    Described::Failed { .. } => "!",
                    _ => "",
                };
                format!("{mark}{}", path.join("."))
            }));
        }
        learnt
    }

    #[test]
    fn sets_come_after_the_names_beside_them_and_those_alike_side_by_side() {
        let survey = Survey::new(
            strings(&["py3", "py313", "git", "lib", "scope"]),
            HashMap::new(),
        );
        let found = run(survey, |path| {
            Some(match path {
                "py3" | "py313" => set(&["a", "b"], true),
                "scope" => set(&["callPackage", "c"], false),
                "lib" => set(&["d"], false),
                _ => Described::Other,
            })
        });
        let expected =
            "git lib py3 py313 scope py3.a py313.a py3.b py313.b scope.c scope.callPackage";
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn a_large_scope_counts_only_beside_one_like_it_that_is_marked() {
        let many = |end: &str| -> Vec<String> {
            let names = (0..MAX_UNMARKED).map(|number| format!("m{number:05}"));
            names
                .chain(["callPackage".to_owned(), end.to_owned()])
                .collect()
        };
        let survey = Survey::new(strings(&["py3", "py313", "pypy"]), HashMap::new());
        let found = run(survey, |path| {
            let (names, recurse) = match path {
                "py3" => (many("x"), false),
                "py313" => (many("x"), true),
                "pypy" => (many("y"), false),
                _ => return Some(Described::Other),
            };
            Some(Described::Set { names, recurse })
        });
        assert!(found.iter().any(|path| path == "py3.x"));
        assert!(!found.iter().any(|path| path.starts_with("pypy.")));
        assert_eq!(found.len(), 3 + 2 * (MAX_UNMARKED + 2));
    }

    #[test]
    fn a_name_that_ends_the_evaluation_costs_no_answer_of_others() {
        let survey = Survey::new(strings(&["a", "b", "c", "d"]), HashMap::new());
        let found = run(survey, |path| (path != "b").then_some(Described::Other));
        assert_eq!(found, ["a", "!b", "c", "d"]);
    }

    #[test]
    fn a_limit_is_the_fault_of_a_name_that_is_alone() {
        let mut survey = Survey::new(strings(&["a", "b"]), HashMap::new());
        let chunk = survey.next().unwrap();
        let limit = || Ended::Limit("memory".to_owned());
        let learnt = survey.answered(chunk, vec![Described::Other], limit());
        assert_eq!(learnt.unwrap(), [(path("a"), Described::Other)]);
        let chunk = survey.next().unwrap();
        assert_eq!(chunk, [path("b")]);
        let learnt = survey.answered(chunk, Vec::new(), limit()).unwrap();
        assert!(matches!(learnt[..], [(_, Described::Failed { .. })]));
        assert_eq!(survey.next(), None);
        assert_eq!(survey.progress(), (2, 2));
    }

    #[test]
    fn the_names_that_fail_are_bounded() {
        let names: Vec<_> = (0..2 * MAX_FAILED)
            .map(|number| number.to_string())
            .collect();
        let mut survey = Survey::new(names, HashMap::new());
        let mut asked = 0;
        loop {
            let chunk = survey.next().unwrap();
            asked += 1;
            let failed = Ended::Failed(String::new());
            if survey.answered(chunk, Vec::new(), failed).is_err() {
                break;
            }
        }
        assert_eq!(asked, MAX_FAILED + 1);
    }

    #[test]
    fn what_is_known_is_not_looked_at_again() {
        let known = [
            ("a", Described::Other),
            ("s", set(&["x", "y"], true)),
            ("s.x", Described::Other),
        ];
        let known = known.map(|(name, described)| (path(name), described));
        let survey = Survey::new(strings(&["a", "b", "s"]), known.into());
        assert_eq!(run(survey, |_| Some(Described::Other)), ["b", "s.y"]);
    }

    #[test]
    fn of_names_that_are_the_same_to_clients_the_reachable_one_counts() {
        let names = strings(&["Git", "git", "_1password", "Htop", "hTOP", "a.b"]);
        assert_eq!(reachable(names), ["Htop", "_1password", "git"]);
    }
}
