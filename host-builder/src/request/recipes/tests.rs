use serde_json::{Value, json};

use super::*;

fn parse(images: Value) -> Result<Recipes> {
    let json = json!({"namespace": "corp", "images": images});
    Recipes::parse(&json.to_string())
}

fn recipe(raw: Value) -> Arc<Recipe> {
    let recipes = parse(json!({"a": raw})).unwrap();
    Arc::clone(recipes.iter().next().unwrap())
}

fn plain() -> Execution {
    Execution {
        cmd: vec!["bash".to_owned()],
        ..Execution::default()
    }
}

#[test]
fn a_recipe_sets_what_a_list_of_packages_can_not() {
    let recipe = recipe(json!({
        "packages": ["arm64", "shell", "python3Packages.Requests", "_1password"],
        "cmd": ["-v"], "entrypoint": ["server"], "env": {"LANG": "C.UTF-8"},
        "user": "1000:nogroup", "workdir": "/work", "labels": {"team": "ci"},
        "ports": ["8080", "53/udp"], "max_layers": 10,
    }));
    assert_eq!(recipe.name.as_str(), "corp/a");
    let expected = "arm64/shell/1password/python3packages.requests";
    assert_eq!(recipe.packages.short_name(), expected);
    assert_eq!(recipe.max_layers(), Some(10));
    assert_eq!(recipe.labels()["team"], "ci");
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    let expected = Execution {
        cmd: words(&["-v"]),
        entrypoint: words(&["server"]),
        env: [("LANG".to_owned(), "C.UTF-8".to_owned())].into(),
        user: Some("1000:nogroup".to_owned()),
        working_dir: Some("/work".to_owned()),
        exposed_ports: words(&["53/udp", "8080/tcp"]).into_iter().collect(),
    };
    assert_eq!(recipe.execution(plain()), expected);
}

#[test]
fn omitted_settings_are_those_of_a_list_of_packages() {
    let packages = json!({"packages": ["git"]});
    assert_eq!(recipe(packages).execution(plain()), plain());
    let entrypoint = recipe(json!({"packages": ["git"], "entrypoint": ["git"]}));
    let execution = entrypoint.execution(plain());
    assert_eq!((execution.cmd.len(), execution.entrypoint.len()), (0, 1));
    let nothing = recipe(json!({"packages": ["shell"], "cmd": []}));
    assert_eq!(nothing.execution(plain()).cmd, [""; 0]);
}

#[test]
fn names_are_found_only_in_their_namespace() {
    let recipes = parse(json!({
        "ci-base": {"packages": ["git"]}, "team/tool": {"packages": ["htop"]},
    }))
    .unwrap();
    let find = |name: &str| recipes.find(&Repository::parse(name).unwrap());
    assert!(find("corp/ci-base").is_some() && find("corp/team/tool").is_some());
    assert!(find("ci-base").is_none() && find("corp/team").is_none());
    assert!(recipes.namespaces().contains("corp"));
    assert_eq!(Recipes::default().namespaces().iter().count(), 0);
}

#[test]
fn mistakes_are_named_by_image_and_key() {
    let git = |key: &str, value: Value| json!({"a": {"packages": ["git"], key: value}});
    for (images, parts) in [
        (
            json!({"A": {"packages": ["git"]}}),
            ["\"A\"", "component \"A\""],
        ),
        (
            json!({"": {"packages": ["git"]}}),
            ["the image \"\"", "component"],
        ),
        (json!({"a": {}}), ["packages", "missing"]),
        (
            json!({"a": {"packages": []}}),
            ["\"a\"", "packages: the list is empty"],
        ),
        (
            json!({"a": {"packages": ["git/htop"]}}),
            ["packages", "without a slash"],
        ),
        (
            json!({"a": {"packages": ["git --help"]}}),
            ["packages", "git --help"],
        ),
        (
            json!({"a": {"packages": ["arm64", "amd64"]}}),
            ["packages", "two platforms"],
        ),
        (git("comand", json!([])), ["comand", "unknown field"]),
        (git("cmd", json!("bash")), ["invalid type", "sequence"]),
        (git("cmd", json!([""])), ["cmd", "first word is empty"]),
        (git("entrypoint", json!(["", "x"])), ["entrypoint", "empty"]),
        (git("env", json!({"A=B": "c"})), ["env", "A=B"]),
        (
            git("env", json!({"A": "\u{0}"})),
            ["env", "not a valid variable"],
        ),
        (git("cmd", json!(["a", "\u{0}"])), ["cmd", "NUL"]),
        (git("user", json!("-1")), ["user", "-1"]),
        (git("user", json!("a:b:c")), ["user", "a:b:c"]),
        (git("user", json!("root ")), ["user", "root "]),
        (git("workdir", json!("work")), ["workdir", "absolute"]),
        (git("workdir", json!("/a/../b")), ["workdir", "absolute"]),
        (
            git("labels", json!({"org.nixgate.packages": "x"})),
            ["labels", "nixgate sets"],
        ),
        (
            git("labels", json!({"org.opencontainers.image.revision": "x"})),
            ["labels", "sets"],
        ),
        (git("ports", json!(["0"])), ["ports", "1 to 65535"]),
        (git("ports", json!(["80/http"])), ["ports", "80/http"]),
        (git("ports", json!(["65536/tcp"])), ["ports", "65536"]),
        (git("max_layers", json!(1)), ["max_layers is 1", "2 to 127"]),
        (
            git("max_layers", json!(128)),
            ["max_layers is 128", "2 to 127"],
        ),
    ] {
        let error = format!("{:#}", parse(images.clone()).unwrap_err());
        for part in parts {
            assert!(error.contains(part), "{images}: {error}");
        }
    }
    for namespace in ["", "a/b", "shell", "Corp"] {
        let json = json!({"namespace": namespace, "images": {}});
        let error = Recipes::parse(&json.to_string()).unwrap_err();
        assert!(format!("{error:#}").contains("namespace"), "{namespace}");
    }
}

#[test]
fn duplicate_keys_are_refused() {
    let whole = r#"{"namespace": "corp", "images": {"a": {"packages": ["git"], "env": {"A": "1"},
        "labels": {"b": "2"}}}}"#;
    assert!(Recipes::parse(whole).is_ok());
    for (once, twice) in [
        (r#""a": {"#, r#""a": {"packages": ["htop"]}, "a": {"#),
        (r#""A": "1""#, r#""A": "1", "A": "1""#),
        (r#""b": "2""#, r#""b": "2", "b": "3""#),
        (r#""env": {"#, r#""env": {}, "env": {"#),
    ] {
        let json = whole.replace(once, twice);
        let error = format!("{:#}", Recipes::parse(&json).unwrap_err());
        assert!(
            error.contains("twice") || error.contains("duplicate"),
            "{json}: {error}"
        );
    }
}

/// Like the names of packages, a recipe's key outlives versions of nixgate.
#[test]
fn golden() {
    let full = recipe(json!({
        "packages": ["git"], "cmd": ["-v"], "entrypoint": ["git"], "env": {"LANG": "C", "A": ""},
        "user": "1", "workdir": "/", "labels": {"a": "b"}, "ports": ["1"],
    }));
    let plain = recipe(json!({"packages": ["git"]}));
    expect_test::expect!["8638ba2163763e85efe11a8e7deb8971d3913e7cc96ece0b7121032e56ecfae2"]
        .assert_eq(&full.fingerprint());
    expect_test::expect!["3f7bddcd055ee541ffea6c5d1a4580e0a941e1a9d18c565c98c3221f9f5be76a"]
        .assert_eq(&plain.fingerprint());
    let none = |key: &str| recipe(json!({"packages": ["git"], key: []})).fingerprint();
    assert_eq!(none("ports"), plain.fingerprint());
    // To run nothing is another thing than to run what the packages say.
    assert_ne!(none("cmd"), plain.fingerprint());
    assert_ne!(none("cmd"), none("entrypoint"));
}

#[test]
fn the_page_of_recipes_has_their_keys_and_its_example_is_right() {
    let page = include_str!("../../../../docs/src/recipes.md");
    let (_, rest) = page.split_once("```json\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert!(Recipes::parse(example).unwrap().iter().len() > 1);
    // What serde says that it expects are all keys that there are.
    let unknown = parse(json!({"a": {"none": 1}})).unwrap_err();
    let unknown = format!("{unknown:#}");
    let (_, keys) = unknown.split_once("expected one of ").unwrap();
    let (keys, _) = keys.split_once(" at line").unwrap();
    let keys: BTreeSet<&str> = keys.split(", ").collect();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| row.split_once('`'));
    let rows: BTreeSet<String> = rows.map(|(key, _)| format!("`{key}`")).collect();
    assert_eq!(
        rows.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        keys
    );
}
