//! Blobs: where they are, and who sends them.

use super::*;

#[test]
fn a_blob_is_redirected_or_forwarded_as_the_builder_says() {
    let digest = Digest::of(b"layer");
    let path = format!("/v2/git/blobs/{digest}");
    let mut sky = Sky::default();
    let commands = sky.join(1, &path, 0);
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
    let commands = sky.answer(response(307, &headers, b""), 1);
    assert!(
        matches!(commands.as_slice(), [Command::Store(..), Command::Reply(1, reply)]
        if header(reply, "location") == Some("http://localhost:9000/x?sig"))
    );

    let mut sky = Sky::default();
    sky.join(1, &path, 0);
    let commands = sky.answer(response(204, &[("cache-control", "max-age=60")], b""), 1);
    let forward = Forward {
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
