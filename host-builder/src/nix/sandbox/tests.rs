use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use super::*;
use crate::process::ProcessError;

const MACHINE: Identity = Identity::new(1, 2);
const OUTSIDE: Outside = Outside {
    has_witness: true,
    store: MACHINE,
    store_owner: 500,
};

/// The report from a good sandbox.
fn confined() -> Report {
    let root = "build dev etc nix proc tmp".split(' ');
    Report {
        root: root.map(str::to_owned).collect(),
        user: Some(30_001),
        // The sandbox's own store folder.
        store: Some(Identity::new(1, 3)),
        ..Report::default()
    }
}

fn sees(name: &str) -> Report {
    let mut report = confined();
    report.root.insert(name.to_owned());
    report
}

fn failed(stderr: &str) -> NixError {
    NixError::Process(ProcessError::Failed {
        program: "nix-build",
        status: std::process::ExitStatus::from_raw(100 << 8),
        stderr: stderr.to_owned(),
    })
}

#[test]
fn only_a_build_that_works_and_does_not_see_the_machine_proves_a_sandbox() {
    let no_namespaces =
        "this will be built:\n\u{1b}[31;1merror:\u{1b}[0m no namespaces\nerror: no build";
    let missing = Err(NixError::Missing {
        program: "nix-build",
    });
    let nowhere = Outside {
        has_witness: false,
        ..OUTSIDE
    };
    let mut storeless = confined();
    storeless.root.remove("nix");
    assert!(verdict(Ok(confined()), false, OUTSIDE, false).is_ok());
    for (report, outside, part) in [
        (Ok(sees("sys")), OUTSIDE, "machine's /sys"),
        (Ok(sees("sys")), nowhere, "machine's /sys"),
        (Ok(confined()), nowhere, "this machine has no /sys"),
        (Ok(storeless), OUTSIDE, "{\"build\", \"dev\""),
        (
            Err(failed(no_namespaces)),
            OUTSIDE,
            "(this will be built:; no namespaces; no build)",
        ),
        (Err(failed("error: disk full")), OUTSIDE, "(disk full)"),
        (missing, OUTSIDE, "Install Nix"),
    ] {
        let error = verdict(report, false, outside, true).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_probe_that_does_not_run_differs_from_a_missing_sandbox() {
    let library = "nixgate: error while loading shared libraries: libgcc_s.so.1: cannot open shared \
                   object file: No such file or directory";
    let old = "error: builder for '/nix/store/x.drv' failed with";
    let new = "error: Cannot build '/nix/store/x.drv'.\n Reason: builder failed with exit code";
    for (stderr, ran) in [
        (format!("building\n{library}\n{old} exit code 127"), false),
        (
            format!("{new} 127.\n Last 1 log lines:\n > {library}"),
            false,
        ),
        (
            format!("executing '/nix/store/x/ld.so': denied\n{old} exit code 1"),
            false,
        ),
        (
            format!("{old} due to signal 4 (Illegal instruction)")
                .replace("failed with due", "failed due"),
            false,
        ),
        (
            format!("nixgate: {UNTRIED}: no $out\n{old} exit code 1"),
            false,
        ),
        (
            format!("while setting up: mounting /proc: denied\n{old} exit code 1;\n more"),
            true,
        ),
        ("error: no namespaces".to_owned(), true),
    ] {
        let error = verdict(Err(failed(&stderr)), false, OUTSIDE, true).unwrap_err();
        assert_eq!(
            matches!(error, NixError::NotSandboxed { .. }),
            ran,
            "{error}"
        );
        assert_eq!(
            matches!(error, NixError::ProbeNotRun { .. }),
            !ran,
            "{error}"
        );
        let error = error.to_string();
        assert_eq!(error.contains("--allow-unsandboxed"), ran, "{error}");
        let words = [
            "libgcc_s.so.1: cannot open",
            "mounting /proc: denied",
            "no $out",
        ];
        for words in words.iter().filter(|words| stderr.contains(**words)) {
            assert!(error.contains(words), "no {words:?} in {error}");
        }
    }
}

#[test]
fn all_that_a_build_could_do_is_named_with_the_setting() {
    let all = Report {
        store: Some(MACHINE),
        inputs: vec!["/nix/store/a".into()],
        mounts: vec!["/usr".into(), "/opt".into()],
        ..confined()
    };
    let store = Report {
        store: Some(MACHINE),
        ..confined()
    };
    let inputs = Report {
        inputs: vec!["/nix/store/a".into()],
        ..confined()
    };
    let mounts = Report {
        mounts: vec!["/usr".into()],
        ..confined()
    };
    for (report, called, parts) in [
        (store, false, &["write to this machine's /nix/store"][..]),
        (inputs, false, &["change its inputs (/nix/store/a)"]),
        (mounts, false, &["write to /usr,", "read-only"]),
        (confined(), true, &["connect to this machine's loopback"]),
        (
            all,
            true,
            &["/nix/store; it", "inputs", "/usr /opt", "loopback"],
        ),
    ] {
        // A shared build user permits none of it.
        for shared_user in [false, true] {
            let error = verdict(Ok(report.clone()), called, OUTSIDE, shared_user).unwrap_err();
            let error = error.to_string();
            for part in parts.iter().chain(&["--allow-unsandboxed"]) {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
}

#[test]
fn what_keeps_nix_from_building_at_all_is_told_with_its_remedy() {
    for (said, reason, remedy) in [
        (
            "warning: the group 'nixbld' specified in 'build-users-group' does not exist\nthis derivation \
             will be built:\n  /nix/store/x.drv\nerror: the group 'nixbld' specified in \
             'build-users-group' does not exist",
            "(the group 'nixbld' specified in 'build-users-group' does not exist)",
            "Make the group and its users",
        ),
        (
            "error: the build users group 'nixbld' has no members",
            "(the build users group 'nixbld' has no members)",
            "--allow-shared-build-user",
        ),
        (
            "error: cannot figure out user name",
            "user name",
            "Set USER",
        ),
        (
            "\u{1b}[31;1merror:\u{1b}[0m remounting /nix/store writable: Invalid argument",
            "(remounting /nix/store writable: Invalid argument)",
            "mount it read-write",
        ),
    ] {
        let error = verdict(Err(failed(said)), false, OUTSIDE, false).unwrap_err();
        assert!(matches!(error, NixError::CannotBuild { .. }), "{error}");
        let error = error.to_string();
        for part in [reason, remedy] {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
        assert!(!error.contains("namespaces"), "{error}");
    }
}

#[test]
fn builds_as_the_store_s_owner_or_as_root_need_their_own_permission() {
    let of = |user| Report {
        user,
        inputs: vec![PathBuf::from("/nix/store/a")],
        ..confined()
    };
    for user in [Some(500), Some(0), None] {
        let error = verdict(Ok(of(user)), false, OUTSIDE, false).unwrap_err();
        assert!(matches!(error, NixError::SharedBuildUser { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("--allow-shared-build-user"), "{error}");
        assert!(verdict(Ok(of(user)), false, OUTSIDE, true).is_ok());
    }
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("report");
    let report = Report {
        mounts: vec!["/usr".into()],
        ..confined()
    };
    std::fs::write(&output, serde_json::to_vec(&report).unwrap()).unwrap();
    assert_eq!(read(&output).unwrap(), report);
    std::fs::write(&output, "{}").unwrap();
    assert!(read(&output).is_err());
}

#[test]
fn downloads_are_enclosed_only_when_a_probe_proves_it() {
    let worked = || Ok(());
    let broken = || Err(failed("error: no such file"));
    // Without an enclosed network, they must reach nothing.
    assert_eq!(downloads(worked(), false, false).unwrap(), None);
    for (built, called, part) in [
        (
            worked(),
            true,
            "reach this machine's loopback. Set NIXGATE_PROXY_ONLY",
        ),
        (
            broken(),
            true,
            "reach this machine's loopback. Set NIXGATE_PROXY_ONLY",
        ),
        (broken(), false, "the probe failed (no such file)"),
    ] {
        let weak = downloads(built, called, false).unwrap().unwrap();
        assert!(weak.contains(part), "no {part:?} in {weak}");
    }
    // With one, they have to reach the listener inside.
    assert_eq!(downloads(worked(), true, true).unwrap(), None);
    for (built, called, part) in [
        (worked(), false, "nix-daemon"),
        (broken(), false, "no such file"),
        (broken(), true, "no such file"),
    ] {
        let error = downloads(built, called, true).unwrap_err();
        assert!(matches!(error, NixError::NoEnclosure { .. }), "{error}");
        assert!(error.to_string().contains(part), "no {part:?} in {error}");
    }
    // Nix did not run.
    for enclosed in [false, true] {
        let missing = Err(NixError::Missing {
            program: "nix-build",
        });
        let error = downloads(missing, false, enclosed).unwrap_err();
        assert!(matches!(error, NixError::Missing { .. }), "{error}");
    }
}

#[test]
fn a_connection_to_the_probe_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let probe = Probe::new(&folder.path().join("program"), true, None).unwrap();
    assert!(!probe.was_called());
    let port = probe.listener.local_addr().unwrap().port();
    assert_eq!(probe.trial.arguments.last(), Some(&probe.trial.unique));
    assert!(probe.trial.arguments.contains(&port.to_string()));
    drop(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    assert!(probe.was_called());
}
