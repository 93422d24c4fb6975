//! Streams that wait: who leaves, who is sent round again, and how often the builder is asked.

use super::*;

#[test]
fn the_first_caller_may_leave() {
    let mut simulation = Simulation::default();
    simulation.join(1, GIT, 100);
    simulation.join(2, GIT, 100);
    assert_eq!(simulation.on(Event::Left { stream: 1 }, 101), []);
    assert_eq!(
        statuses(&simulation.answer(manifest(b"{}", 300), 102)),
        [(2, 200)]
    );
}

#[test]
fn a_flight_that_nobody_waits_for_ends() {
    let mut simulation = Simulation::default();
    simulation.join(1, GIT, 100);
    simulation.on(Event::Left { stream: 1 }, 101);
    assert_eq!(simulation.answer(response(202, &[], b""), 120), []);
    assert_eq!(
        simulation.join(2, GIT, 121).len(),
        1,
        "the next one starts another"
    );
}

#[test]
fn each_stream_is_held_for_its_own_hold() {
    let mut simulation = Simulation::default();
    simulation.join(1, GIT, 100);
    simulation.join(2, GIT, 112);
    let commands = simulation.answer(response(202, &[], b""), 120);
    assert_eq!(statuses(&commands), [(1, 307)]);
    let Some(Command::Call(call)) = commands.last() else {
        panic!("{commands:?}")
    };
    assert_eq!(call.timeout, 17, "the second has 12 s left");
    assert_eq!(
        statuses(&simulation.answer(response(202, &[], b""), 132)),
        [(2, 307)]
    );
}

#[test]
fn redirects_end_when_the_budget_is_used_up() {
    let (mut path, mut now, mut redirects) = (format!("{GIT}?ns=x"), 1000, 0);
    loop {
        let mut simulation = Simulation::default();
        simulation.join(1, &path, now);
        now += 20;
        let building = response(202, &[(wire::BUILDING_FOR, "77")], b"");
        let commands = simulation.answer(building, now);
        let [Command::Reply(1, reply)] = commands.as_slice() else {
            panic!("{commands:?}")
        };
        if reply.status == 429 {
            assert!(String::from_utf8_lossy(&reply.body).contains("77 s"));
            assert!(header(reply, "retry-after").is_some());
            break;
        }
        redirects += 1;
        path = header(reply, "location").unwrap().to_owned();
        assert_eq!(path, format!("{GIT}?ns=x&nixgate-since=3e8"));
    }
    assert!(
        (7..=8).contains(&redirects),
        "{redirects}: clients follow 9"
    );
}

#[test]
fn a_forged_start_can_only_shorten_the_budget() {
    for (since, status) in [
        ("ffffffffffffff", 307),
        ("0", 429),
        ("-1", 307),
        ("zz", 307),
    ] {
        let mut simulation = Simulation::default();
        simulation.join(1, &format!("{GIT}?nixgate-since={since}"), 10_000);
        assert_eq!(
            statuses(&simulation.answer(response(202, &[], b""), 10_020)),
            [(1, status)],
            "{since}"
        );
    }
}

#[test]
fn a_builder_that_does_not_wait_is_asked_ever_more_seldom() {
    let mut simulation = Simulation::default();
    simulation.join(1, GIT, 100);
    let (mut calls, mut answered) = (vec![100], Vec::new());
    let mut before = simulation.calls;
    for now in 100..=130 {
        let mut commands = Vec::new();
        if simulation.flights.has_resting() {
            commands.extend(simulation.on(Event::Tick, now));
        }
        if simulation.calls > before {
            calls.push(now);
        }
        // Every call is answered in the second in which it was made.
        if simulation.calls > before || now == 100 {
            before = simulation.calls;
            commands.extend(simulation.answer(response(202, &[], b""), now));
        }
        answered.extend(statuses(&commands).into_iter().map(|one| (now, one)));
    }
    assert_eq!(calls, [100, 101, 103, 107, 115]);
    assert_eq!(answered, [(120, (1, 307))], "the hold is as long as ever");
    assert!(!simulation.flights.has_resting());
}

#[test]
fn a_flight_that_rests_ends_with_the_last_who_waits() {
    let mut simulation = Simulation::default();
    simulation.join(1, GIT, 100);
    simulation.answer(response(202, &[], b""), 100);
    assert_eq!(
        simulation.join(2, GIT, 100),
        [],
        "who comes now rests with it"
    );
    simulation.on(Event::Left { stream: 1 }, 100);
    assert!(simulation.flights.has_resting());
    simulation.on(Event::Left { stream: 2 }, 100);
    assert!(!simulation.flights.has_resting());
    assert_eq!(simulation.on(Event::Tick, 101), []);
    assert_eq!(simulation.join(3, GIT, 101).len(), 1);
}

#[test]
fn a_builder_that_waits_is_never_made_to_rest() {
    let mut simulation = Simulation::default();
    simulation.join(1, GIT, 100);
    // One more each second, so that each call has but a second to wait.
    for now in 101..120 {
        simulation.join(now as u32, GIT, now);
    }
    for now in 120..140 {
        simulation.answer(response(202, &[], b""), now);
        assert!(!simulation.flights.has_resting(), "{now}");
    }
}

#[test]
fn nobody_waits_for_more_than_27_seconds() {
    let json = br#"{"builder": {"cluster": "b", "token_env": "T"}, "hold_seconds": 22}"#;
    let config = Config::parse(json, |_| Some("secret".to_owned())).unwrap();
    let mut flights = Flights::default();
    for (stream, began) in [(1, 100), (2, 121)] {
        let exchange = ask(GIT, began);
        play(
            &mut flights,
            &config,
            Event::Joined { stream, exchange },
            began,
        );
    }
    let (key, token) = (ask(GIT, 0).key().clone(), 1);
    play(&mut flights, &config, Event::Dispatched { key, token }, 100);
    let response = response(202, &[], b"");
    let commands = play(
        &mut flights,
        &config,
        Event::Answered { token, response },
        122,
    );
    assert_eq!(statuses(&commands), [(1, 307)]);
    let Some(Command::Call(call)) = commands.last() else {
        panic!("{commands:?}")
    };
    assert_eq!(122 + call.timeout, 121 + 27);
}

#[test]
fn a_clock_that_jumps_lets_nobody_wait_for_ever() {
    const YEAR: Seconds = 365 * 24 * 60 * 60;
    let now = 50 * YEAR;
    for (jump, first) in [(now + YEAR, 429), (now - YEAR, 307), (0, 307)] {
        let mut simulation = Simulation::default();
        simulation.join(1, GIT, now);
        simulation.answer(response(202, &[], b""), now);
        assert!(
            simulation.flights.has_resting(),
            "the answer came too early"
        );
        // Who comes after the jump finds a flight that rests until a time before it.
        assert_eq!(simulation.join(2, GIT, jump), []);
        let commands = simulation.on(Event::Tick, jump);
        assert_eq!(statuses(&commands), [(1, first)], "{jump}");
        let Some(Command::Call(call)) = commands.last() else {
            panic!("{jump}: {commands:?}")
        };
        assert_eq!(call.timeout, 25, "{jump}: it has all of its hold");
        let answered = simulation.answer(manifest(b"{}", 300), jump + 1);
        assert_eq!(statuses(&answered), [(2, 200)], "{jump}");
    }
    // A client that was sent round before the jump starts anew, or is told to come back.
    for (since, status) in [(now + YEAR, 307), (now - YEAR, 429)] {
        let mut simulation = Simulation::default();
        simulation.join(1, &format!("{GIT}?nixgate-since={since:x}"), now);
        let commands = simulation.answer(response(202, &[], b""), now + 20);
        assert_eq!(statuses(&commands), [(1, status)], "{since}");
    }
}
