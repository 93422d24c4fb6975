//! `/v2/_catalog`: kept whole, and shown to each caller as far as it may have what is in it.

use serde_json::Value;

use super::*;

const PATH: &str = "/v2/_catalog";

/// What the builder says there is. `git` is also had by another tag, `hello` by none, `secret` has
/// what the rule `closed` speaks of, and `old` has not been described.
const LIST: &str = r#"{"repositories":[
    {"name":"shell/git","facts":"[{\"tags\":[\"latest\"],\"system\":\"x86_64-linux\",\"names\":[],\"matched\":[]}]"},
    {"name":"git","facts":"[{\"tags\":[\"other\"],\"system\":\"x86_64-linux\",\"names\":[],\"matched\":[]},{\"tags\":[\"latest\"],\"system\":\"x86_64-linux\",\"names\":[],\"matched\":[]}]"},
    {"name":"old","facts":"[]"},
    {"name":"hello","facts":"[{\"tags\":[],\"system\":\"x86_64-linux\",\"names\":[],\"matched\":[]}]"},
    {"name":"secret","facts":"[{\"tags\":[\"latest\"],\"system\":\"x86_64-linux\",\"names\":[],\"matched\":[\"closed\"]}]"},
    {"name":"Not A Name","facts":"[{\"tags\":[\"latest\"],\"system\":\"x86_64-linux\",\"names\":[],\"matched\":[]}]"}]}"#;

fn config(more: &str) -> Config {
    let json = format!(
        r#"{{"builder": {{"cluster": "builder", "token_env": "T"}}, "catalog": true{more}}}"#
    );
    Config::parse(json.as_bytes(), |_| Some("secret".to_owned())).unwrap()
}

fn ask(config: &Config, path: &str) -> Exchange {
    match begin_by(config, path) {
        Begin::Ask(exchange) => *exchange,
        other => panic!("{path}: {other:?}"),
    }
}

/// The entry that the builder's list becomes.
fn entry(config: &Config, path: &str, list: &str) -> Option<Entry> {
    let exchange = ask(config, path);
    let response = response(200, &[("cache-control", "max-age=60")], list.as_bytes());
    Answer::read(config, &exchange, &response).entry(0)
}

/// The names of a page, and where the next one is.
fn page(config: &Config, path: &str) -> (String, Option<String>) {
    let next = ask(config, path).looked_up(config, entry(config, path, LIST), 1);
    let Next::Reply(reply) = next else {
        panic!("{path}: {next:?}")
    };
    let record = (reply.record.route, reply.record.outcome);
    assert_eq!(record, ("catalog", Outcome::Hit));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let names = body["repositories"].as_array().unwrap();
    let names: Vec<_> = names.iter().map(|name| name.as_str().unwrap()).collect();
    (names.join(" "), header(&reply, "link").map(str::to_owned))
}

#[test]
fn without_the_setting_there_is_none() {
    let Begin::Reply(reply) = begin_by(&super::config(), PATH) else {
        panic!("an answer that needs nobody")
    };
    assert_eq!(reply.status, 404);
}

#[test]
fn the_builder_is_asked_once_for_all_callers() {
    let config = config("");
    let mut flights = Flights::default();
    for stream in 1..=2 {
        let exchange = Box::new(ask(&config, &format!("{PATH}?n={stream}")));
        let commands = play(&mut flights, &config, Event::Joined { stream, exchange }, 0);
        let [] = commands.as_slice() else {
            let [Command::Call(call)] = commands.as_slice() else {
                panic!("{commands:?}")
            };
            assert!(call.headers.contains(&(":path", PATH.to_owned())));
            assert_eq!(stream, 1);
            continue;
        };
        assert_eq!(stream, 2);
    }
}

#[test]
fn pages_follow_each_other_to_the_end() {
    let config = config("");
    assert_eq!(
        page(&config, PATH),
        ("git hello old secret shell/git".to_owned(), None)
    );
    let (mut path, mut all) = (format!("{PATH}?n=2"), Vec::new());
    loop {
        let (names, link) = page(&config, &path);
        all.push(names);
        let Some(link) = link else { break };
        let next = link.strip_prefix('<').unwrap();
        path = next.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
    assert_eq!(all, ["git hello", "old secret", "shell/git"]);
    for last in ["shell/git", "shell%2Fgit", "shell%2fgit"] {
        assert_eq!(
            page(&config, &format!("{PATH}?last={last}")).0,
            "",
            "{last}"
        );
    }
}

#[test]
fn below_a_prefix_the_names_have_it() {
    let config = config(r#", "name_prefix": "nix""#);
    assert_eq!(begin_by(&config, PATH), Begin::PassThrough);
    let (names, link) = page(&config, "/v2/nix/_catalog?n=1");
    assert_eq!(names, "nix/git");
    let next = "</v2/nix/_catalog?n=1&last=nix/git>; rel=\"next\"";
    assert_eq!(link.as_deref(), Some(next));
}

#[test]
fn nobody_is_shown_what_it_may_not_have_nor_that_it_is_there() {
    let policy = |rules: &str| {
        let policy = r#", "policy": {"revision": "1", "default": "deny", "rules": ["#;
        config(&format!("{policy}{rules}]}}"))
    };
    let all = r#"{"name": "all", "allow": ["*"]}"#;
    for (rules, expected) in [
        (r#"{"name": "one", "allow": ["git"]}"#, "git"),
        (
            r#"{"name": "tag", "allow": ["git", "hello"], "tags": ["other"]}"#,
            "git",
        ),
        (all, "git secret shell/git"),
        (
            &format!(r#"{all}, {{"name": "closed", "facts": {{"insecure": true}}}}"#),
            "git shell/git",
        ),
        (
            &format!(r#"{all}, {{"name": "none", "deny": ["git"]}}"#),
            "secret",
        ),
        (r#"{"name": "none", "allow": ["nothing"]}"#, ""),
    ] {
        let config = policy(rules);
        assert_eq!(page(&config, PATH), (expected.to_owned(), None), "{rules}");
        // As many as there are make one page, with no link to a next one.
        let count = expected.split_whitespace().count().max(1);
        let path = format!("{PATH}?n={count}");
        assert_eq!(page(&config, &path), (expected.to_owned(), None), "{rules}");
    }
}

#[test]
fn what_is_no_catalog_is_neither_kept_nor_shown() {
    let config = config("");
    for list in [
        "",
        "{}",
        r#"{"repositories":["git"]}"#,
        &LIST[..LIST.len() - 1],
    ] {
        assert_eq!(entry(&config, PATH, list), None, "{list}");
    }
    assert!(entry(&config, PATH, LIST).is_some());
}
