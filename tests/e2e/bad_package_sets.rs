//! Package sets on their bad days: each package of the set has one fault, and each fault has an error
//! that says what happened, to what, and what to do.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::live::builder::TOKEN;
use nixgate_tests::live::http::request;
use nixgate_tests::live::served_set::ServedSet;
use nixgate_tests::live::{envoy, poll, stack::Stack};

/// Faults of Nix code; `PORT` is one on loopback.
const EVALUATED: &str = r#"
    fine = package "fine" "mkdir $out";
    recursion = let x = x; in x;
    bottomless = let f = n: 1 + f n; in f 1;
    throws = throw "throws is not for you";
    function = arguments: package "function" "mkdir $out";
    text = "text";
    reads = package "reads-${builtins.readFile "/etc/passwd"}" "mkdir $out";
    lists = package "lists" (toString (builtins.attrNames (builtins.readDir "/")));
    imports = import /etc/passwd;
    searches = import <nixpkgs> { };
    fetches = package "fetches" (builtins.readFile (builtins.fetchurl "http://127.0.0.1:PORT/x"));
    clones = package "clones" (builtins.fetchGit "http://127.0.0.1:PORT/x").outPath;
    waits = import (package "built" "echo 1 > $out");
"#;

/// A server that nobody is to call.
struct Nobody(TcpListener);

impl Nobody {
    fn listen() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    fn port(&self) -> Result<u16> {
        Ok(self.0.local_addr()?.port())
    }

    fn was_called(&self) -> bool {
        self.0.accept().is_ok()
    }
}

#[test]
fn each_fault_of_a_package_is_told_by_its_name_and_reason() -> Result<()> {
    let nobody = Nobody::listen()?;
    let packages = EVALUATED.replace("PORT", &nobody.port()?.to_string());
    let served = ServedSet::start(&packages, |settings| settings)?;
    let forbidden = "is forbidden in restricted mode";
    for (name, status, parts) in [
        (
            "recursion",
            403,
            ["recursion (infinite recursion", "maintainers"],
        ),
        (
            "bottomless",
            403,
            ["bottomless (stack overflow", "maintainers"],
        ),
        ("throws", 403, ["throws (throws is not for you)", "DENIED"]),
        ("nothere", 404, ["no nothere", "MANIFEST_UNKNOWN"]),
        (
            "function",
            403,
            ["function (a function, not a package)", "DENIED"],
        ),
        ("text", 403, ["text (a string, not a package)", "DENIED"]),
        (
            "reads",
            403,
            ["reads (access to absolute path '/etc/passwd'", forbidden],
        ),
        (
            "lists",
            403,
            ["lists (access to absolute path '/'", forbidden],
        ),
        (
            "imports",
            403,
            ["imports (access to absolute path '/etc/passwd'", forbidden],
        ),
        (
            "searches",
            403,
            ["searches (file 'nixpkgs' was not found", "DENIED"],
        ),
        (
            "fetches",
            403,
            ["fetches (access to URI 'http://127.0.0.1:", forbidden],
        ),
        (
            "clones",
            403,
            ["clones (access to URI 'http://127.0.0.1:", forbidden],
        ),
        (
            "waits",
            403,
            ["waits (cannot build", "allow-import-from-derivation"],
        ),
    ] {
        let (seen, text) = served.pull(&format!("fine/{name}"))?;
        assert_eq!(seen.as_u16(), status, "{name}: {text}");
        for part in parts {
            assert!(text.contains(part), "{name}: {part}: {text}");
        }
        assert!(!text.contains("fine ("), "{name}: {text}");
        assert!(!text.contains("root:x:0"), "{name}: {text}");
    }
    assert!(!nobody.was_called());
    served.pulls("fine")
}

#[test]
fn what_the_administrator_allows_is_allowed() -> Result<()> {
    let nobody = Nobody::listen()?;
    let url = format!("http://127.0.0.1:{}/", nobody.port()?);
    let packages = EVALUATED.replace("PORT", &nobody.port()?.to_string());
    let packages = format!(
        r#"{packages} built = let name = import (package "name" "echo '\"built\"' > $out");
                      in package name "mkdir $out";"#
    );
    let served = ServedSet::start(&packages, |settings| {
        settings
            .with("NIXGATE_ALLOWED_URIS", format!("https://a.example/ {url}"))
            .with("NIXGATE_IMPORT_FROM_DERIVATION", "true")
    })?;
    served.pulls("built")?;
    // It hangs up at once.
    let listener = nobody.0;
    let called =
        thread::spawn(move || poll::until("somebody calls", || listener.accept().ok()).map(drop));
    let (_, text) = served.pull("fetches")?;
    assert!(!text.contains("restricted mode"), "{text}");
    called.join().expect("the server's thread ends")
}

#[test]
fn an_evaluation_without_an_end_is_ended_whatever_it_prints() -> Result<()> {
    let packages = r#"
        fine = package "fine" "mkdir $out";
        # 10 MB on stderr, and then nothing for hours.
        hangs = let
          megabyte = builtins.foldl' (text: _: text + text) "x" (builtins.genList (x: x) 20);
          say = builtins.foldl' (n: _: builtins.trace megabyte (n + 1)) 0 (builtins.genList (x: x) 10);
          count = n: builtins.foldl' (a: b: a + b) 0 (builtins.genList (x: x) n);
        in builtins.seq say (builtins.foldl' (a: b: a + count 100000 + b) 0 (builtins.genList (x: x) 10000000));
    "#;
    let served = ServedSet::start(packages, |settings| {
        settings.with("NIXGATE_EVAL_TIMEOUT", "5")
    })?;
    let (status, text) = served.pull("hangs")?;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    let (_, set) = served.root()?;
    let set = set.file_name().context("a name")?.to_string_lossy();
    let (revision, _) = set.split_once('-').context("a hash")?;
    for part in [
        "5 s",
        "NIXGATE_EVAL_TIMEOUT",
        revision,
        "Leave out one package",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(of_builder(&served, "nix-instantiate"), [0; 0]);
    Ok(())
}

#[test]
fn an_evaluation_that_takes_too_much_is_ended() -> Result<()> {
    let packages = r#"
        fine = package "fine" "mkdir $out";
        greedy = builtins.length (builtins.genList (x: x) 200000000);
        wordy = package "wordy" "mkdir $out" // {
          pname = builtins.foldl' (text: _: text + text) "x" (builtins.genList (x: x) 27);
        };
    "#;
    let served = ServedSet::start(packages, |settings| {
        settings.with("NIXGATE_EVAL_MEMORY", "1024")
    })?;
    for (name, parts) in [
        ("greedy", ["1024 MiB", "NIXGATE_EVAL_MEMORY"]),
        ("wordy", ["64 MiB", "maintainers"]),
    ] {
        let (status, text) = served.pull(name)?;
        assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
        for part in parts {
            assert!(text.contains(part), "{name}: {part}: {text}");
        }
    }
    served.pulls("fine")
}

#[test]
fn a_build_without_an_end_is_ended_whatever_it_prints() -> Result<()> {
    let packages = r#"
        fine = package "fine" "mkdir $out";
        hangs = package "hangs" ''
          head -c 10000000 /dev/zero | tr '\0' x >&2
          echo >&2
          echo before the silence
          sleep 100000
        '';
    "#;
    let served = ServedSet::start(packages, |settings| settings.with("NIX_TIMEOUT", "5"))?;
    let (status, text) = served.pull("hangs")?;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    assert!(text.contains("NIX_TIMEOUT"), "{text}");
    assert_eq!(of_builder(&served, "nix-store"), [0; 0]);
    served.pulls("fine")
}

#[test]
fn a_failing_build_is_told_with_its_last_lines_and_not_those_of_others() -> Result<()> {
    let packages = r#"
        dependency = package "dependency" "echo of the dependency; mkdir $out";
        fails = package "fails" "echo ${dependency}; seq 1 50; echo the reason >&2; exit 7";
    "#;
    let served = ServedSet::start(packages, |settings| settings)?;
    let (status, text) = served.pull("fails")?;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    for part in ["fails.drv", "exit code 7", "> 50\\n", "> the reason"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in ["> 30\\n", "of the dependency", "\\u001b", "@nix"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
    Ok(())
}

#[test]
fn what_no_image_can_hold_is_refused_by_package_and_file_and_remembered() -> Result<()> {
    let packages = r#"
        whiteout = package "whiteout" "mkdir -p $out/share; echo x > $out/share/.wh.foo";
        needs = package "needs" "mkdir $out; echo ${whiteout} > $out/needs";
        deep = package "deep" ''
          mkdir $out; cd $out
          name=$(printf %0200d 0)
          for level in $(seq 1 18); do mkdir $name; cd $name; done
          echo x > $(printf %0180d 0)
        '';
        bottomless = package "bottomless" ''
          mkdir $out; cd $out
          mkdir -p $(printf 'a/%.0s' $(seq 1 1880))
        '';
        shaft = package "shaft" "mkdir $out; echo ${bottomless} > $out/shaft";
    "#;
    let served = ServedSet::start(packages, |settings| settings)?;
    for (name, parts) in [
        (
            "whiteout",
            ["whiteout cannot be in an image", "share/.wh.foo: names"],
        ),
        (
            "needs",
            ["whiteout cannot be in an image", "share/.wh.foo: names"],
        ),
        (
            "deep",
            ["deep cannot be in an image", "its path is longer than"],
        ),
        (
            "bottomless",
            ["bottomless cannot be in an image", "directories deep"],
        ),
        (
            "shaft",
            ["bottomless cannot be in an image", "directories deep"],
        ),
    ] {
        let mut asked = Vec::new();
        for _ in 0..3 {
            let (status, text) = served.pull(name)?;
            assert_eq!(status, StatusCode::FORBIDDEN, "{name}: {text}");
            for part in parts.into_iter().chain(["DENIED"]) {
                assert!(text.contains(part), "{name}: {part}: {text}");
            }
            assert!(!text.contains("/nix/store"), "{name}: {text}");
            asked.push(served.builder.nix_processes()?);
        }
        assert!(
            asked.windows(2).all(|pair| pair[0] == pair[1]),
            "{name}: {asked:?}"
        );
    }
    Ok(())
}

/// The processes of a name that the builder started.
fn of_builder(served: &ServedSet, name: &str) -> Vec<u32> {
    let parent = format!(" {} ", served.builder.id());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // <pid> (<name>) <state> <parent> …
            let (start, rest) = stat.rsplit_once(')')?;
            let is_it = start.ends_with(&format!("({name}")) && !rest.starts_with(" Z");
            (is_it && rest.get(2..)?.starts_with(&parent)).then_some(pid)
        })
        .collect()
}

#[test]
fn a_nix_that_is_killed_amid_a_build_is_no_fault_of_the_package() -> Result<()> {
    let (stack, set) = Stack::gated(envoy::Settings::default(), &[])?;
    let builder = &stack.builder;
    let (port, path) = (builder.port(), "/v2/gated/manifests/latest");
    let token = [(nixgate_core::wire::TOKEN, TOKEN)];
    let pull = thread::spawn(move || request(Method::GET, port, path, &token));
    set.wait_for_start()?;
    let processes = fs::read_dir(format!("/proc/{}/task", builder.id()))?;
    let children: String = processes
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .collect();
    for pid in children.split_whitespace() {
        let killed = std::process::Command::new("kill")
            .args(["-KILL", pid])
            .status()?;
        assert_eq!(killed, ExitStatus::from_raw(0));
    }
    let answer = pull.join().expect("the client's thread ends")?;
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.text()
    );
    set.open()?;
    poll::until("it is built after all", || {
        let answer = request(Method::GET, port, path, &token).ok()?;
        answer.status.is_success().then_some(())
    })
}
