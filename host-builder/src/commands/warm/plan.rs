//! The packages and recipes that a policy allows to anybody. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nixgate_core::distribution::{Repository, Tag};
use nixgate_core::package_set::{System, with_parents};
use nixgate_core::policy::{Glob, Mode, Pattern, Rule};

use crate::index::Listing;
use crate::request::recipes::Recipes;

/// A package or a recipe to build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WarmTarget {
    pub(super) name: String,
    pub(super) system: System,
    pub(super) tag: Tag,
    /// The policy names it, instead of only matching it by a pattern. Then it is an error if it is missing.
    pub(super) literal: bool,
    pub(super) is_recipe: bool,
}

impl fmt::Display for WarmTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.name, self.tag, self.system.nix())
    }
}

/// The tags and platforms for which something is allowed. `default` is the platform for rules without
/// one: they allow more than can be built here.
pub(super) fn scopes(rules: &[Rule], default: System) -> BTreeSet<(Tag, System)> {
    let allowing = rules.iter().filter(|rule| !rule.allow.is_empty());
    allowing
        .flat_map(|rule| {
            let tags = rule.limits.tags.iter();
            tags.flat_map(move |tag| {
                let systems = systems(rule, default).into_iter();
                systems.map(|system| (tag.clone(), system))
            })
        })
        .collect()
}

fn systems(rule: &Rule, default: System) -> BTreeSet<System> {
    let systems = rule.limits.systems.clone();
    systems.unwrap_or_else(|| [default].into())
}

/// The patterns that are allowed for a tag and platform.
pub(super) fn allowed<'a>(
    rules: &'a [Rule],
    tag: &Tag,
    system: System,
    default: System,
) -> Vec<&'a Glob> {
    let in_scope =
        |rule: &&Rule| rule.limits.tags.contains(tag) && systems(rule, default).contains(&system);
    let allowed = rules.iter().filter(in_scope).flat_map(|rule| &rule.allow);
    allowed.flat_map(|pattern| &pattern.globs).collect()
}

/// The packages that are allowed for a tag and platform, without those that are denied to everybody.
pub(super) fn targets(
    rules: &[Rule],
    tag: &Tag,
    system: System,
    default: System,
    listing: &Listing,
) -> Vec<WarmTarget> {
    let allowed = allowed(rules, tag, system, default);
    packages(rules, &allowed, listing.names(), |name| listing.same(name))
        .into_iter()
        .map(|(name, literal)| WarmTarget {
            name,
            system,
            tag: tag.clone(),
            literal,
            is_recipe: false,
        })
        .collect()
}

/// Names, and whether the policy has them literally. `same` has all names of a package.
fn packages<'a>(
    rules: &[Rule],
    allowed: &[&Glob],
    names: impl Iterator<Item = &'a str>,
    same: impl Fn(&str) -> BTreeSet<String>,
) -> BTreeMap<String, bool> {
    let (literal, wild): (Vec<&Glob>, Vec<&Glob>) =
        allowed.iter().partition(|glob| glob.is_literal());
    let matched = names.filter(|name| wild.iter().any(|glob| glob.matches(name)));
    let mut packages: BTreeMap<String, bool> =
        matched.map(|name| (name.to_owned(), false)).collect();
    packages.extend(literal.iter().map(|glob| (glob.to_string(), true)));
    packages.retain(|package, _| {
        let names = same(package);
        !names.iter().any(|name| is_denied_package(rules, name))
    });
    packages
}

/// The allowed recipes by tag, without those that are denied to everybody by their name or a package. A
/// literal name without a recipe is included, and will fail.
pub(super) fn recipes_by_tag(
    rules: &[Rule],
    recipes: &Recipes,
    default: System,
) -> BTreeMap<Tag, BTreeSet<WarmTarget>> {
    let is_denied = |target: &WarmTarget| {
        let name = Repository::parse(&target.name).ok();
        let recipe = name.and_then(|name| recipes.find(&name));
        let packages = recipe
            .into_iter()
            .flat_map(|recipe| recipe.packages.packages());
        let mut denied = packages.map(|package| is_denied_package(rules, package));
        is_denied(rules, &target.name, |rule| &rule.deny_images) || denied.any(|denied| denied)
    };
    let mut allowed: BTreeMap<Tag, BTreeSet<WarmTarget>> = BTreeMap::new();
    for rule in rules {
        for tag in &rule.limits.tags {
            let mut targets = recipe_targets(rule, tag, recipes, default);
            targets.retain(|target| !is_denied(target));
            allowed.entry(tag.clone()).or_default().extend(targets);
        }
    }
    allowed
}

/// The recipes that one rule allows, and literal names without a recipe.
fn recipe_targets(rule: &Rule, tag: &Tag, recipes: &Recipes, default: System) -> Vec<WarmTarget> {
    let globs = || rule.images.iter().flat_map(|pattern| &pattern.globs);
    let target = |name: &str, system| WarmTarget {
        name: name.to_owned(),
        system,
        tag: tag.clone(),
        literal: globs().any(|glob| glob.is_literal() && glob.matches(name)),
        is_recipe: true,
    };
    let matched = recipes.iter().filter_map(|recipe| {
        let (name, system) = (recipe.name.as_str(), recipe.packages.system());
        let system = system.unwrap_or(default);
        let fits = systems(rule, system).contains(&system);
        (fits && globs().any(|glob| glob.matches(name))).then(|| target(name, system))
    });
    let is_recipe = |name: &String| recipes.iter().any(|one| one.name.as_str() == name);
    let named = globs()
        .filter(|glob| glob.is_literal())
        .map(Glob::to_string);
    let missing = named.filter(|name| !is_recipe(name));
    matched
        .chain(missing.map(|name| target(&name, default)))
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
    fn attributes_of_a_denied_package_are_denied() {
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
    fn recipes_with_allowed_names_are_built() {
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
        let targets: Vec<String> = recipes_by_tag(&rules, &recipes, AMD64)
            .values()
            .flatten()
            .map(|target| format!("{target} {}", target.literal))
            .collect();
        assert_eq!(
            targets,
            [
                "corp/ci-base:latest x86_64-linux false",
                "corp/gone:latest x86_64-linux true",
                "corp/web:latest aarch64-linux true",
                "corp/web:v1 aarch64-linux true",
            ]
        );
    }

    #[test]
    fn packages_that_anybody_may_have_are_built() {
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
        let same = |name: &str| [name.to_owned()].into();
        let packages = packages(&rules, &allowed, names.into_iter(), same);
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
