//! The checks, on the shipped examples with single values changed: a file for each subject.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::super::finding::{Check, Severity};
use super::super::read::{self, Folders};
use super::*;

mod files;
mod limits;
mod logs;
mod placement;
mod plugin;
mod replies;
mod routing;

/// The folders below `envoy/`.
const EXAMPLES: [&str; 4] = [
    "standalone",
    "beside-registry",
    "corporate-gateway",
    "existing-ingress",
];
/// As the unit tests know the module.
const VERSION: &str = "1.2.3+0123456789ab";
/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const MODULE: &str = "target/wasm32-wasip1/wasm/nixgate_filter.wasm";

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
/// Of `envoy/existing-ingress`.
const REGISTRY: &str = "/route_config/virtual_hosts/1/routes/0";
const CLUSTER: &str = "/static_resources/clusters/1";
const PLUGIN: &str = "/resources/0/typed_config/config";

/// An example, of which tests change single values.
#[derive(Clone)]
struct Example {
    documents: Vec<Document>,
    modules: BTreeMap<String, Module>,
}

impl Example {
    fn new(folder: &str) -> Self {
        let example = Self::read(folder, &[]);
        assert_eq!(example.documents.len(), 2, "envoy.yaml names filter.yaml");
        example
    }

    /// The example whose files are for `/etc/envoy`.
    fn with_login() -> Self {
        let root = Path::new(ROOT).join("envoy/ingress-with-login");
        let map = |folder: &Path| format!("/etc/envoy={}", folder.display());
        Self::read(
            "ingress-with-login",
            &[map(&root), map(&root.join("before"))],
        )
    }

    fn read(folder: &str, maps: &[String]) -> Self {
        let directory = Path::new(ROOT).to_owned();
        let file = directory.join("envoy").join(folder).join("envoy.yaml");
        let maps = maps.iter().map(|map| map.parse().unwrap()).collect();
        let sources = read::files(&[file], &Folders { directory, maps }).unwrap();
        assert_eq!(sources.bad_files, [], "{folder}");
        // Unit tests have no module.
        let names = sources.modules.into_keys();
        let version = Module::Version(Some(VERSION.to_owned()));
        Self {
            documents: sources.documents,
            modules: names.map(|name| (name, version.clone())).collect(),
        }
    }

    fn at(&mut self, document: usize, pointer: &str) -> &mut Value {
        let found = self.documents[document].value.pointer_mut(pointer);
        found.unwrap_or_else(|| panic!("the example has no {pointer}"))
    }

    /// Changes envoy.yaml.
    fn envoy(mut self, pointer: &str, patch: Value) -> Self {
        merge(self.at(0, pointer), patch);
        self
    }

    /// Changes the HTTP connection manager.
    fn manager(self, pointer: &str, patch: Value) -> Self {
        self.envoy(&format!("{MANAGER}{pointer}"), patch)
    }

    /// Adds to a list in the manager.
    fn push(mut self, pointer: &str, index: usize, item: Value) -> Self {
        let list = self.at(0, &format!("{MANAGER}{pointer}"));
        list.as_array_mut().unwrap().insert(index, item);
        self
    }

    /// Changes filter.yaml.
    fn filter(mut self, pointer: &str, patch: Value) -> Self {
        merge(self.at(1, pointer), patch);
        self
    }

    /// Changes the filter's settings.
    fn settings(mut self, patch: Value) -> Self {
        let text = self.at(1, &format!("{PLUGIN}/configuration/value"));
        let mut settings = serde_json::from_str(text.as_str().unwrap()).unwrap();
        merge(&mut settings, patch);
        *text = settings.to_string().into();
        self
    }

    fn report(&self) -> Report {
        let sources = Sources {
            documents: self.documents.clone(),
            modules: self.modules.clone(),
            version: VERSION,
            ..Sources::default()
        };
        check(&sources, "nixgate")
    }

    fn found(&self) -> BTreeSet<(Severity, &'static str)> {
        let findings = self.report().findings.into_iter();
        findings.map(|one| (one.severity, one.check)).collect()
    }
}

/// A JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        match value {
            Value::Null => {
                target.as_object_mut().unwrap().remove(&key);
            }
            value => merge(&mut target[&key], value),
        }
    }
}

fn ingress() -> Example {
    Example::new("existing-ingress")
}

/// Every finding that a change makes, beside those of the example itself.
fn made_by(example: &Example, from: &Example) -> Vec<(Severity, &'static str)> {
    example.found().difference(&from.found()).copied().collect()
}

/// A change of an example makes exactly these findings.
fn makes(expected: &[(Severity, Check)], changed: &Example, from: &Example) {
    let expected: BTreeSet<_> = expected
        .iter()
        .map(|(severity, check)| (*severity, check.name()))
        .collect();
    let found: BTreeSet<_> = made_by(changed, from).into_iter().collect();
    assert_eq!(found, expected, "{}", changed.report());
}

fn error(check: Check, changed: &Example) {
    makes(&[(Severity::Error, check)], changed, &ingress());
}

fn warning(check: Check, changed: &Example) {
    makes(&[(Severity::Warning, check)], changed, &ingress());
}

#[test]
fn the_shipped_examples_have_nothing_to_report() {
    for folder in EXAMPLES {
        let report = Example::new(folder).report();
        let findings = report.findings.iter();
        let worse: Vec<_> = findings
            .filter(|one| one.severity != Severity::Note)
            .collect();
        assert!(worse.is_empty(), "{folder}:\n{report}");
        assert!(report.to_string().ends_with("0 errors, 0 warnings\n"));
    }
}

#[test]
fn a_company_whose_own_listener_leads_to_the_registry_has_no_errors() {
    let example = Example::with_login();
    // What its listener does with all of its services, which is the company's choice.
    let chosen = ["paths", "delayed-close", "log-with-query"];
    let report = example.report();
    let findings = report
        .findings
        .iter()
        .filter(|one| one.severity != Severity::Note);
    let mut found: Vec<_> = findings
        .map(|one| {
            assert_eq!(
                (one.severity, &*one.place),
                (Severity::Warning, "listener secure"),
                "{report}"
            );
            one.check
        })
        .collect();
    found.dedup();
    assert_eq!(found, chosen, "{report}");
    // The registry's listener takes the client's address from this header alone.
    let mut changed = example.clone();
    let routes = changed
        .documents
        .iter_mut()
        .find(|one| one.source.ends_with("routes-web.yaml"));
    let hosts = &mut routes.unwrap().value["resources"][0]["virtual_hosts"];
    merge(
        &mut hosts[2]["routes"][0],
        json!({"request_headers_to_add": null}),
    );
    makes(
        &[(Severity::Error, Check::LoginHeaders)],
        &changed,
        &example,
    );
}

#[test]
fn every_check_can_be_found_and_is_on_the_page() {
    let page = include_str!("../../../../../docs/src/envoy-check.md");
    for check in Check::ALL {
        let row = format!("| `{}` |", check.name());
        assert!(
            page.contains(&row),
            "docs/src/envoy-check.md has no row {row}"
        );
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, Check::ALL.len(), "docs/src/envoy-check.md");
}

#[test]
fn findings_are_printed_for_people_and_for_machines() {
    let changed = ingress().filter(PLUGIN, json!({"failure_policy": "FAIL_OPEN"}));
    let report = changed.report();
    expect_test::expect![[r#"
        error failure-policy: filter nixgate: requests pass without the filter when it has died (FAIL_OPEN)
          at   envoy/existing-ingress/filter.yaml: resources[0].typed_config.config
          why  a filter that dies must be replaced, and no request may pass without it meanwhile
          do   set failure_policy: FAIL_RELOAD
        note token-variable: filter nixgate: whether Envoy's process has the variable NIXGATE_TOKEN cannot be known from here
          at   envoy/existing-ingress/filter.yaml: resources[0].typed_config.config.vm_config.environment_variables
          why  the filter needs the token that the builder requires, and gets only the variables that are listed
          do   set it to the builder's NIXGATE_TOKEN when you start Envoy
        1 error, 0 warnings
    "#]]
    .assert_eq(&report.to_string());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["errors"], 1);
    assert_eq!(json["findings"][0]["severity"], "error");
    assert_eq!(json["findings"][0]["check"], "failure-policy");
    assert_eq!(json["findings"][0]["where"], "filter nixgate");
}
