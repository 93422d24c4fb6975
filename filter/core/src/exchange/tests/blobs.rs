//! Blobs: where they are, and who sends them.

use super::*;

#[test]
fn a_blob_is_redirected_or_forwarded_as_the_builder_says() {
    let digest = Digest::of(b"layer");
    let path = format!("/v2/git/blobs/{digest}");
    let mut simulation = Simulation::default();
    let commands = simulation.join(1, &path, 0);
    let [Command::Call(call)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert!(
        call.headers
            .contains(&(wire::PREFER, "wait=20, return=minimal".to_owned()))
    );
    let headers = [
        ("location", "http://localhost:9000/x?sig"),
        ("cache-control", "max-age=60"),
    ];
    let commands = simulation.answer(response(307, &headers, b""), 1);
    assert!(
        matches!(commands.as_slice(), [Command::Store(..), Command::Reply(1, reply)]
        if header(reply, "location") == Some("http://localhost:9000/x?sig"))
    );

    let mut simulation = Simulation::default();
    simulation.join(1, &path, 0);
    let commands = simulation.answer(response(204, &[("cache-control", "max-age=60")], b""), 1);
    let forward = Forward {
        method: Method::Get,
        path: format!("/v2/cacert/git/iana-etc/blobs/{digest}"),
        original_path: path.clone(),
        record: Record {
            route: "blob",
            image: "cacert/git/iana-etc".into(),
            outcome: Outcome::Forwarded,
            judgement: None,
        },
    };
    assert!(
        matches!(commands.as_slice(), [Command::Store(..), Command::Forward(1, f)] if *f == forward)
    );
}

#[test]
fn a_presigned_location_serves_its_own_method_only() {
    let path = format!("/v2/git/blobs/{}", Digest::of(b""));
    let (Begin::Ask(get), Begin::Ask(head)) = (begin("GET", &path, 0), begin("HEAD", &path, 0))
    else {
        panic!()
    };
    assert_ne!(get.key(), head.key());
}

#[test]
fn several_ranges_go_to_the_builder_wherever_the_blob_is() {
    let path = format!("/v2/git/blobs/{}", Digest::of(b"layer"));
    let begin = |method, several_ranges| {
        let request = Request {
            method,
            path: &path,
            accept: Vec::new(),
            if_none_match: Vec::new(),
            several_ranges,
            caller: &Caller::default(),
        };
        match Exchange::begin(&config(), &request, 0) {
            Begin::Ask(exchange) => exchange,
            other => panic!("{other:?}"),
        }
    };
    let redirect = || Entry {
        learnt: 0,
        expires: 60,
        content: Content::Redirect {
            location: "http://localhost:9000/x?sig".to_owned(),
        },
        facts: String::new(),
    };
    for (method, several_ranges, forwarded) in [
        ("GET", true, true),
        ("GET", false, false),
        // A range of it means nothing.
        ("HEAD", true, false),
    ] {
        let known = begin(method, several_ranges).looked_up(&config(), Some(redirect()), 1);
        let is_forward = matches!(known, Next::Forward(_));
        assert_eq!(is_forward, forwarded, "{method}, kept");
    }
    // Both wait for one answer.
    let mut simulation = Simulation::default();
    for (stream, several_ranges) in [(1, true), (2, false)] {
        let exchange = begin("GET", several_ranges);
        simulation.on(Event::Joined { stream, exchange }, 0);
    }
    let headers = [("location", "http://localhost:9000/x?sig")];
    let commands = simulation.answer(response(307, &headers, b""), 1);
    assert!(
        matches!(commands.as_slice(), [Command::Forward(1, _), Command::Reply(2, reply)]
        if reply.status == 307),
        "{commands:?}"
    );
}
