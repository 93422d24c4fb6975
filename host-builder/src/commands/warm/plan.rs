//! Which packages and recipes a policy allows to anybody at all. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nixgate_core::distribution::{Repository, Tag};
use nixgate_core::package_set::{System, with_parents};
use nixgate_core::policy::{Glob, Mode, Pattern, Rule};

use crate::request::recipes::Recipes;
use crate::source::package_index::PackageIndex;

/// A package or a recipe that is to be built.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wish {
    pub(super) name: String,
    pub(super) system: System,
    pub(super) tag: Tag,
    /// It is named, and not merely matched by a pattern: that there is no such thing is an error.
    pub(super) literal: bool,
    /// It is an opaque name.
    pub(super) is_recipe: bool,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.name, self.tag, self.system.nix())
    }
}

/// Under which tags and for which platforms something is allowed. `default` is the platform of
/// rules that are for every one: more may be allowed than can be built here.
pub(super) fn scopes(rules: &[Rule], default: System) -> BTreeSet<(Tag, System)> {
    let allowing = rules.iter().filter(|rule| !rule.allow.is_empty());
    allowing
        .flat_map(|rule| {
            let tags = rule.tags().iter();
            tags.flat_map(move |tag| {
                let systems = systems(rule, default).into_iter();
                systems.map(|system| (tag.clone(), system))
            })
        })
        .collect()
}

fn systems(rule: &Rule, default: System) -> BTreeSet<System> {
    rule.systems()
        .map_or_else(|| [default].into(), Clone::clone)
}

/// The patterns that are allowed in a scope.
pub(super) fn allowed<'a>(
    rules: &'a [Rule],
    tag: &Tag,
    system: System,
    default: System,
) -> Vec<&'a Glob> {
    let in_scope =
        |rule: &&Rule| rule.tags().contains(tag) && systems(rule, default).contains(&system);
    let allowed = rules.iter().filter(in_scope).flat_map(|rule| &rule.allow);
    allowed.flat_map(|pattern| &pattern.globs).collect()
}

/// What is allowed in a scope, less what is denied to everybody.
pub(super) fn wishes(
    rules: &[Rule],
    tag: &Tag,
    system: System,
    default: System,
    catalogue: &PackageIndex,
) -> Vec<Wish> {
    let names = catalogue.names();
    packages(rules, &allowed(rules, tag, system, default), names)
        .into_iter()
        .map(|(name, literal)| Wish {
            name,
            system,
            tag: tag.clone(),
            literal,
            is_recipe: false,
        })
        .collect()
}

/// Names, and whether they were written out.
fn packages<'a>(
    rules: &[Rule],
    allowed: &[&Glob],
    names: impl Iterator<Item = &'a str>,
) -> BTreeMap<String, bool> {
    let (literal, wild): (Vec<&Glob>, Vec<&Glob>) =
        allowed.iter().partition(|glob| glob.is_literal());
    let matched = names.filter(|name| wild.iter().any(|glob| glob.matches(name)));
    let mut packages: BTreeMap<String, bool> =
        matched.map(|name| (name.to_owned(), false)).collect();
    packages.extend(literal.iter().map(|glob| (glob.to_string(), true)));
    packages.retain(|package, _| !is_denied_package(rules, package));
    packages
}

/// The recipes that are allowed, by tag, less those that are denied to everybody, by their names or
/// by a package. A name that is written out and is no recipe's is a wish as well, which will fail.
pub(super) fn images(
    rules: &[Rule],
    recipes: &Recipes,
    default: System,
) -> BTreeMap<Tag, BTreeSet<Wish>> {
    let is_denied = |wish: &Wish| {
        let name = Repository::parse(&wish.name).ok();
        let recipe = name.and_then(|name| recipes.find(&name));
        let packages = recipe
            .into_iter()
            .flat_map(|recipe| recipe.packages.packages());
        let mut denied = packages.map(|package| is_denied_package(rules, package));
        is_denied(rules, &wish.name, |rule| &rule.deny_images) || denied.any(|denied| denied)
    };
    let mut allowed: BTreeMap<Tag, BTreeSet<Wish>> = BTreeMap::new();
    for rule in rules {
        for tag in rule.tags() {
            let mut wishes = recipe_wishes(rule, tag, recipes, default);
            wishes.retain(|wish| !is_denied(wish));
            allowed.entry(tag.clone()).or_default().extend(wishes);
        }
    }
    allowed
}

/// The recipes that one rule allows, and names of none.
fn recipe_wishes(rule: &Rule, tag: &Tag, recipes: &Recipes, default: System) -> Vec<Wish> {
    let globs = || rule.images.iter().flat_map(|pattern| &pattern.globs);
    let wish = |name: &str, system| Wish {
        name: name.to_owned(),
        system,
        tag: tag.clone(),
        literal: globs().any(|glob| glob.is_literal() && glob.matches(name)),
        is_recipe: true,
    };
    let matched = recipes.iter().filter_map(|recipe| {
        let (name, system) = (recipe.name.as_str(), recipe.packages.system());
        let system = system.unwrap_or(default);
        let fits = rule
            .systems()
            .is_none_or(|systems| systems.contains(&system));
        (fits && globs().any(|glob| glob.matches(name))).then(|| wish(name, system))
    });
    let is_recipe = |name: &String| recipes.iter().any(|one| one.name.as_str() == name);
    let named = globs()
        .filter(|glob| glob.is_literal())
        .map(Glob::to_string);
    let missing = named.filter(|name| !is_recipe(name));
    matched
        .chain(missing.map(|name| wish(&name, default)))
        .collect()
}

fn is_denied_package(rules: &[Rule], package: &str) -> bool {
    with_parents(package).any(|name| is_denied(rules, name, |rule| &rule.deny))
}

fn is_denied(rules: &[Rule], name: &str, deny: fn(&Rule) -> &[Pattern]) -> bool {
    let for_everybody = |rule: &&Rule| rule.mode == Mode::Enforce && rule.subject.is_none();
    let mut denied = rules.iter().filter(for_everybody).flat_map(deny);
    denied.any(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use nixgate_core::policy::Policy;
    use serde_json::json;

    use super::*;

    fn rules() -> Vec<Rule> {
        let policy = json!({"revision": "r1", "default": "deny", "rules": [
            {"name": "a", "allow": ["@shell", "python3*", "gone"], "subject": {"host": {"glob": "a"}}},
            {"name": "b", "allow": ["git*"], "systems": ["aarch64-linux", "x86_64-linux"],
             "tags": ["latest", "v1"]},
            {"name": "hard", "deny": ["*-unwrapped", "nano"]},
            {"name": "trial", "mode": "audit", "deny": ["git"]},
            {"name": "some", "subject": {"host": {"glob": "b"}}, "deny": ["gitea"]},
        ]});
        Policy::parse(policy.to_string().as_bytes())
            .unwrap()
            .rules()
            .to_vec()
    }

    const AMD64: System = System::X86_64Linux;
    const ARM64: System = System::Aarch64Linux;

    #[test]
    fn each_rule_has_its_tags_and_platforms() {
        let scopes: Vec<_> = scopes(&rules(), AMD64)
            .into_iter()
            .map(|(tag, system)| format!("{tag} {}", system.nix()))
            .collect();
        assert_eq!(
            scopes,
            [
                "latest x86_64-linux",
                "latest aarch64-linux",
                "v1 x86_64-linux",
                "v1 aarch64-linux"
            ]
        );
        let allowed = |tag: &str, system| {
            let rules = rules();
            let globs = allowed(&rules, &Tag::parse(tag).unwrap(), system, AMD64);
            globs
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(allowed("v1", AMD64), "git*");
        assert_eq!(allowed("latest", ARM64), "git*");
        assert_eq!(
            allowed("latest", AMD64),
            "bashinteractive coreutils moreutils nano python3* gone git*"
        );
    }

    #[test]
    fn what_is_in_a_denied_package_is_denied() {
        for (package, is_denied) in [
            ("nano", true),
            ("nano.doc", true),
            ("gcc-unwrapped.lib", true),
            ("git.doc", false),
            ("doc.nano", false),
        ] {
            assert_eq!(is_denied_package(&rules(), package), is_denied, "{package}");
        }
    }

    #[test]
    fn recipes_are_built_whose_names_are_allowed() {
        let policy = json!({"revision": "r1", "default": "deny", "rules": [
            {"name": "a", "images": ["corp/ci-*", "corp/gone"], "systems": ["x86_64-linux"]},
            {"name": "b", "images": ["corp/web"], "tags": ["latest", "v1"]},
            {"name": "hard", "deny_images": ["*-secret"], "deny": ["nano"]},
        ]});
        let rules = Policy::parse(policy.to_string().as_bytes())
            .unwrap()
            .rules()
            .to_vec();
        let recipe = |packages: &[&str]| json!({"packages": packages});
        let recipes = json!({"namespace": "corp", "images": {
            "ci-arm": recipe(&["arm64", "git"]), "ci-base": recipe(&["git"]),
            "ci-denied": recipe(&["nano", "git"]), "ci-secret": recipe(&["git"]),
            "other": recipe(&["git"]), "web": recipe(&["arm64", "git"]),
        }});
        let recipes = Recipes::parse(&recipes.to_string()).unwrap();
        let wishes: Vec<String> = images(&rules, &recipes, AMD64)
            .values()
            .flatten()
            .map(|wish| format!("{wish} {}", wish.literal))
            .collect();
        assert_eq!(
            wishes,
            [
                "corp/ci-base:latest x86_64-linux false",
                "corp/gone:latest x86_64-linux true",
                "corp/web:latest aarch64-linux true",
                "corp/web:v1 aarch64-linux true",
            ]
        );
    }

    #[test]
    fn what_anybody_may_have_is_built() {
        let rules = rules();
        let allowed = allowed(&rules, &Tag::latest(), AMD64, AMD64);
        let names = [
            "git",
            "gitea",
            "htop",
            "python3",
            "python3-unwrapped",
            "python3packages.six",
            "nano",
        ];
        let packages = packages(&rules, &allowed, names.into_iter());
        let show = |(package, literal): (&String, &bool)| format!("{package} {literal}");
        let packages: Vec<_> = packages.iter().map(show).collect();
        assert_eq!(
            packages,
            [
                "bashinteractive true",
                "coreutils true",
                "git false",
                "gitea false",
                "gone true",
                "moreutils true",
                "python3 false"
            ]
        );
    }
}
