//! nixgate on an ingress that has other services: they notice nothing of it.

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_tests::live::builder::{self, Builder};
use nixgate_tests::live::http::Response;
use nixgate_tests::live::ingress::{Ingress, Settings};
use nixgate_tests::live::install::{self, ENVOY_VERSIONS};
use nixgate_tests::live::nginx::Nginx;
use nixgate_tests::live::{poll, ports, scratch};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// What is not nixgate's: by host, by path, and what looks like a registry's and is not.
const OTHERS: [(&str, &str); 9] = [
    ("app.corp", "/index.html"),
    ("app.corp:8080", "/index.html"),
    ("app.corp", "/no-such-page"),
    ("app.corp", "/v2/"),
    ("app.corp", "/v2/hello/manifests/latest"),
    ("other.corp", "/status"),
    ("other.corp", "/v2/hello/manifests/latest"),
    ("registry.corp.example", "/status"),
    ("other.corp", "/no-such-path"),
];

/// An ingress whose other service is away, with nixgate's builder at a port.
fn alone(builder: u16) -> Result<Settings> {
    Ok(Settings {
        version: ENVOY_VERSIONS[0],
        workers: 1,
        app: ports::free()?,
        builder: Some(builder),
        refused: false,
        trace: false,
    })
}

/// All of an answer but the time that it took and was given at.
fn essence(answer: &Response) -> (StatusCode, Vec<(String, String)>, String) {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !["date", "x-envoy-upstream-service-time"].contains(&name.as_str()))
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into(),
            )
        })
        .collect();
    headers.sort();
    (answer.status, headers, answer.text())
}

#[test]
fn other_services_answer_as_before_and_meet_no_filter() -> Result<()> {
    let folder = scratch::folder("ingress-")?;
    let builder = Builder::start(&builder::Settings::new(folder.path())?)?;
    let (site, state) = (folder.path().join("site"), folder.path().join("nginx"));
    for folder in [&site, &state] {
        fs::create_dir(folder)?;
    }
    fs::write(site.join("index.html"), "the application\n")?;
    for version in ENVOY_VERSIONS {
        let app = Nginx::start(&site, &state)?;
        let settings = Settings {
            version,
            workers: 2,
            app: app.port(),
            builder: None,
            refused: false,
            trace: true,
        };
        let before = Ingress::start(settings, folder.path())?;
        let with = Settings {
            builder: Some(builder.port()),
            ..settings
        };
        let with = Ingress::start(with, folder.path())?;
        let same = |method: &Method, host: &str, path: &str| -> Result<Response> {
            let [before, with] = [&before, &with].map(|one| one.ask(method.clone(), host, path));
            let with = with?;
            assert_eq!(essence(&before?), essence(&with), "{method} {host}{path}");
            Ok(with)
        };
        for method in [Method::GET, Method::HEAD, Method::PUT] {
            for (host, path) in OTHERS {
                same(&method, host, path)?;
            }
        }
        let answer = same(&Method::GET, "app.corp", "/index.html")?;
        assert_eq!(answer.text(), "the application\n");
        assert_eq!(same(&Method::GET, "other.corp", "/status")?.text(), "up\n");
        // Beside nixgate's routes on its own host there is nothing.
        let beside = with.ask(Method::GET, "registry.corp", "/status")?;
        assert_eq!(beside.status, StatusCode::NOT_FOUND);

        // Its routes make one context for each request; so those before have made none.
        let ask = |host: &str, path: &str| with.ask(Method::GET, host, path);
        let image = ask("registry.corp", "/v2/hello/manifests/latest")?;
        assert_eq!(image.status, StatusCode::OK, "{}", image.text());
        assert_eq!(ask("registry.corp:8080", "/v2/")?.status, StatusCode::OK);
        let refused = ask("registry.corp", "/v2/Hello/manifests/latest")?;
        assert_eq!(refused.error()?.0, "NAME_INVALID");
        poll::until("three contexts are in the log", || {
            (with.contexts() >= 3).then_some(())
        })?;
        ask("app.corp", "/index.html")?;
        ask("registry.corp", "/v2/")?;
        poll::until("a fourth context is in the log", || {
            (with.contexts() >= 4).then_some(())
        })?;
        assert_eq!(with.contexts(), 4);

        // Also where Envoy itself answers for a service that is away.
        drop(app);
        let away = same(&Method::GET, "app.corp", "/index.html")?;
        assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!away.text().contains("UNAVAILABLE"), "{}", away.text());
    }
    Ok(())
}

#[test]
fn envoys_own_answers_on_the_registrys_host_are_a_registrys() -> Result<()> {
    let folder = scratch::folder("ingress-")?;
    let ingress = Ingress::start(alone(ports::free()?)?, folder.path())?;
    let path = "/v2/hello/manifests/latest";
    let away = ingress.ask(Method::GET, "registry.corp", path)?;
    assert_eq!(away.error()?.0, "UNAVAILABLE");
    Ok(())
}

#[test]
fn a_filter_that_can_not_be_loaded_harms_nobody_else_and_lets_nothing_through() -> Result<()> {
    let folder = scratch::folder("ingress-")?;
    let builder = Builder::start(&builder::Settings::new(folder.path())?)?;
    for version in ENVOY_VERSIONS {
        let settings = Settings {
            version,
            refused: true,
            ..alone(builder.port())?
        };
        let ingress = Ingress::start(settings, folder.path())?;
        let others = ingress.ask(Method::GET, "other.corp", "/status")?;
        assert_eq!(others.text(), "up\n");
        for path in ["/v2/", "/v2/hello/manifests/latest"] {
            let ours = ingress.ask(Method::GET, "registry.corp", path)?;
            assert_eq!(ours.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        }
        assert!(ingress.log().contains("hold_seconds is 60"));
    }
    assert_eq!(builder.manifest_requests()?, 0);
    Ok(())
}

#[test]
fn a_line_of_json_says_what_became_of_each_request_to_the_registry() -> Result<()> {
    let folder = scratch::folder("ingress-")?;
    let ingress = Ingress::start(alone(ports::free()?)?, folder.path())?;
    ingress.ask(Method::GET, "other.corp", "/status")?;
    ingress.ask(Method::GET, "Registry.CORP:80", "/v2/git/manifests/latest")?;
    let line = poll::until("the line is in the log", || {
        let lines = ingress.log();
        let mut lines = lines.lines().filter_map(|line| line.parse::<Value>().ok());
        lines.find(|line| line["outcome"] == "failed")
    })?;
    assert_eq!(line["path"], "/v2/git/manifests/latest");
    assert_eq!(line["image"], "cacert/git/iana-etc");
    assert_eq!(line["status"], 503);
    let lines = ingress.log();
    let json = lines.lines().filter(|line| line.starts_with('{')).count();
    assert_eq!(json, 1, "{lines}");
    Ok(())
}

#[test]
fn whatever_host_leads_to_the_registry_is_logged() -> Result<()> {
    let folder = scratch::folder("ingress-")?;
    for version in ENVOY_VERSIONS {
        let settings = Settings {
            version,
            ..alone(ports::free()?)?
        };
        let ingress = Ingress::start(settings, folder.path())?;
        let hosts = [
            "registry.corp:x",
            "REGISTRY.corp:8080x",
            "registry.corp:-1",
            "registry.corp.",
            "registry.corp.:8080",
        ];
        for (number, host) in hosts.iter().enumerate() {
            let path = format!("/v2/git/manifests/tag-{number}");
            let answer = ingress.ask(Method::GET, host, &path)?;
            // The filter's own words: it has been asked.
            assert_eq!(answer.error()?.0, "UNAVAILABLE", "{host}");
            poll::until(&format!("the request for {host} is in the log"), || {
                let lines = ingress.log();
                let mut lines = lines.lines().filter_map(|line| line.parse::<Value>().ok());
                lines.find(|line| line["path"] == path && line["outcome"] == "failed")
            })?;
        }
        // Others look as they did.
        ingress.ask(
            Method::GET,
            "registry.corp.example:x",
            "/v2/git/manifests/latest",
        )?;
        ingress.ask(Method::GET, "registry.corp", "/v2/git/manifests/last")?;
        poll::until("the last request is in the log", || {
            ingress.log().contains("manifests/last\"").then_some(())
        })?;
        let lines = ingress.log();
        let json = lines.lines().filter(|line| line.starts_with('{')).count();
        assert_eq!(json, hosts.len() + 1, "{lines}");
    }
    Ok(())
}

#[test]
fn the_documentation_shows_all_that_nixgate_adds() -> Result<()> {
    let folder = install::root().join("envoy/existing-ingress");
    let output = Command::new("diff")
        .args([
            "--unified=2",
            "--label=envoy.before.yaml",
            "--label=envoy.yaml",
        ])
        .args(["envoy.before.yaml", "envoy.yaml"])
        .current_dir(folder)
        .output()?;
    let diff = String::from_utf8(output.stdout)?;
    assert!(diff.contains("disabled: true"), "{diff}");
    let page = fs::read_to_string(install::root().join("docs/src/existing-ingress.md"))?;
    let shown = page.contains(&format!("```diff\n{diff}```\n"));
    assert!(shown, "docs/src/existing-ingress.md is to show:\n{diff}");
    Ok(())
}
