//! Outputs of old and new versions of Nix.

use super::super::reason::reason;
use super::*;

#[test]
fn versions_of_every_kind_of_nix() {
    for (text, expected) in [
        ("nix (Nix) 2.8.0\n", Some((2, 8))),
        ("nix (Nix) 2.24.9", Some((2, 24))),
        ("nix (Nix) 2.31pre20250712_abc", Some((2, 31))),
        ("nix (Lix, like Nix) 2.91.1", Some((2, 91))),
        ("nix (Determinate Nix 3.6.2) 2.29.0", Some((2, 29))),
        ("2.18", Some((2, 18))),
        ("", None),
        ("nix", None),
    ] {
        let expected = expected.map(|(major, minor)| Version { major, minor });
        assert_eq!(Version::parse(text), expected, "{text}");
    }
}

#[test]
fn the_reason_is_nix_s_own_last_error() {
    let unfree = "\
warning: something
error:
       … while calling the 'throw' builtin
         at /nix/store/x/default.nix:1:2:

       error: Package ‘x’ has an unfree license,
       refusing to evaluate.

       a) To temporarily allow unfree packages, you can use an environment variable
";
    for (stderr, expected) in [
        (
            unfree,
            Some("Package ‘x’ has an unfree license, refusing to evaluate."),
        ),
        (
            "error: attribute 'a' missing\n\n       at x:1:21:\n",
            Some("attribute 'a' missing"),
        ),
        ("error: one\n       two\n", Some("one two")),
        (
            "error: experimental Nix feature 'ca-derivations' is disabled; add \
             '--extra-experimental-features ca-derivations' to enable it",
            Some(
                "it needs Nix's experimental feature ca-derivations. The registry's administrator \
                 enables it by NIXGATE_NIX_OPTIONS='extra-experimental-features=ca-derivations', with \
                 nix-daemon also in its nix.conf",
            ),
        ),
        (
            "error: experimental Nix feature 'a;b' is disabled",
            Some("experimental Nix feature 'a;b' is disabled"),
        ),
        (
            "error: one\n(use '--show-trace' to show more)\n",
            Some("one"),
        ),
        ("error:\n", None),
        ("killed", None),
    ] {
        assert_eq!(reason(stderr).as_deref(), expected, "{stderr}");
    }
}

#[test]
fn builds_that_were_killed_differ_from_those_that_failed() {
    let drv = "/nix/store/00000000000000000000000000000000-git-2.drv";
    for (stderr, expected) in [
        (
            format!("error: builder for '{drv}' failed due to signal 9 (Killed)"),
            true,
        ),
        (
            format!("error: builder for '{drv}' failed due to signal 15 (Terminated);\n"),
            true,
        ),
        // Newer ones.
        (
            format!(
                "error: Cannot build '{drv}'.\n       Reason: builder failed due to signal 9 (Killed)."
            ),
            true,
        ),
        // A shell whose child was killed.
        (
            format!("error: builder for '{drv}' failed with exit code 137"),
            true,
        ),
        (
            format!("error: builder for '{drv}' failed due to signal 11 (Segmentation fault)"),
            false,
        ),
        (
            format!("error: builder for '{drv}' failed due to signal 6 (Aborted)"),
            false,
        ),
        (
            format!("error: builder for '{drv}' failed with exit code 1"),
            false,
        ),
        (
            format!("error: builder for '{drv}' failed with exit code 1373"),
            false,
        ),
        (
            format!(
                "error: builder for '{drv}' failed with exit code 1\n  > failed due to signal 9 (Killed)"
            ),
            false,
        ),
        (String::new(), false),
    ] {
        assert_eq!(killed(&stderr), expected, "{stderr}");
    }
}

const A: &str = "00000000000000000000000000000000-a";
const B: &str = "11111111111111111111111111111111-b";

#[test]
fn every_shape_of_path_info_is_the_same_closure() {
    let (a, b) = (format!("/nix/store/{A}"), format!("/nix/store/{B}"));
    let roots = [a.parse().unwrap()];
    let x = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let y = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
    let old = format!(
        r#"[{{"path":"{a}","narHash":"{x}","narSize":7,"references":["{a}","{b}"]}},
            {{"path":"{b}","narHash":"{y}","narSize":8,"references":[]}}]"#
    );
    let new = format!(
        r#"{{"{a}":{{"narHash":"{x}","narSize":7,"references":["{a}","{b}"]}},
             "{b}":{{"narHash":"{y}","narSize":8,"references":[]}}}}"#
    );
    let newest = format!(
        r#"{{"version":2,"storeDir":"/nix/store","info":{{
             "{A}":{{"narHash":"{x}","narSize":7,"references":["{A}","{B}"]}},
             "{B}":{{"narHash":"{y}","narSize":8,"references":[]}}}}}}"#
    );
    let first = closure(old.as_bytes(), &roots).unwrap();
    assert_eq!(first.paths().len(), 2);
    assert_eq!(
        closure(new.as_bytes(), &roots).unwrap().paths(),
        first.paths()
    );
    assert_eq!(
        closure(newest.as_bytes(), &roots).unwrap().paths(),
        first.paths()
    );
}

#[test]
fn a_path_that_is_not_valid_is_an_error_that_names_it() {
    let a = format!("/nix/store/{A}");
    let json = format!(r#"{{"{a}":null}}"#);
    let error = closure(json.as_bytes(), &[a.parse().unwrap()]).unwrap_err();
    assert!(error.contains(&a), "{error}");
}

#[test]
fn each_state_of_a_name() {
    let json = format!(
        r#"{{"packages":[
          {{"name":"git","state":"derivation","attribute":["git"],"drvPath":"/nix/store/{A}.drv",
            "outputs":[{{"name":"out","path":"/nix/store/{B}"}}],"pname":"git","version":"2","mainProgram":null,"description":"Tracks content","homepage":null,
            "licences":["gpl2","GPL-2.0-only"],"insecure":true}},
          {{"name":"x","state":"unknown","near":["y"]}},
          {{"name":"lib","state":"not-a-derivation","type":"set"}},
          {{"name":"y","state":"refused"}}]}}"#
    );
    let found = resolutions(json.as_bytes()).unwrap();
    let Resolution::Derivation(git) = &found[0] else {
        panic!("{found:?}");
    };
    assert_eq!(git.pname, "git");
    assert_eq!(git.description.as_deref(), Some("Tracks content"));
    assert!(git.licences.iter().eq(["GPL-2.0-only", "gpl2"]) && git.insecure);
    assert_eq!(
        found[1..],
        [
            Resolution::Unknown {
                near: vec!["y".to_owned()]
            },
            Resolution::NotADerivation {
                kind: "set".to_owned()
            },
            Resolution::Refused
        ]
    );
}

#[test]
fn the_log_of_a_build_is_no_part_of_an_error() {
    for (text, expected) in [
        (
            "error: builder for 'x' failed;\n       last 2 log lines:\n       > one\n       > two\n       For full logs",
            "error: builder for 'x' failed;\n       For full logs",
        ),
        (
            "error: Cannot build 'x'.\nReason: failed.\nLast 1 log lines:\n> one\nmore",
            "error: Cannot build 'x'.\nReason: failed.\nmore",
        ),
        ("error: a\n> quoted", "error: a\n> quoted"),
    ] {
        assert_eq!(without_log(text), expected);
    }
    let failed = "error: builder for 'x' failed;\n last 1 log lines:\n > secret\n";
    assert_eq!(reason(failed).unwrap(), "builder for 'x' failed;");
}

#[test]
fn the_derivation_tells_whether_a_build_has_the_network() {
    for (derivation, expected) in [
        (r#"Derive([("out","/nix/store/x","","")],[],"#, false),
        (r#"Derive([("out","","r:sha256","")],[],"#, false),
        (
            r#"DrvWithVersion("xp-dyn-drv",[("out","/x","","")],"#,
            false,
        ),
        (r#"Derive([("out","/nix/store/x","sha256","00ff")],"#, true),
        (r#"Derive([("out","","r:sha256","impure")],[],"#, true),
        ("Derive([(\"out\"", true),
        ("", true),
    ] {
        assert_eq!(has_network(derivation), expected, "{derivation}");
    }
}
