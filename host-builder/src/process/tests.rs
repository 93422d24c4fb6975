//! With shell scripts in place of Nix.

use super::*;

fn shell(script: &str) -> Command {
    Command {
        program: "sh",
        arguments: vec!["-c".into(), script.into()],
    }
}

const LONG: Limits = Limits::time(Duration::from_secs(60));

async fn run(command: Command, limits: Limits) -> Result<Vec<u8>, ProcessError> {
    super::run(command, Purpose::Nix, &NetworkSettings::default(), limits).await
}

#[tokio::test]
async fn a_flood_on_stderr_blocks_nothing_and_its_end_is_kept() {
    let script =
        "head -c 10000000 /dev/zero | tr '\\0' x >&2; echo the reason >&2; echo out; exit 3";
    match run(shell(script), LONG).await {
        Err(ProcessError::Failed { stderr, .. }) => {
            assert!(stderr.ends_with("the reason"));
            assert!(stderr.len() <= STDERR_TAIL);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn success_brings_stdout_alone() {
    assert_eq!(
        run(shell("echo out; echo err >&2"), LONG).await.unwrap(),
        b"out\n"
    );
}

#[tokio::test]
async fn a_child_may_have_as_many_files_as_the_builder_was_given() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let given = hard.map_or(1024, |hard| hard - 1);
    let limit = Rlimit {
        current: Some(given),
        maximum: hard,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(Some(file_limit::raise()), hard);
    let said = run(shell("ulimit -Sn"), LONG).await.unwrap();
    assert_eq!(String::from_utf8(said).unwrap().trim(), given.to_string());
}

#[tokio::test]
async fn a_program_has_a_session_of_its_own_and_so_no_terminal() {
    // proc(5): process, group and session.
    let script = "read -r pid comm state parent group session terminal rest </proc/self/stat; \
                  echo $(($pid == $group)) $(($pid == $session)) $terminal";
    let output = run(shell(script), LONG).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output), "1 1 0\n");
}

#[tokio::test]
async fn programs_get_the_environment_that_is_meant_for_them() {
    assert!(
        std::env::vars().any(|(name, _)| name.starts_with("CARGO")),
        "there is a variable that must not pass"
    );
    let output = run(shell("env"), LONG).await.unwrap();
    let output = String::from_utf8(output).unwrap();
    assert!(!output.contains("CARGO"), "{output}");
    assert!(output.contains("PATH="), "{output}");
    assert!(output.contains("GIT_TERMINAL_PROMPT=0"), "{output}");
}

#[tokio::test]
async fn a_missing_program_says_what_to_do() {
    let command = Command {
        program: "nix-that-is-not-there",
        arguments: Vec::new(),
    };
    let error = run(command, LONG).await.unwrap_err();
    assert!(matches!(error, ProcessError::Missing { .. }));
    assert!(error.to_string().contains("Install it"));
}

/// A script that ignores TERM, and so does its child.
fn stubborn(mark: &std::path::Path) -> Command {
    let script = "trap '' TERM; sleep 1000 & echo $! > {}; wait; sleep 1000";
    shell(&script.replace("{}", &mark.display().to_string()))
}

fn runs(mark: &std::path::Path) -> bool {
    let pid = std::fs::read_to_string(mark).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    std::fs::read_to_string(stat).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group_even_if_it_ignores_term() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("pid");
    let limits = Limits::time(Duration::from_secs(3));
    let error = run(stubborn(&mark), limits).await.unwrap_err();
    assert!(matches!(error, ProcessError::TimedOut { .. }), "{error:?}");
    // A killed process takes a moment to disappear.
    while runs(&mark) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn dropping_the_caller_ends_the_whole_group_too() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("pid");
    let task = tokio::spawn(run(stubborn(&mark), LONG));
    while !std::fs::read_to_string(&mark).is_ok_and(|pid| pid.ends_with('\n')) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    task.abort();
    while runs(&mark) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn too_much_on_stdout_is_an_error_of_its_own_and_ends_the_program() {
    let limits = Limits {
        output: 1 << 20,
        ..LONG
    };
    let error = run(shell("yes"), limits).await.unwrap_err();
    assert!(
        matches!(error, ProcessError::TooMuchOutput { mib: 1, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn work_in_the_background_has_the_least_priority_among_all_sessions() {
    let limits = Limits {
        background: true,
        ..LONG
    };
    // The file is there only where Linux shares the processors among sessions.
    let script = "nice; test ! -e /proc/self/autogroup || cat /proc/self/autogroup";
    let said = String::from_utf8(run(shell(script), limits).await.unwrap()).unwrap();
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("19"));
    assert!(lines.all(|line| line.ends_with("nice 19")), "{said}");
}

#[tokio::test]
async fn too_much_memory_is_an_error_of_its_own() {
    let limits = Limits {
        memory: Some(256),
        ..LONG
    };
    // The shell's limit, in KiB.
    let script = "ulimit -v >&2; echo 'error: out of memory' >&2; exit 1";
    match run(shell(script), limits).await.unwrap_err() {
        ProcessError::OutOfMemory { mib, stderr, .. } => {
            assert!(mib == 256 && stderr.starts_with("262144"), "{stderr}");
        }
        other => panic!("{other:?}"),
    }
    // Without a limit, the message is about something else.
    let words = shell("echo 'error: out of memory' >&2; exit 1");
    let error = run(words, LONG).await.unwrap_err();
    assert!(matches!(error, ProcessError::Failed { .. }), "{error:?}");
}
