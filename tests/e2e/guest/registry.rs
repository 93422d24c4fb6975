//! What the registry is behind a company's listener: all that it is anywhere.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::envoy_config::FilterConfig;
use nixgate_tests::live::builder::TOKEN;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::company::Company;
use nixgate_tests::live::gated_set::GatedSet;
use nixgate_tests::live::http::Response;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::process::{Process, run};
use nixgate_tests::live::{namespace, poll, scratch};
use serde_json::{Value, json};

/// Copies an image by skopeo, for which `registry.corp` is this machine.
pub(super) fn copy(company: &Company, image: &str, password: &str) -> Result<()> {
    let folder = scratch::folder("copy-")?;
    let (hosts, ca, to) = (
        folder.path().join("hosts"),
        folder.path().join("ca"),
        folder.path().join("image"),
    );
    fs::write(&hosts, "127.0.0.1 localhost registry.corp\n")?;
    fs::create_dir(&ca)?;
    fs::create_dir(&to)?;
    fs::copy(company.authority(), ca.join("ca.crt"))?;
    let image = format!("{}/{image}", company.registry());
    let command = skopeo::copying_as(&image, "alice", password, &ca, &to);
    let seen: &[(&Path, &Path)] = &[(&hosts, Path::new("/etc/hosts"))];
    run(&mut namespace::with_mounts(seen, &command))?;
    Ok(())
}

/// What nixgate's listener answers to a request with these headers alone, as some route of the company would
/// send it.
fn behind_the_route(company: &Company, path: &str, headers: &[&str]) -> Result<String> {
    let headers = headers.iter().flat_map(|header| ["--header", header]);
    run(Command::new("curl")
        .args([
            "--disable",
            "--silent",
            "--show-error",
            "--http2-prior-knowledge",
        ])
        .args(headers)
        .arg("--unix-socket")
        .arg(company.sockets().join("nixgate.sock"))
        .arg(format!("http://registry.corp{path}")))
}

/// A company, and the password of somebody who logs in.
fn with_password() -> Result<(Company, String)> {
    let company = Company::start()?;
    let password = company.password("alice")?;
    Ok((company, password))
}

/// The lines of the registry's access log.
fn lines(envoy: &Process) -> Vec<Value> {
    let log = envoy.log();
    let lines = log.lines().filter_map(|line| line.parse::<Value>().ok());
    lines.collect()
}

/// Waits for the line of a path.
fn line(envoy: &Process, path: &str) -> Result<Value> {
    poll::until(&format!("{path} is in the log"), || {
        lines(envoy).into_iter().find(|line| line["path"] == path)
    })
}

/// Gives everybody everything, with a patch on the filter's other settings.
fn without_policy(company: &Company, patch: Value) -> Result<()> {
    let filter = FilterConfig::parse(&company.file("filter.yaml")?);
    let filter = filter.settings(json!({"policy": null})).settings(patch);
    company.put("filter.yaml", &filter.yaml())
}

#[test]
fn clients_log_in_and_pull() -> Result<()> {
    let (company, password) = with_password()?;
    for version in ENVOY_VERSIONS {
        company.put_all()?;
        let envoy = company.envoy(version, TOKEN)?;
        copy(&company, "shell/hello", &password)?;
        let refused = copy(&company, "shell/hello", "wrong").expect_err("it is refused");
        let refused = format!("{refused:#}").to_lowercase();
        assert!(refused.contains("wrong user or password"), "{refused}");
        let refused = copy(&company, "nodejs", &password).expect_err("it is denied");
        assert!(format!("{refused:#}").contains("nodejs"), "{refused:#}");

        // The parts of a pull: HEAD, ranges, conditions.
        let token = company.token("alice")?;
        let bearer = format!("authorization: Bearer {token}");
        let ask = |path: &str, options: &[&str]| {
            let options = [&["--header", &bearer], options].concat();
            company.ask("registry.corp", path, &options)
        };
        let path = "/v2/shell/hello/manifests/latest";
        let manifest = ask(path, &["--header", "accept-encoding: gzip"])?;
        assert_eq!(manifest.header("content-encoding"), "");
        assert_eq!(manifest.header("x-served-by"), "");
        let head = ask(path, &["--head"])?;
        let length = manifest.body.len().to_string();
        assert_eq!(head.header("content-length"), length);
        let etag = format!("if-none-match: {}", manifest.header("etag"));
        assert_eq!(
            ask(path, &["--header", &etag])?.status,
            StatusCode::NOT_MODIFIED
        );
        let parsed: Value = serde_json::from_slice(&manifest.body)?;
        let digest = parsed["config"]["digest"].as_str().context("a digest")?;
        let blob = format!("/v2/shell/hello/blobs/{digest}");
        let part = ask(&blob, &["--range", "1-9"])?;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.body, ask(&blob, &[])?.body.slice(1..10));
        // A final dot is no other host.
        let dot = company.ask(
            "registry.corp",
            "/v2/",
            &["--header", "host: registry.corp."],
        )?;
        assert_eq!(dot.error()?.0, "UNAUTHORIZED");

        // Passwords are read with TLS alone, whatever a route of the company does.
        let headers = [
            "nixgate-client-address: 192.0.2.7",
            "x-forwarded-proto: http",
        ];
        let answer = behind_the_route(&company, "/v2/token", &headers)?;
        assert!(answer.contains("logins need TLS"), "{answer}");
        // A route that doesn't say who asks is found out.
        let answer = behind_the_route(&company, "/v2/", &[])?;
        assert!(answer.contains("nixgate-client-address"), "{answer}");
        drop(envoy);
    }
    Ok(())
}

#[test]
fn the_registry_knows_who_asks_and_believes_no_client() -> Result<()> {
    let company = Company::start()?;
    let token = format!("authorization: Bearer {}", company.token("alice")?);
    for version in ENVOY_VERSIONS {
        company.put_all()?;
        let envoy = company.envoy(version, TOKEN)?;
        let path = format!("/v2/git/tags/{}", version.replace('.', "-"));
        for header in [&token[..], "authorization: Basic YWxpY2U6d3Jvbmc="] {
            let path = if header == token { &path } else { "/v2/token" };
            company.ask(
                "registry.corp",
                path,
                &[
                    "--interface",
                    "127.0.0.2",
                    "--header",
                    header,
                    "--header",
                    "nixgate-client-address: 10.6.6.6",
                    "--header",
                    "x-forwarded-for: 10.6.6.6",
                    "--header",
                    "x-request-id: 10.6.6.6",
                    "--header",
                    "x-envoy-original-path: 10.6.6.6",
                ],
            )?;
        }
        let line = line(&envoy, &path)?;
        assert_eq!(line["address"], "127.0.0.2");
        assert_eq!(line["subject"], "alice");
        let builder = company.builder.log();
        assert!(builder.contains("127.0.0.2"), "{builder}");
        assert!(!builder.contains("10.6.6.6"), "{builder}");
        for line in lines(&envoy) {
            assert!(!line.to_string().contains("10.6.6.6"), "{line}");
        }
        // The company's own log has the same id.
        let id = line["request_id"].as_str().context("an id")?.to_owned();
        poll::until("the company's log has the id", || {
            let log = envoy.log();
            let theirs = log.lines().filter(|line| !line.starts_with('{'));
            theirs
                .into_iter()
                .any(|line| line.contains(&id))
                .then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn neither_filters_nor_logs_of_the_company_get_a_secret() -> Result<()> {
    let (company, password) = with_password()?;
    for version in ENVOY_VERSIONS {
        company.put_all()?;
        // A filter behind which only the router is, and which writes down all that it sees.
        let lds = company.file("lds.yaml")?;
        let (from, to) = (
            "handle:headers():add(\"x-served-by\", \"ingress\")",
            "for name, value in pairs(handle:headers()) do handle:logInfo(\"seen \" .. name .. \" \" .. value) end",
        );
        assert_eq!(lds.matches(from).count(), 1);
        let both = format!(
            "{to}\n                        end\n                        function envoy_on_request(handle)\n                          {to}"
        );
        company.put("lds.yaml", &lds.replace(from, &both))?;
        let routes = company.file("routes-web.yaml")?;
        let off = "          envoy.filters.http.lua: *off\n";
        assert_eq!(routes.matches(off).count(), 1);
        company.put("routes-web.yaml", &routes.replace(off, ""))?;
        let envoy = company.envoy(version, TOKEN)?;
        copy(&company, "shell/hello", &password)?;
        let seen = poll::until("the filter has seen a blob", || {
            let log = envoy.log();
            let blob = |line: &str| line.contains("seen :path") && line.contains("/blobs/");
            log.lines().any(blob).then_some(log)
        })?;
        assert!(seen.contains("seen docker-content-digest"), "{seen}");
        assert!(!seen.contains(TOKEN), "the builder's token is in\n{seen}");
        let tokens: Vec<_> = seen
            .lines()
            .filter(|line| line.contains("seen authorization Bearer "))
            .filter_map(|line| line.split(' ').next_back())
            .collect();
        assert!(!tokens.is_empty(), "{seen}");
        // What the filter writes down apart, no log has anything of the clients' secrets.
        for line in seen.lines().filter(|line| !line.contains("seen ")) {
            assert!(!line.contains(&password), "{line}");
            assert!(!tokens.iter().any(|token| line.contains(token)), "{line}");
        }
    }
    Ok(())
}

#[test]
fn a_held_request_outlasts_the_companys_request_timeout() -> Result<()> {
    let folder = scratch::folder("gated-")?;
    let set = GatedSet::write(folder.path())?;
    let company = Company::start_with(|state| set.settings(state))?;
    company.put_all()?;
    let lds = company.file("lds.yaml")?;
    assert_eq!(lds.matches("request_timeout: 15s").count(), 2);
    company.put(
        "lds.yaml",
        &lds.replace("request_timeout: 15s", "request_timeout: 0.5s"),
    )?;
    without_policy(&company, json!({"hold_seconds": 3}))?;
    let token = company.token("alice")?;
    let _envoy = company.envoy(ENVOY_VERSIONS[0], TOKEN)?;
    let held = company.pull("/v2/gated/manifests/latest", &token)?;
    assert_eq!(
        held.status,
        StatusCode::TEMPORARY_REDIRECT,
        "{}",
        held.text()
    );
    let next = held.header("location");
    assert!(next.starts_with("/v2/gated/manifests/latest?"), "{next}");
    set.open()
}

#[test]
fn a_hot_restart_loses_no_held_pull() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let folder = scratch::folder("gated-")?;
        let set = GatedSet::write(folder.path())?;
        let company = Company::start_with(|state| set.settings(state))?;
        company.put_all()?;
        without_policy(&company, json!({}))?;
        let token = company.token("alice")?;
        let base = company.secure().to_string();
        let first = ["--base-id", base.as_str(), "--drain-time-s", "1"];
        let envoy = company.envoy_with(&first, version, TOKEN, "first.log")?;
        let path = "/v2/gated/manifests/latest";
        let bearer = format!("authorization: Bearer {token}");
        let follow = ["--location", "--max-redirs", "9", "--header", &bearer];
        thread::scope(|scope| -> Result<()> {
            let held = scope.spawn(|| company.ask("registry.corp", path, &follow));
            set.wait_for_start()?;
            let later = ["--restart-epoch", "1", "--parent-shutdown-time-s", "120"];
            let options = [&first[..], &later].concat();
            let second = company.envoy_with(&options, version, TOKEN, "second.log")?;
            // The new one serves, on the same sockets, while the old one holds the pull.
            poll::until("the second Envoy has answered", || {
                let answer = company.pull("/v2/", &token).ok()?;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                lines(&second)
                    .iter()
                    .any(|line| line["path"] == "/v2/")
                    .then_some(())
            })?;
            assert!(!held.is_finished(), "the pull is not held");
            set.open()?;
            let answer = held.join().expect("the client's thread ends")?;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            // It was the first one's.
            line(&envoy, path)?;
            Ok(())
        })?;
    }
    Ok(())
}

/// Ends a client when dropped.
struct Slow(Child);

impl Drop for Slow {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn clients_that_do_not_read_hold_up_no_others() -> Result<()> {
    // Each leaves a stream's window unread, together many times what HTTP/2 grants a connection by
    // itself. All workers together have fewer connections than that.
    const CLIENTS: u64 = 60;
    let folder = scratch::folder("gated-")?;
    let set = GatedSet::write(folder.path())?;
    let company = Company::start_with(|state| set.settings(state))?;
    company.put_all()?;
    without_policy(&company, json!({}))?;
    let token = company.token("alice")?;
    let _envoy = company.envoy(ENVOY_VERSIONS[0], TOKEN)?;
    let manifest = poll::until("the image is built", || {
        let answer = company.pull("/v2/large/manifests/latest", &token);
        let built = |answer: &Response| answer.status == StatusCode::OK;
        answer.ok().filter(built)
    })?;
    let manifest: Value = serde_json::from_slice(&manifest.body)?;
    let layers = manifest["layers"].as_array().context("layers")?;
    let largest = layers.iter().max_by_key(|layer| layer["size"].as_u64());
    let largest = largest.context("a layer")?;
    let path = format!(
        "/v2/large/blobs/{}",
        largest["digest"].as_str().context("a digest")?
    );
    let bearer = format!("authorization: Bearer {token}");
    let slow = || -> Result<Slow> {
        let child = Command::new("curl")
            .args([
                "--disable",
                "--noproxy",
                "*",
                "--silent",
                "--limit-rate",
                "1k",
            ])
            .args(["--max-time", "300", "--output", "/dev/null", "--cacert"])
            .arg(company.authority())
            .args(["--connect-to", &format!("::127.0.0.1:{}", company.secure())])
            .args(["--header", &bearer])
            .arg(format!("https://{}{path}", company.registry()))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Slow(child))
    };
    let _slow: Vec<_> = (0..CLIENTS).map(|_| slow()).collect::<Result<_>>()?;
    poll::until("all of them wait", || {
        let active = company
            .admin()
            .stat("http.nixgate.downstream_rq_active")
            .ok()?;
        (active == CLIENTS).then_some(())
    })?;
    let answer = company.pull(&path, &token)?;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(Some(answer.body.len() as u64), largest["size"].as_u64());
    let active = company.admin().stat("http.nixgate.downstream_rq_active")?;
    assert_eq!(active, CLIENTS, "the slow ones have ended");
    Ok(())
}
