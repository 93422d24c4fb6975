//! Names that are meant for something else than a package set: they reach neither Nix nor a shell.

use anyhow::Result;
use http::Method;
use nixgate_tests::live::builder::{Builder, Settings, TOKEN};
use nixgate_tests::live::http::request;
use nixgate_tests::live::scratch;

use crate::shared;

fn crafted() -> Vec<String> {
    let mut names: Vec<String> = [
        "--help",
        "--option",
        "-A",
        "git/--argstr",
        "..",
        "git/../../etc/passwd",
        "%2e%2e/etc",
        "$%7Bgit%7D",
        "git%00",
        "git%0a",
        "git;id",
        "`id`",
        "$(id)",
        "git%20hello",
        "git'",
        "git\"",
        "builtins.getFlake%20x",
        "<nixpkgs>",
        "git..doc",
        ".git",
        "git.",
    ]
    .map(str::to_owned)
    .into();
    names.push(vec!["a"; 300].join("/"));
    names.push(
        (0..300)
            .map(|n| format!("a{n}"))
            .collect::<Vec<_>>()
            .join("/"),
    );
    names.push("a".repeat(10_000));
    names.push(format!("git/{}", "a.".repeat(5_000) + "a"));
    names
}

#[test]
fn crafted_names_are_refused_by_the_edge_and_by_the_builder_without_a_process() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let builder = Builder::start(&Settings::new(state.path())?)?;
    let before = builder.nix_processes()?;
    let mut answered = 0;
    for name in crafted() {
        let path = format!("/v2/{name}/manifests/latest");
        let token = [(nixgate_core::wire::TOKEN, TOKEN)];
        for (port, headers) in [(builder.port(), &token[..]), (shared().envoy.port(), &[])] {
            let Ok(answer) = request(Method::GET, port, &path, headers) else {
                // Some of these no client library sends.
                continue;
            };
            answered += 1;
            let short: String = name.chars().take(60).collect();
            // One component three hundred times over is one package, which there isn't.
            let is_one = name.starts_with("a/a/");
            let status = answer.status.as_u16();
            match is_one {
                true => assert_eq!(status, 404, "{short}: {}", answer.text()),
                false => assert!([400, 404].contains(&status), "{short}: {}", answer.text()),
            }
            let (code, message) = answer.error()?;
            assert!(!message.is_empty(), "{short}");
            if !is_one {
                assert_ne!(code, "MANIFEST_UNKNOWN", "{short}: {message}");
            }
        }
    }
    assert!(answered > 30, "only {answered} were answered");
    // That for the one package, of which there isn't any.
    assert!(builder.nix_processes()? - before <= 4);
    Ok(())
}
