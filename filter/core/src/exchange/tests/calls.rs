//! Callouts: what the builder is asked, for whom, and when it can't be.

use super::*;

#[test]
fn a_miss_becomes_one_call_with_everything_the_builder_needs() {
    let mut simulation = Simulation::default();
    let commands = simulation.join(1, "/v2/shell/git/manifests/latest?ns=x", 100);
    let [Command::Call(call)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    let value = |name| {
        call.headers
            .iter()
            .find(|(header, _)| *header == name)
            .unwrap()
            .1
            .as_str()
    };
    assert_eq!(call.cluster, "builder");
    assert_eq!(call.timeout, 25);
    assert_eq!(
        value(":path"),
        "/v2/bashinteractive/cacert/coreutils/git/iana-etc/moreutils/nano/manifests/latest"
    );
    assert_eq!(value("prefer"), "wait=20, similar-names");
    assert_eq!(value("accept"), MediaType::Oci.as_str());
}

#[test]
fn everyone_is_answered_by_one_call() {
    let mut simulation = Simulation::default();
    simulation.join(1, GIT, 100);
    assert_eq!(
        simulation.join(2, "/v2/git/cacert/manifests/latest", 101),
        []
    );
    let commands = simulation.answer(manifest(b"{}", 300), 102);
    assert_eq!(statuses(&commands), [(1, 200), (2, 200)]);
    let Command::Store(key, entry) = &commands[0] else {
        panic!("{commands:?}")
    };
    assert_eq!((key, entry.expires), (ask(GIT, 0).key(), 402));
    assert_eq!(simulation.calls, 1);
}

#[test]
fn a_call_that_the_host_refuses_answers_everyone() {
    let mut flights = Flights::default();
    for stream in [1, 2] {
        let exchange = ask(GIT, 0);
        play(
            &mut flights,
            &config(),
            Event::Joined { stream, exchange },
            0,
        );
    }
    let key = ask(GIT, 0).key().clone();
    let commands = play(&mut flights, &config(), Event::NotDispatched { key }, 0);
    assert_eq!(statuses(&commands), [(1, 503), (2, 503)]);
}
