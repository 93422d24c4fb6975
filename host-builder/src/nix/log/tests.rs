use super::*;
use crate::telemetry::build_log::Phase;

const DRV: &str = "/nix/store/00000000000000000000000000000000-git-2.39.drv";
const BUILD: &str = r#"Derive([("out","/nix/store/x-git","",""),("doc","/nix/store/y","","")],["#;
const DOWNLOAD: &str = r#"Derive([("out","/nix/store/x-git","r:sha256","00ff")],[],"#;

#[test]
fn a_package_set_that_is_fetched_is_counted_in_bytes_and_a_build_s_downloads_are_not() {
    let events = [
        r#"{"action":"start","id":1,"type":101,"level":4,"fields":["https://h/x.tar.gz"]}"#,
        r#"{"action":"result","id":1,"type":105,"fields":[0,0,0,0]}"#,
        r#"{"action":"result","id":1,"type":105,"fields":[30,40,0,0]}"#,
        r#"{"action":"stop","id":1}"#,
    ]
    .map(str::to_owned);
    let build = BuildLog::new("id", None, &[], "");
    hear(&mut NixLog::new(&build), &events);
    assert_eq!(build.snapshot().bytes, None);
    let source = BuildLog::of_source("id", "channel stable");
    source.enter(Phase::Fetching);
    hear(&mut NixLog::of_source(&source), &events);
    let (done, expected) = (30, 40);
    let snapshot = source.snapshot();
    assert_eq!(snapshot.bytes, Some(Counts { done, expected }));
    assert_eq!(snapshot.percent, 60);
    let (lines, _) = source.lines_after(0);
    assert_eq!(lines[0].1, "downloading https://h/x.tar.gz");
}

fn hear(log: &mut NixLog<'_>, events: &[String]) {
    for event in events {
        // In two pieces, as a pipe may deliver it.
        let line = format!("@nix {event}\n");
        let (first, second) = line.split_at(line.len() / 2);
        log.hear(first.as_bytes());
        log.hear(second.as_bytes());
    }
}

/// As Nix 2.8 prints it.
fn started() -> Vec<String> {
    [
        r#"{"action":"start","id":1,"level":0,"text":"","type":104}"#,
        r#"{"action":"start","id":2,"level":0,"text":"","type":103}"#,
        r#"{"action":"result","fields":[1,4,1,0],"id":1,"type":105}"#,
        r#"{"action":"start","fields":["DRV","",1,1],"id":7,"level":3,"text":"building","type":105}"#,
        r#"{"action":"result","fields":["buildPhase"],"id":7,"type":104}"#,
        r#"{"action":"result","fields":["\u001b[31mone\u001b[0m\u0007"],"id":7,"type":101}"#,
        r#"{"action":"unheard of","id":7}"#,
    ]
    .map(|line| line.replace("DRV", DRV))
    .into()
}

#[test]
fn builds_are_counted_and_their_lines_are_kept_under_their_names() {
    let log = BuildLog::new("id", None, &[], "");
    let mut nix = NixLog::with_derivations(&log, |_| Ok(BUILD.to_owned()));
    hear(&mut nix, &started());
    let work = nix.work();
    let counts = Counts {
        done: 1,
        expected: 4,
    };
    assert_eq!((work.builds, work.fetches), (counts, Counts::default()));
    assert_eq!(work.running[0].derivation, "git-2.39");
    assert_eq!(work.running[0].phase.as_deref(), Some("buildPhase"));
    let (lines, _) = log.lines_after(0);
    let lines: Vec<_> = lines.into_iter().map(|(_, text)| text).collect();
    assert_eq!(lines, [format!("building {DRV}"), "git-2.39> one".into()]);
}

#[test]
fn a_failure_has_the_last_lines_of_the_build_that_failed() {
    let log = BuildLog::new("id", None, &[], "");
    let mut nix = NixLog::with_derivations(&log, |_| Ok(BUILD.to_owned()));
    hear(&mut nix, &started());
    let line =
        |text: String| format!(r#"{{"action":"result","fields":["{text}"],"id":7,"type":101}}"#);
    let lines: Vec<_> = (0..20)
        .map(|number| line(format!("line {number}")))
        .collect();
    hear(&mut nix, &lines);
    hear(
        &mut nix,
        &[
            r#"{"action":"stop","id":7}"#.to_owned(),
            format!(
                r#"{{"action":"msg","level":0,"msg":"\u001b[31;1merror:\u001b[0m builder for '{DRV}' failed"}}"#
            ),
        ],
    );
    nix.hear(b"a \r\x1b[1mword without an end");
    let end = nix.end();
    assert!(
        end.starts_with(&format!("error: builder for '{DRV}' failed\n")),
        "{end}"
    );
    assert!(
        end.contains("> line 10\n") && !end.contains("> line 9\n"),
        "{end}"
    );
    assert!(end.ends_with("> line 19\na word without an end"), "{end}");
}

#[test]
fn a_private_key_is_hidden_from_the_log_and_the_error() {
    let log = BuildLog::new("id", None, &[], "");
    let mut nix = NixLog::with_derivations(&log, |_| Ok(BUILD.to_owned()));
    hear(&mut nix, &started());
    let key = [
        "-----BEGIN RSA PRIVATE KEY-----",
        "c2VjcmV0",
        "-----END RSA PRIVATE KEY-----",
        "after",
    ];
    for text in key {
        let line = format!(r#"{{"action":"result","fields":["{text}"],"id":7,"type":101}}"#);
        hear(&mut nix, &[line]);
        // Other lines come between those of the build.
        nix.hear(format!("{text}\n").as_bytes());
        nix.event(Event::Message {
            level: INFO,
            text: "between".to_owned(),
        });
    }
    let error =
        format!(r#"{{"action":"msg","level":0,"msg":"error: builder for '{DRV}' failed"}}"#);
    hear(&mut nix, &[r#"{"action":"stop","id":7}"#.to_owned(), error]);
    let (lines, _) = log.lines_after(0);
    let lines: Vec<_> = lines.into_iter().map(|(_, text)| text).collect();
    let end = nix.end();
    let all = lines.join("\n");
    assert!(
        !all.contains("c2VjcmV0") && !end.contains("c2VjcmV0"),
        "{all}\n{end}"
    );
    assert!(
        all.contains("git-2.39> after\n") && all.contains("\nafter"),
        "{all}"
    );
    assert_eq!(all.matches("between").count(), key.len(), "{all}");
    assert!(end.ends_with("> after"), "{end}");
}

#[test]
fn the_output_of_a_build_with_the_network_is_for_the_administrator_alone() {
    let unreadable = |_: &str| Err(io::Error::other("unreadable"));
    for (derivation, hidden) in [
        ((|_| Ok(BUILD.to_owned())) as fn(&str) -> _, false),
        (|_| Ok(DOWNLOAD.to_owned()), true),
        (unreadable, true),
    ] {
        let log = BuildLog::new("id", None, &[], "");
        let mut nix = NixLog::with_derivations(&log, derivation);
        hear(&mut nix, &started());
        // A daemon's errors repeat the log.
        let error = format!(
            "error: builder for '{DRV}' failed with exit code 1;\\n       last 1 log lines:\\n       \
             > secret\\n       For full logs, run 'nix log'"
        );
        hear(
            &mut nix,
            &[
                r#"{"action":"result","fields":["secret"],"id":7,"type":101}"#.to_owned(),
                r#"{"action":"stop","id":7}"#.to_owned(),
                format!(r#"{{"action":"msg","level":0,"msg":"{error}"}}"#),
            ],
        );
        let end = nix.end();
        assert_eq!(!end.contains("secret"), hidden, "{end}");
        assert!(end.contains(DRV) && end.contains("nix log"), "{end}");
        // Administrators read all of it.
        let (lines, _) = log.lines_after(0);
        assert!(lines.iter().any(|(_, line)| line == "git-2.39> secret"));
    }
}

#[test]
fn a_line_without_an_end_takes_no_more_than_its_share() {
    let log = BuildLog::new("id", None, &[], "");
    let mut nix = NixLog::with_derivations(&log, |_| Ok(BUILD.to_owned()));
    for _ in 0..100 {
        nix.hear(&[b'x'; 4096]);
    }
    assert_eq!(nix.line.len(), LINE_LIMIT);
}

#[test]
fn an_event_may_have_bytes_of_a_bad_archive() {
    let line = b"@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"bad archive: got '\xd7'\"}";
    let read = Event::read(line);
    let Some(Ok(Event::Message { level: 0, text })) = read else {
        panic!("{read:?}")
    };
    assert_eq!(text, "bad archive: got '\u{fffd}'");
}

#[test]
fn events_are_read_and_unknown_ones_are_not() {
    let read = |line: &str| Event::read(line.as_bytes());
    assert!(read("building").is_none());
    assert!(read("@nix {").unwrap().is_err());
    for (json, event) in [
        (
            r#"{"action":"start","id":1,"type":100,"fields":["/nix/store/x","https://c"]}"#,
            Event::Starts(
                1,
                Activity::Copy {
                    path: "/nix/store/x".to_owned(),
                    cache: "https://c".to_owned(),
                },
            ),
        ),
        (
            r#"{"action":"start","id":1,"type":103}"#,
            Event::Starts(1, Activity::Copies),
        ),
        (
            r#"{"action":"result","id":1,"type":101,"fields":["\u001b[31mone\u001b[0m\u0007"]}"#,
            Event::LogLine(1, "one".to_owned()),
        ),
        (r#"{"action":"start","id":1,"type":999}"#, Event::Unknown),
        (r#"{"action":"dance"}"#, Event::Unknown),
    ] {
        assert_eq!(read(&format!("@nix {json}")).unwrap().unwrap(), event);
    }
}
