//! What is noted of each request.

use super::*;

#[test]
fn what_was_done_is_noted() {
    let note = |commands: &[Command<u32>]| match commands.last() {
        Some(Command::Reply(_, reply)) => {
            let Record {
                route,
                image,
                outcome,
                judgement: None,
            } = &reply.record
            else {
                panic!("{reply:?}")
            };
            format!("{route} {image} {}", outcome.as_str())
        }
        other => panic!("{other:?}"),
    };
    let answered = |answer, now| {
        let mut simulation = Simulation::default();
        simulation.join(1, GIT, 0);
        note(&simulation.answer(answer, now))
    };
    for (answer, now, outcome) in [
        (manifest(b"{}", 300), 1, "miss"),
        (response(404, &[], REFUSAL), 1, "refused"),
        (
            response(429, &[("retry-after", "1")], REFUSAL),
            1,
            "refused",
        ),
        (Response::default(), 1, "failed"),
        (response(202, &[], b""), 20, "redirected"),
        (response(202, &[], b""), 200, "refused"),
    ] {
        let expected = format!("manifest cacert/git/iana-etc {outcome}");
        assert_eq!(answered(answer, now), expected);
    }

    let document = old_document();
    let mut simulation = Simulation::default();
    simulation.on(joined_after_expiry(document.clone()), 400);
    let stale = note(&simulation.answer(Response::default(), 401));
    assert_eq!(stale, "manifest cacert/git/iana-etc stale");

    let refusal = Entry {
        learnt: 0,
        expires: 400,
        content: Content::Refusal {
            status: 404,
            body: REFUSAL.into(),
        },
        facts: String::new(),
    };
    for (entry, outcome) in [(document, Outcome::Hit), (refusal, Outcome::Refused)] {
        match ask(GIT, 0).looked_up(&config(), Some(entry), 0) {
            Next::Reply(reply) => {
                let Record { route, image, .. } = &reply.record;
                assert_eq!((*route, &**image), ("manifest", "cacert/git/iana-etc"));
                assert_eq!(reply.record.outcome, outcome);
            }
            other => panic!("{other:?}"),
        }
    }
    for (path, outcome) in [("/v2/", Outcome::Answered), ("/v2/x", Outcome::Refused)] {
        match begin("GET", path, 0) {
            Begin::Reply(reply) => assert_eq!(reply.record, Record::other(outcome)),
            other => panic!("{other:?}"),
        }
    }
}
