//! What is made of the builder's answers: passed on, kept, or not believed.

use super::*;

#[test]
fn refusals_are_passed_on_and_kept_only_when_the_builder_says_so() {
    for (cache, stored) in [("max-age=30", 1), ("no-store", 0), ("max-age=0", 0)] {
        let mut simulation = Simulation::default();
        simulation.join(1, GIT, 0);
        let commands = simulation.answer(response(404, &[("cache-control", cache)], REFUSAL), 1);
        assert_eq!(statuses(&commands), [(1, 404)]);
        assert_eq!(commands.len() - 1, stored, "{cache}");
    }
}

#[test]
fn an_error_that_is_no_fault_of_the_builder_has_the_clients_status_for_the_client() {
    let none: &[(&str, &str)] = &[];
    let later = [("retry-after", "7")];
    for (status, other, client, retry) in [
        (422, "500", 500, none),
        (422, "504", 504, none),
        (422, "503", 503, &later),
        // No status of an error that is the builder's, and none that the header may have.
        (404, "500", 404, none),
        (422, "200", 422, none),
        (422, "600", 422, none),
        (422, "x", 422, none),
    ] {
        let mut simulation = Simulation::default();
        simulation.join(1, GIT, 0);
        let headers = [
            &[(wire::STATUS, other), ("cache-control", "max-age=30")],
            retry,
        ]
        .concat();
        let commands = simulation.answer(response(status, &headers, REFUSAL), 1);
        assert_eq!(statuses(&commands), [(1, client)], "{status} {other}");
        let reply = commands.iter().find_map(|command| match command {
            Command::Reply(_, reply) => Some(reply),
            _ => None,
        });
        let reply = reply.unwrap();
        assert_eq!(&reply.body[..], REFUSAL);
        assert_eq!(
            header(reply, "retry-after"),
            retry.first().map(|(_, value)| *value)
        );
        assert_eq!(header(reply, wire::STATUS), None);
        let kept = commands.iter().find_map(|command| match command {
            Command::Store(_, entry) => Some(&entry.content),
            _ => None,
        });
        match kept {
            Some(Content::Refusal { status, .. }) => assert_eq!(*status, client),
            Some(other) => panic!("{other:?}"),
            None => assert!(!retry.is_empty(), "{status} {other}"),
        }
    }
}

#[test]
fn what_no_builder_sent_is_never_kept_or_believed() {
    let other = Digest::of(b"other").to_string();
    let age = ("cache-control", "max-age=300");
    let media = ("content-type", "application/vnd.oci.image.manifest.v1+json");
    let bare = |status| Response {
        status,
        ..Response::default()
    };
    for (name, bad) in [
        ("no connection", bare(503)),
        ("timed out", bare(504)),
        ("a stranger's 200", bare(200)),
        ("a stranger's 404", bare(404)),
        ("no digest", response(200, &[media, age], b"{}")),
        (
            "wrong digest",
            response(200, &[media, age, ("docker-content-digest", &other)], b"{}"),
        ),
        ("no status of ours", response(302, &[age], b"")),
        (
            "half an error",
            response(404, &[age], &REFUSAL[..REFUSAL.len() - 1]),
        ),
        (
            "an error without a code",
            response(404, &[age], br#"{"errors":[{}]}"#),
        ),
        ("no error in it", response(500, &[age], br#"{"errors":[]}"#)),
        ("a page", response(502, &[age], b"<html>Bad gateway</html>")),
        ("an empty refusal", response(404, &[age], b"")),
    ] {
        let mut simulation = Simulation::default();
        simulation.join(1, GIT, 0);
        let commands = simulation.answer(bad, 1);
        let [Command::Reply(1, reply)] = commands.as_slice() else {
            panic!("{name}: {commands:?}")
        };
        assert_eq!(reply.status, 503, "{name}");
        assert!(header(reply, "retry-after").is_some(), "{name}");
    }
}

#[test]
fn a_builder_that_refuses_the_token_says_nothing_of_the_image() {
    let refuses = (wire::REFUSES, wire::REFUSES_TOKEN);
    let age = ("cache-control", "max-age=300");
    // Whatever else is in it, and with the status of builders before this one.
    for (status, body) in [(503, REFUSAL), (403, REFUSAL), (403, b""), (404, REFUSAL)] {
        let answer = || response(status, &[refuses, age], body);
        let mut simulation = Simulation::default();
        simulation.join(1, GIT, 0);
        let [Command::Reply(1, reply)] = &simulation.answer(answer(), 1)[..] else {
            panic!("{status}: it is kept, or not answered")
        };
        assert_eq!(reply.status, 503);
        let body = String::from_utf8_lossy(&reply.body);
        assert!(body.contains("NIXGATE_TOKEN"), "{body}");
        let mut simulation = Simulation::default();
        simulation.on(joined_after_expiry(old_document()), 400);
        let [Command::Reply(1, reply)] = &simulation.answer(answer(), 401)[..] else {
            panic!("{status}: it is kept, or not answered")
        };
        assert_eq!((reply.status, &*reply.body), (200, &b"old"[..]));
    }
    // A refusal of the image is one, whoever says so and in whatever words.
    let denied = br#"{"errors":[{"code":"DENIED","message":"nixgate-refuses: token"}]}"#;
    for more in [&[age][..], &[age, (wire::REFUSES, "other")]] {
        let mut simulation = Simulation::default();
        simulation.join(1, GIT, 0);
        let commands = simulation.answer(response(403, more, denied), 1);
        assert_eq!(statuses(&commands), [(1, 403)]);
        assert_eq!(commands.len(), 2, "it is kept");
    }
}

#[test]
fn a_refusal_of_head_has_no_body_to_look_at() {
    let path = format!("/v2/git/blobs/{}", Digest::of(b""));
    let Begin::Ask(exchange) = begin("HEAD", &path, 0) else {
        panic!()
    };
    let mut simulation = Simulation::default();
    let stream = 1;
    simulation.on(Event::Joined { stream, exchange }, 0);
    assert_eq!(
        statuses(&simulation.answer(response(404, &[], b""), 1)),
        [(1, 404)]
    );
}

#[test]
fn half_a_list_of_tags_is_none() {
    for (body, status) in [(r#"{"name":"git","tags":["latest"]}"#, 200), ("{", 503)] {
        let mut simulation = Simulation::default();
        simulation.join(1, "/v2/git/tags/list", 0);
        let answer = response(200, &[("cache-control", "max-age=9")], body.as_bytes());
        let commands = simulation.answer(answer, 1);
        assert_eq!(statuses(&commands), [(1, status)], "{body}");
        assert_eq!(commands.len() == 2, status == 200, "kept: {body}");
    }
}

#[test]
fn what_is_only_so_for_now_is_told_to_everyone_with_its_time_and_never_kept() {
    for (status, after, told) in [
        (429, "7", "7"),
        (429, "Sat, 21 Nov 2026 08:00:00 GMT", "10"),
        (503, "99999999", "3600"),
    ] {
        let mut simulation = Simulation::default();
        simulation.join(1, GIT, 0);
        simulation.join(2, GIT, 0);
        let headers = [("retry-after", after), ("cache-control", "max-age=30")];
        let commands = simulation.answer(response(status, &headers, REFUSAL), 1);
        assert_eq!(statuses(&commands), [(1, status), (2, status)]);
        for command in &commands {
            let Command::Reply(_, reply) = command else {
                panic!("{command:?}")
            };
            assert_eq!(header(reply, "retry-after"), Some(told), "{after}");
            assert_eq!(*reply.body, *REFUSAL);
        }
    }
}

#[test]
fn an_answer_that_could_not_be_read_is_nobodys_but_the_edges_own_failure() {
    let mut simulation = Simulation::default();
    simulation.join(1, GIT, 0);
    let token = simulation.calls;
    let commands = simulation.on(Event::NotRead { token }, 1);
    assert_eq!(statuses(&commands), [(1, 500)]);
    assert_eq!(
        simulation.join(2, GIT, 2).len(),
        1,
        "the next one asks again"
    );
}

#[test]
fn a_manifest_other_than_the_one_asked_for_is_refused() {
    let mut simulation = Simulation::default();
    simulation.join(1, &format!("/v2/git/manifests/{}", Digest::of(b"asked")), 0);
    assert_eq!(
        statuses(&simulation.answer(manifest(b"{}", 300), 1)),
        [(1, 503)]
    );
}

#[test]
fn the_package_set_of_a_manifest_is_told_with_it_and_with_nothing_else() {
    let source = |reply: &Reply| header(reply, "nixgate-source").map(str::to_owned);
    let mut good = manifest(b"{}", 300);
    let pin = ("nixgate-source".to_owned(), "git 5fbc4a8".to_owned());
    good.headers.push(pin.clone());
    let mut simulation = Simulation::default();
    simulation.join(1, GIT, 0);
    let commands = simulation.answer(good, 1);
    let [Command::Store(key, entry), Command::Reply(1, reply)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!(source(reply), Some(pin.1.clone()));
    // From the cache, also when it is stale.
    let entry = Entry::decode(&entry.encode(key), key).unwrap();
    match ask(GIT, 2).looked_up(&config(), Some(entry.clone()), 2) {
        Next::Reply(reply) => assert_eq!(source(&reply), Some(pin.1.clone())),
        other => panic!("{other:?}"),
    }
    let mut simulation = Simulation::default();
    let mut exchange = ask(GIT, 400);
    exchange.looked_up(&config(), Some(entry), 400);
    simulation.on(
        Event::Joined {
            stream: 1,
            exchange,
        },
        400,
    );
    let commands = simulation.answer(Response::default(), 401);
    let [Command::Reply(1, reply)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!((reply.status, source(reply)), (200, Some(pin.1.clone())));

    let mut refusal = response(404, &[], REFUSAL);
    refusal.headers.push(pin);
    for answer in [manifest(b"{}", 300), refusal] {
        let mut simulation = Simulation::default();
        simulation.join(1, GIT, 0);
        let commands = simulation.answer(answer, 1);
        let Some(Command::Reply(1, reply)) = commands.last() else {
            panic!("{commands:?}")
        };
        assert_eq!(source(reply), None);
    }
}
