//! What the other services have of it: nothing.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::envoy_config::{FILTER_CONFIG, parse};
use nixgate_tests::live::builder::TOKEN;
use nixgate_tests::live::company::{Company, PAGE};
use nixgate_tests::live::http::Response;
use nixgate_tests::live::install::{self, ENVOY_VERSIONS};
use nixgate_tests::live::poll;
use nixgate_tests::live::process::Process;
use serde_json::json;

/// All of an answer but when it was given and how long it took, or why there is none.
fn essence(answer: Result<Response>) -> String {
    let answer = match answer {
        Ok(answer) => answer,
        // curl's own words name files of this one request.
        Err(error) => {
            let error = error.to_string();
            return error.rsplit("curl: ").next().unwrap_or_default().to_owned();
        }
    };
    let headers = answer.headers.iter();
    let mut headers: Vec<_> = headers
        .filter(|(name, _)| !["date", "x-envoy-upstream-service-time"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    headers.sort();
    format!(
        "{}\n{}\n\n{:?}",
        answer.status,
        headers.join("\n"),
        answer.body
    )
}

/// What clients of the other services get to see, errors included.
fn answers(company: &mut Company) -> Result<Vec<(String, String)>> {
    let bearer = |token: &str| format!("authorization: Bearer {token}");
    let (valid, other) = (bearer(&company.api_token), bearer(&company.other_token));
    company.start_app()?;
    let mut answers = Vec::new();
    {
        let company = &*company;
        let mut note = |what: String, answer: Result<Response>| {
            answers.push((what, essence(answer)));
        };
        for protocol in ["--http1.1", "--http2"] {
            for (host, path, options) in [
                ("app.corp", "/", &[][..]),
                ("app.corp", "/", &["--head"]),
                ("app.corp", "/", &["--header", "accept-encoding: gzip"]),
                ("app.corp", "/", &["--header", "bad_name: 1"]),
                ("app.corp", "/missing", &[]),
                ("app.corp", "/a/../b//c", &[]),
                ("app.corp", "/v2/hello/manifests/latest", &[]),
                ("app.corp", "/v2/token", &["--user", "alice:wrong"]),
                ("admin.corp", "/allowed", &[]),
                ("admin.corp", "/denied", &[]),
                // A name that the chain has, and no route.
                ("none.corp", "/", &["--insecure"]),
                // Names that no chain has.
                ("corp.example", "/", &["--insecure"]),
                ("registry.corp.example", "/v2/", &["--insecure"]),
                ("api.corp", "/", &[]),
                ("api.corp", "/", &["--header", &valid]),
                ("api.corp", "/", &["--header", &other]),
                ("api.corp", "/", &["--header", "authorization: Bearer none"]),
                ("api.corp", "/public", &[]),
                ("api.corp", "/public/report", &[]),
                ("api.corp", "/public/report", &[]),
                // The registry's host, by the name of another chain.
                ("api.corp", "/v2/", &["--header", "host: registry.corp"]),
            ] {
                let options = [&[protocol], options].concat();
                let what = format!("{host}{path} {options:?}");
                note(what, company.ask(host, path, &options));
            }
        }
        let old = ["--http1.0"];
        note("HTTP/1.0".to_owned(), company.ask("app.corp", "/", &old));
        for (host, path) in [
            ("app.corp", "/status"),
            ("app.corp", "/a?b=c"),
            ("registry.corp", "/v2/token"),
        ] {
            let answer = company.ask_plain(host, path, &[]);
            note(format!("plain {host}{path}"), answer);
        }
    }
    company.stop_app();
    let away = company.ask("app.corp", "/", &[]);
    answers.push(("dead app.corp".to_owned(), essence(away)));
    Ok(answers)
}

#[test]
fn every_reply_of_the_other_services_is_as_before() -> Result<()> {
    let mut company = Company::start()?;
    for version in ENVOY_VERSIONS {
        company.put_all_before()?;
        let envoy = company.envoy(version, TOKEN)?;
        let before = answers(&mut company)?;
        drop(envoy);
        company.put_all()?;
        let envoy = company.envoy(version, TOKEN)?;
        let with = answers(&mut company)?;
        // It is there.
        let registry = company.ask("registry.corp", "/v2/", &[])?;
        assert_eq!(registry.error()?.0, "UNAUTHORIZED");
        drop(envoy);
        for ((what, before), (_, with)) in before.iter().zip(&with) {
            assert_eq!(before, with, "Envoy {version}: {what}");
        }
        // All kinds of answers were among them.
        let all: Vec<_> = before.iter().map(|(_, answer)| answer.as_str()).collect();
        for status in [
            "200", "301", "400", "401", "403", "404", "426", "429", "503",
        ] {
            let found = all.iter().any(|answer| answer.starts_with(status));
            assert!(found, "no answer with {status}: {all:#?}");
        }
        for part in ["slow down", "content-encoding: gzip", "x-served-by", "(35)"] {
            let found = all.iter().any(|answer| answer.contains(part));
            assert!(found, "no answer with {part}: {all:#?}");
        }
    }
    Ok(())
}

/// What can be wrong with nixgate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NoToken,
    NoModule,
    NoFile,
    BadKey,
    BadKeyLater,
}

const FAULTS: [Fault; 5] = [
    Fault::NoToken,
    Fault::NoModule,
    Fault::NoFile,
    Fault::BadKey,
    Fault::BadKeyLater,
];

impl Fault {
    /// Starts an Envoy with the files that were put, and with this fault.
    fn start(self, company: &Company, version: &str) -> Result<Process> {
        let filter = company.file("filter.yaml")?;
        let bad = filter.replace("\"hold_seconds\": 20", "\"hold_seconds\": 60");
        assert_ne!(filter, bad);
        match self {
            Self::NoToken | Self::BadKeyLater => {}
            Self::NoModule => company.put(
                "filter.yaml",
                &filter.replace("nixgate_filter.wasm", "none.wasm"),
            )?,
            Self::NoFile => fs::remove_file(company.etc().join("filter.yaml"))?,
            Self::BadKey => company.put("filter.yaml", &bad)?,
        }
        let token = if self == Self::NoToken { "" } else { TOKEN };
        let envoy = company.envoy(version, token)?;
        if self == Self::BadKeyLater {
            company.put("filter.yaml", &bad)?;
            poll::until("Envoy has read the file with the bad key", || {
                envoy.log().contains("hold_seconds").then_some(())
            })?;
        }
        Ok(envoy)
    }
}

/// A company whose app answers, and a token of the registry.
fn with_app() -> Result<(Company, String)> {
    let mut company = Company::start()?;
    company.start_app()?;
    let token = company.token("alice")?;
    Ok((company, token))
}

/// For the context of an error.
fn told(envoy: &Process, version: &str) -> String {
    format!("Envoy {version}:\n{}", envoy.log())
}

/// Asserts that the other services answer, and that the registry says why it does not.
fn others_answer(company: &Company, token: &str, fault: Fault) -> Result<()> {
    let app = company.ask("app.corp", "/", &[])?;
    assert_eq!(app.text(), PAGE, "{fault:?}");
    assert_eq!(company.ask("api.corp", "/public", &[])?.text(), "api\n");
    let status = company.ask_plain("app.corp", "/status", &[])?;
    assert_eq!(status.text(), "up\n", "{fault:?}");

    let answer = company.pull("/v2/", token)?;
    if fault == Fault::BadKeyLater {
        // What was valid is in force.
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        return Ok(());
    }
    assert!(answer.status.is_server_error(), "{fault:?}: {answer:?}");
    let (_, message) = answer.error()?;
    let why = match fault {
        Fault::NoFile => "Envoy has refused its listener",
        _ => "no valid configuration",
    };
    assert!(message.contains(why), "{fault:?}: {message}");
    Ok(())
}

/// Changes both listeners of the company, and waits until clients see it.
fn change_both(company: &Company, lds: &str) -> Result<()> {
    let mut lds = parse(lds);
    for (listener, chain) in [(0, 0), (1, 1)] {
        let manager = &mut lds["resources"][listener]["filter_chains"][chain]["filters"][0];
        manager["typed_config"]["server_name"] = "changed".into();
    }
    company.put("lds.yaml", &lds.to_string())?;
    poll::until("the listeners have changed", || {
        let plain = company.ask_plain("app.corp", "/status", &[]).ok()?;
        let web = company.ask("app.corp", "/", &[]).ok()?;
        let changed = |answer: &Response| answer.header("server") == "changed";
        (changed(&plain) && changed(&web)).then_some(())
    })
}

#[test]
fn whatever_is_wrong_with_nixgate_the_company_can_change_its_listeners() -> Result<()> {
    let (company, token) = with_app()?;
    for version in ENVOY_VERSIONS {
        for fault in FAULTS {
            company.put_all()?;
            let envoy = fault.start(&company, version)?;
            others_answer(&company, &token, fault).with_context(|| told(&envoy, version))?;

            change_both(&company, &company.file("lds.yaml")?)
                .with_context(|| format!("{fault:?}, {}", told(&envoy, version)))?;
            others_answer(&company, &token, fault).with_context(|| told(&envoy, version))?;

            // The repair needs no restart, but for the variable.
            if fault != Fault::NoToken {
                company.put("filter.yaml", &company.file("filter.yaml")?)?;
                // Envoy makes no new listener of its own accord.
                company.put("lds.yaml", &company.file("lds.yaml")?)?;
                poll::until(&format!("the registry answers after {fault:?}"), || {
                    let answer = company.pull("/v2/", &token).ok()?;
                    (answer.status == StatusCode::OK).then_some(())
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_same_where_the_companys_listeners_are_static() -> Result<()> {
    let (company, token) = with_app()?;
    for version in ENVOY_VERSIONS {
        for fault in FAULTS {
            company.put_all()?;
            company.make_static()?;
            if fault != Fault::NoFile {
                let envoy = fault.start(&company, version)?;
                others_answer(&company, &token, fault).with_context(|| told(&envoy, version))?;
                continue;
            }
            // Envoy doesn't start. Validation says so before, and one that runs goes on.
            let base = company.secure().to_string();
            let first = ["--base-id", base.as_str()];
            let envoy = company.envoy_with(&first, version, TOKEN, "envoy.log")?;
            let file = company.etc().join("filter.yaml");
            fs::remove_file(&file)?;
            let config = company.etc().join("envoy.yaml");
            let check = |options: &[&str]| -> Result<String> {
                let output = Command::new(install::envoy(version)?)
                    .args(options)
                    .arg("-c")
                    .arg(&config)
                    .env("NIXGATE_TOKEN", TOKEN)
                    .output()?;
                assert!(!output.status.success(), "{options:?}");
                Ok(String::from_utf8_lossy(&output.stderr).into_owned())
            };
            let named = file.display().to_string();
            let said = check(&["--mode", "validate", "--disable-hot-restart"])?;
            assert!(said.contains(&named), "{said}");
            let said = check(&[&first[..], &["--restart-epoch", "1"]].concat())?;
            assert!(said.contains(&named), "{said}");
            others_answer(&company, &token, Fault::BadKeyLater)
                .with_context(|| told(&envoy, version))?;
        }
    }
    Ok(())
}

#[test]
fn only_nixgates_listeners_need_to_be_delivered() -> Result<()> {
    let (company, token) = with_app()?;
    for version in ENVOY_VERSIONS {
        company.put_all()?;
        // The company's are static, and nixgate's come from a file.
        let all = company.file("lds.yaml")?;
        let mark = "\n  - \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n    name: nixgate\n";
        let (theirs, ours) = all.split_once(mark).context("nixgate's listeners")?;
        company.put("lds.yaml", theirs)?;
        company.make_static()?;
        company.put("lds.yaml", &format!("resources:{mark}{ours}"))?;
        let bootstrap = fs::read_to_string(company.etc().join("envoy.yaml"))?;
        let lds = company.etc().join("lds.yaml");
        let source = format!(
            "{{\"dynamic_resources\":{{\"lds_config\":{{\"path_config_source\":{{\"path\":{lds:?}}},\
             \"resource_api_version\":\"V3\"}}}},"
        );
        company.put("envoy.yaml", &bootstrap.replacen('{', &source, 1))?;
        let envoy = Fault::NoFile.start(&company, version)?;
        others_answer(&company, &token, Fault::NoFile).with_context(|| told(&envoy, version))?;
    }
    Ok(())
}

#[test]
fn a_file_that_is_no_yaml_changes_nothing() -> Result<()> {
    let (company, token) = with_app()?;
    for version in ENVOY_VERSIONS {
        company.put_all()?;
        let envoy = company.envoy(version, TOKEN)?;
        for file in ["filter.yaml", "lds.yaml", "cds.yaml", "routes-web.yaml"] {
            let failures = || {
                let log = envoy.log();
                log.matches("Filesystem config update").count()
            };
            let before = failures();
            company.put(file, "resources: [\n")?;
            poll::until(&format!("Envoy has read {file}"), || {
                (failures() > before).then_some(())
            })?;
            others_answer(&company, &token, Fault::BadKeyLater)
                .with_context(|| format!("{file}, {}", told(&envoy, version)))?;
        }
    }
    Ok(())
}

/// The company's files with the filter in its own chains, in front of the router and disabled, but for
/// the registry's routes.
fn put_in_chains(company: &Company) -> Result<()> {
    company.put_all()?;
    let mut lds = parse(&company.file_before("lds.yaml")?);
    let filter = json!({
        "name": "nixgate",
        "disabled": true,
        "config_discovery": {
            "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"],
            "config_source": {
                "path_config_source": {"path": company.etc().join("filter.yaml")},
                "resource_api_version": "V3",
            },
        },
    });
    for (listener, chain) in [(0, 0), (1, 1)] {
        let manager = &mut lds["resources"][listener]["filter_chains"][chain]["filters"][0];
        let filters = manager["typed_config"]["http_filters"].as_array_mut();
        let filters = filters.context("filters")?;
        filters.insert(filters.len() - 1, filter.clone());
    }
    company.put("lds.yaml", &lds.to_string())?;
    let mut routes = parse(&company.file("routes-web.yaml")?);
    let hosts = routes["resources"][0]["virtual_hosts"].as_array_mut();
    let host = hosts.and_then(|hosts| hosts.last_mut()).context("a host")?;
    assert_eq!(host["name"], "registry");
    host["routes"] = json!([{
        "match": {"path_separated_prefix": "/v2"},
        "route": {"cluster": "nixgate_builder", "timeout": "0s", "idle_timeout": "28s"},
        "typed_per_filter_config": {
            "nixgate": {"@type": FILTER_CONFIG, "config": {}, "disabled": false},
        },
    }]);
    company.put("routes-web.yaml", &routes.to_string())
}

/// Were a configuration refused, the company's listeners could not change; so the filter takes any, and
/// answers for itself.
#[test]
fn what_the_filter_finds_wrong_keeps_no_listener_with_it_from_changing() -> Result<()> {
    let mut company = Company::start()?;
    company.start_app()?;
    for version in ENVOY_VERSIONS {
        for fault in [Fault::NoToken, Fault::BadKey, Fault::BadKeyLater] {
            put_in_chains(&company)?;
            let _envoy = fault.start(&company, version)?;
            // Without a login, since the company's chain has none.
            others_answer(&company, "", fault)?;
            change_both(
                &company,
                &fs::read_to_string(company.etc().join("lds.yaml"))?,
            )?;
            others_answer(&company, "", fault)?;
        }
    }
    Ok(())
}
