//! What was kept: for how long it is served, and what of it after its time.

use super::*;

#[test]
fn what_was_stored_is_served_until_it_expires() {
    let mut simulation = Simulation::default();
    simulation.join(1, GIT, 100);
    let mut commands = simulation.answer(manifest(b"{}", 300), 100);
    let Command::Store(_, entry) = commands.remove(0) else {
        panic!()
    };
    let digest = Digest::of(b"{}").to_string();
    match ask(GIT, 399).looked_up(&config(), Some(entry.clone()), 399) {
        Next::Reply(reply) => {
            assert_eq!((reply.status, &*reply.body), (200, b"{}".as_slice()));
            assert_eq!(
                header(&reply, "docker-content-digest"),
                Some(digest.as_str())
            );
            assert_eq!(
                header(&reply, "etag"),
                Some(format!("\"{digest}\"").as_str())
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        ask(GIT, 400).looked_up(&config(), Some(entry), 400),
        Next::Join
    );
    assert_eq!(ask(GIT, 0).looked_up(&config(), None, 0), Next::Join);
}

#[test]
fn what_was_learnt_before_the_clock_was_set_back_is_asked_for_again() {
    let entry = Entry {
        learnt: 1000,
        expires: 1300,
        ..old_document()
    };
    for (now, is_known) in [(1000, true), (1299, true), (1300, false), (999, false)] {
        let next = ask(GIT, now).looked_up(&config(), Some(entry.clone()), now);
        assert_eq!(matches!(next, Next::Reply(_)), is_known, "{now}");
    }
}

#[test]
fn an_old_document_is_served_when_the_builder_is_gone_and_only_then() {
    let document = old_document();
    for (answer, status, body) in [
        (Response::default(), 200, "old"),
        (manifest(b"new", 300), 200, "new"),
        (response(404, &[], REFUSAL), 404, GONE),
        (response(500, &[], REFUSAL), 500, GONE),
        (response(503, &[], REFUSAL), 200, "old"),
        (response(429, &[("retry-after", "7")], REFUSAL), 200, "old"),
    ] {
        let mut simulation = Simulation::default();
        simulation.on(joined_after_expiry(document.clone()), 400);
        let commands = simulation.answer(answer, 401);
        let Some(Command::Reply(1, reply)) = commands.last() else {
            panic!("{commands:?}")
        };
        assert_eq!((reply.status, &*reply.body), (status, body.as_bytes()));
    }

    let mut flights = Flights::default();
    play(&mut flights, &config(), joined_after_expiry(document), 400);
    let key = ask(GIT, 0).key().clone();
    let commands = play(&mut flights, &config(), Event::NotDispatched { key }, 400);
    assert_eq!(statuses(&commands), [(1, 200)]);
}

#[test]
fn what_is_no_document_is_never_served_after_its_time() {
    for content in [
        Content::Stream,
        Content::Redirect {
            location: "http://localhost/x".to_owned(),
        },
        Content::Refusal {
            status: 404,
            body: [].into(),
        },
    ] {
        let mut simulation = Simulation::default();
        let expires = 400;
        simulation.on(
            joined_after_expiry(Entry {
                learnt: 0,
                expires,
                content,
                facts: String::new(),
            }),
            400,
        );
        assert_eq!(
            statuses(&simulation.answer(Response::default(), 401)),
            [(1, 503)]
        );
    }
}
