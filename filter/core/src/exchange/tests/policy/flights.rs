//! Callers who wait for the builder together, and what it hears of them.

use super::*;

/// The flights of one configuration.
struct Play<'a> {
    config: &'a Config,
    flights: Flights<u32>,
}

impl<'a> Play<'a> {
    fn new(config: &'a Config) -> Self {
        let flights = Flights::default();
        Self { config, flights }
    }

    fn on(&mut self, event: Event<u32>, now: Seconds) -> Vec<Command<u32>> {
        play(&mut self.flights, self.config, event, now)
    }

    fn join(&mut self, stream: u32, team: &str, path: &str) -> Vec<Command<u32>> {
        let exchange = ask_as(self.config, team, path);
        self.on(Event::Joined { stream, exchange }, 0)
    }

    fn dispatch(&mut self, path: &str) {
        let key = ask_as(self.config, "data", path).key().clone();
        self.on(Event::Dispatched { key, token: 7 }, 0);
    }

    fn answer(&mut self, response: Response, now: Seconds) -> Vec<Command<u32>> {
        self.on(Event::Answered { token: 7, response }, now)
    }
}

fn with_facts(mut response: Response, facts: &str) -> Response {
    let facts = (wire::FACTS.to_owned(), facts.to_owned());
    response.headers.push(facts);
    response
}

/// The rule of which the builder hears in a call.
fn rule_of(commands: Vec<Command<u32>>) -> Option<String> {
    match commands.as_slice() {
        [Command::Call(call)] => {
            let mut headers = call.headers.iter();
            let rule = headers.find(|(name, _)| *name == wire::RULE);
            rule.map(|(_, rule)| rule.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_builders_answer_without_facts_is_a_failure_and_not_stored() {
    let config = guarded(json!({}));
    let mut play = Play::new(&config);
    play.join(1, "data", GIT);
    play.dispatch(GIT);
    let commands = play.answer(manifest(b"{}", 300), 0);
    assert_eq!(statuses(&commands), [(1, 503)]);
    assert_eq!(commands.len(), 1);
}

#[test]
fn those_who_wait_for_one_answer_are_judged_one_by_one() {
    let config = guarded(json!({}));
    let mut play = Play::new(&config);
    let calls = play.join(1, "data", GIT);
    let [Command::Call(call)] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    let rules = (
        wire::RULES,
        r#"{"free":{"licences":["unfree"]}}"#.to_owned(),
    );
    // Also what is on audit, and for others.
    for header in [rules, (wire::DENIED, "git".to_owned())] {
        assert!(call.headers.contains(&header), "{:?}", call.headers);
    }
    play.dispatch(GIT);
    play.join(2, "ops", GIT);
    let answer = with_facts(manifest(b"{}", 300), &facts("latest", &["free"]));
    assert_eq!(statuses(&play.answer(answer, 1)), [(1, 403), (2, 200)]);
}

#[test]
fn the_builder_is_told_by_which_rule_the_first_of_them_came_in() {
    let config = guarded(json!({}));
    let digest = Digest::of(b"");
    for (path, team, expected) in [
        (GIT.to_owned(), "data", Some("data")),
        (GIT.to_owned(), "ops", Some("ops")),
        (format!("/v2/git/blobs/{digest}"), "data", Some("data")),
        ("/v2/cacert/manifests/latest".to_owned(), "web", None),
    ] {
        let rule = rule_of(Play::new(&config).join(1, team, &path));
        assert_eq!(rule.as_deref(), expected, "{team} {path}");
    }
    let mut play = Play::new(&config);
    play.join(1, "data", GIT);
    play.dispatch(GIT);
    play.join(2, "ops", GIT);
    let again = play.answer(response(202, &[], b""), 5);
    assert_eq!(rule_of(again).as_deref(), Some("data"));

    let json = json!({"policy": {"default": "allow"}});
    for config in [guarded(json), super::super::config()] {
        assert_eq!(rule_of(Play::new(&config).join(1, "ops", GIT)), None);
    }
}

#[test]
fn a_full_queue_is_told_to_those_of_the_rule_that_was_refused() {
    let config = guarded(json!({}));
    let mut play = Play::new(&config);
    for (stream, team) in [(1, "data"), (2, "ops"), (3, "data")] {
        play.join(stream, team, GIT);
    }
    play.dispatch(GIT);
    let full = || {
        let body = br#"{"errors": [{"code": "TOOMANYREQUESTS"}]}"#;
        response(429, &[("retry-after", "7")], body)
    };
    let mut commands = play.answer(full(), 2);
    let Some(Command::Call(call)) = commands.pop() else {
        panic!("{commands:?}");
    };
    assert_eq!(statuses(&commands), [(1, 429), (3, 429)]);
    let ops = (wire::RULE, "ops".to_owned());
    assert!(call.headers.contains(&ops), "{:?}", call.headers);
    play.dispatch(GIT);
    assert_eq!(statuses(&play.answer(full(), 4)), [(2, 429)]);
    assert!(!play.flights.has_resting());
}

#[test]
fn under_a_policy_a_digests_facts_are_asked_for_again() {
    let json = br#"{"builder": {"cluster": "builder", "token_env": "T"}}"#;
    let free = Config::parse(json, |_| Some("s".to_owned())).unwrap();
    let path = format!("/v2/git/manifests/{}", Digest::of(b"{}"));
    for (config, expires) in [(guarded(json!({})), 301), (free, 31_536_001)] {
        let mut play = Play::new(&config);
        play.join(1, "data", &path);
        play.dispatch(&path);
        let answer = with_facts(manifest(b"{}", 31_536_000), &facts("latest", &[]));
        let commands = play.answer(answer, 1);
        let Some(Command::Store(_, entry)) = commands.first() else {
            panic!("{commands:?}");
        };
        assert_eq!(entry.expires, expires);
    }
}

#[test]
fn who_waited_while_the_policy_changed_is_sent_round_to_the_new_one() {
    let config = guarded(json!({}));
    let mut play = Play::new(&config);
    play.join(1, "data", GIT);
    play.dispatch(GIT);
    play.flights.mark_outdated();
    play.join(2, "ops", GIT);
    let answer = with_facts(manifest(b"{}", 300), &facts("latest", &[]));
    assert_eq!(statuses(&play.answer(answer, 1)), [(1, 307), (2, 200)]);
}

#[test]
fn a_stale_answer_is_judged_too() {
    let config = guarded(json!({}));
    let settled = facts("latest", &["free"]);
    // By which more names would be denied soon.
    let unsettled = settled.replace(r#""names":[]"#, r#""names":[],"unsettled":true"#);
    for (team, facts, expected) in [
        ("data", &settled, 403),
        ("ops", &settled, 200),
        ("ops", &unsettled, 503),
    ] {
        let mut exchange = ask_as(&config, team, GIT);
        let old = entry(facts);
        assert_eq!(exchange.looked_up(&config, Some(old), 500), Next::Join);
        let key = exchange.key().clone();
        let mut play = Play::new(&config);
        let stream = 1;
        play.on(Event::Joined { stream, exchange }, 500);
        let commands = play.on(Event::NotDispatched { key }, 500);
        assert_eq!(statuses(&commands), [(1, expected)]);
    }
}
