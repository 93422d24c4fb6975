use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::super::finding::{Check, Severity};
use super::super::read::{self, Folders};
use super::*;

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
fn a_filter_that_is_on_for_other_services_is_an_error() {
    // The path that Envoy answers itself is no service.
    makes(
        &[
            (Severity::Error, Check::OtherServices),
            (Severity::Warning, Check::OtherServices),
        ],
        &ingress().manager("/http_filters/1", json!({"disabled": null})),
        &ingress(),
    );
    // Beside another registry, the filter judges all names; another host is something else.
    let other = json!({"name": "app", "domains": ["app.corp"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "other_registry"}}]});
    let beside = Example::new("beside-registry");
    let changed = beside.clone().push("/route_config/virtual_hosts", 0, other);
    let found = made_by(&changed, &beside);
    assert!(
        found.contains(&(Severity::Error, "other-services")),
        "{}",
        changed.report()
    );
    let changed = beside.clone().settings(json!({"name_prefix": null}));
    makes(
        &[(Severity::Error, Check::OtherServices)],
        &changed,
        &beside,
    );
}

#[test]
fn a_registry_without_its_filter_is_an_error() {
    let no_override = json!({"typed_per_filter_config": null});
    makes(
        &[
            (Severity::Error, Check::NeverEnabled),
            (Severity::Error, Check::RouteWithoutFilter),
        ],
        &ingress().manager(REGISTRY, no_override),
        &ingress(),
    );
    let bare = json!({"name": "bare", "domains": ["bare.corp"],
        "routes": [{"match": {"prefix": "/v2/"}, "route": {"cluster": "nixgate_builder",
            "timeout": "0s", "idle_timeout": "28s"}}]});
    error(
        Check::RouteWithoutFilter,
        &ingress().push("/route_config/virtual_hosts", 0, bare),
    );
    let none = json!({"name": "other", "config_discovery": null, "disabled": null,
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"}});
    let changed = ingress().manager("/http_filters/1", none);
    let found = made_by(&changed, &ingress());
    for check in ["no-filter", "route-without-filter"] {
        assert!(
            found.contains(&(Severity::Error, check)),
            "{}",
            changed.report()
        );
    }
}

#[test]
fn the_filter_is_last_before_the_router() {
    let filter = |name: &str| json!({"name": name, "typed_config": {"@type": format!("type.googleapis.com/x.v3.{name}")}});
    error(
        Check::NotLast,
        &ingress().push("/http_filters", 2, filter("ExtAuthz")),
    );
    warning(
        Check::NotLast,
        &ingress().push("/http_filters", 2, filter("Lua")),
    );
    // In front of it is their place.
    makes(
        &[],
        &ingress().push("/http_filters", 0, filter("ExtAuthz")),
        &ingress(),
    );
    // One that is off on the registry's routes is nobody's.
    let mut off = filter("Lua");
    off["disabled"] = true.into();
    makes(&[], &ingress().push("/http_filters", 2, off), &ingress());
    warning(
        Check::Compressor,
        &ingress().push("/http_filters", 0, filter("Compressor")),
    );
}

#[test]
fn what_belongs_to_the_registry_alone_reaches_no_other_service() {
    let jwt = |rule: Value| {
        json!({"name": "jwt", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"nixgate": {"remote_jwks": {"http_uri": {"cluster": "nixgate_builder"}}},
                "other": {"remote_jwks": {"http_uri": {"cluster": "app"}}}},
            "rules": [rule],
        }})
    };
    let rule =
        |provider: &str| json!({"match": {"prefix": "/"}, "requires": {"provider_name": provider}});
    error(
        Check::JwtElsewhere,
        &ingress().push("/http_filters", 0, jwt(rule("nixgate"))),
    );
    makes(
        &[],
        &ingress().push("/http_filters", 0, jwt(rule("other"))),
        &ingress(),
    );
    let mut bound = rule("nixgate");
    bound["match"]["headers"] =
        json!([{"name": ":authority", "string_match": {"exact": "registry.corp"}}]);
    makes(
        &[],
        &ingress().push("/http_filters", 0, jwt(bound)),
        &ingress(),
    );

    let limit = json!({"name": "limit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "token_bucket": {"max_tokens": 1}}});
    warning(
        Check::LimitElsewhere,
        &ingress().push("/http_filters", 0, limit),
    );
}

#[test]
fn envoys_own_answers_are_the_registrys_on_its_routes_alone() {
    let body = json!({"json_format": {"errors": [{"code": "UNAVAILABLE"}]}});
    let status = json!({"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 500}}}});
    let push = |mapper: Value| ingress().push("/local_reply_config/mappers", 0, mapper);
    error(
        Check::ReplyNotBound,
        &push(json!({"filter": status, "body_format_override": body})),
    );
    let mine = json!({"text_format_source": {"inline_string": "sorry"}});
    warning(
        Check::ReplyRewrites,
        &push(json!({"filter": status, "body_format_override": mine})),
    );
    // By flags, which the filter's answers do not have, and by a part of an `and_filter`.
    let flags = json!({"response_flag_filter": {"flags": ["UF"]}});
    makes(
        &[],
        &push(json!({"filter": flags, "body_format_override": mine})),
        &ingress(),
    );
    let host = json!({"extension_filter": {"typed_config": {"expression": "xds.virtual_host_name == 'nixgate'"}}});
    let both = json!({"and_filter": {"filters": [status, host]}});
    makes(
        &[],
        &push(json!({"filter": both, "body_format_override": body})),
        &ingress(),
    );
    let marked = |others: bool| json!({"metadata_filter": {"matcher": {"filter": "nixgate"}, "match_if_key_not_found": others}});
    makes(
        &[],
        &push(json!({"filter": marked(false), "body_format_override": body})),
        &ingress(),
    );
    error(
        Check::ReplyNotBound,
        &push(json!({"filter": marked(true), "body_format_override": body})),
    );
    let either = json!({"or_filter": {"filters": [status, host]}});
    error(
        Check::ReplyNotBound,
        &push(json!({"filter": either, "body_format_override": body})),
    );
    error(
        Check::ReplyRewrites,
        &ingress().manager(
            "/local_reply_config",
            json!({"body_format": {"json_format": {"a": "b"}}}),
        ),
    );
    warning(
        Check::ReplyFormat,
        &ingress().manager("", json!({"local_reply_config": null})),
    );
}

#[test]
fn timeouts_spare_held_requests_and_end_forgotten_ones() {
    let route = |patch: Value| ingress().manager(&format!("{REGISTRY}/route"), patch);
    error(Check::RouteTimeout, &route(json!({"timeout": null})));
    error(Check::RouteTimeout, &route(json!({"timeout": "60s"})));
    error(Check::IdleTimeout, &route(json!({"idle_timeout": "25s"})));
    warning(Check::IdleTimeout, &route(json!({"idle_timeout": "30s"})));
    warning(Check::IdleTimeout, &route(json!({"idle_timeout": "0s"})));
    warning(Check::IdleTimeout, &route(json!({"idle_timeout": null})));
    // The bound is that of the settings.
    error(
        Check::IdleTimeout,
        &route(json!({"idle_timeout": "26s"})).settings(json!({"hold_seconds": 22})),
    );
    let duration = |seconds: &str| json!({"max_stream_duration": {"max_stream_duration": seconds}});
    error(Check::MaxDuration, &route(duration("20s")));
    warning(Check::MaxDuration, &route(duration("600s")));
    error(
        Check::RequestTimeout,
        &ingress().manager("", json!({"request_timeout": "25s"})),
    );
    makes(
        &[],
        &ingress().manager("", json!({"request_timeout": "0s"})),
        &ingress(),
    );
}

#[test]
fn requests_are_sent_once_and_to_the_builder_alone() {
    let route = |patch: Value| ingress().manager(&format!("{REGISTRY}/route"), patch);
    warning(
        Check::Retries,
        &route(json!({"retry_policy": {"retry_on": "5xx"}})),
    );
    makes(
        &[],
        &route(json!({"retry_policy": {"retry_on": "connect-failure"}})),
        &ingress(),
    );
    let host = json!({"retry_policy": {"retry_on": "5xx"}});
    warning(
        Check::Retries,
        &ingress().manager("/route_config/virtual_hosts/1", host),
    );
    warning(
        Check::Hedging,
        &route(json!({"hedge_policy": {"hedge_on_per_try_timeout": true}})),
    );
    error(
        Check::Mirror,
        &route(json!({"request_mirror_policies": [{"cluster": "app"}]})),
    );
}

#[test]
fn clients_choose_neither_paths_nor_ids_nor_addresses() {
    let manager = |patch: Value| ingress().manager("", patch);
    warning(Check::Paths, &manager(json!({"normalize_path": true})));
    warning(Check::Paths, &manager(json!({"merge_slashes": true})));
    warning(
        Check::Paths,
        &manager(json!({"path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"})),
    );
    error(
        Check::RemoteAddress,
        &manager(json!({"use_remote_address": null})),
    );
    let extension =
        json!({"use_remote_address": false, "original_ip_detection_extensions": [{"name": "x"}]});
    warning(Check::RemoteAddress, &manager(extension));
    warning(
        Check::RequestId,
        &manager(json!({"preserve_external_request_id": true})),
    );
    warning(
        Check::RequestId,
        &manager(json!({"internal_address_config": {}})),
    );
}

#[test]
fn limits_that_are_missing_are_named() {
    let http2 = |patch: Value| ingress().manager("/http2_protocol_options", patch);
    warning(
        Check::DelayedClose,
        &ingress().manager("", json!({"delayed_close_timeout": null})),
    );
    warning(
        Check::Http2,
        &ingress().manager("", json!({"http2_protocol_options": null})),
    );
    warning(
        Check::Http2,
        &http2(json!({"initial_stream_window_size": 16_777_216})),
    );
    warning(
        Check::Http2,
        &http2(json!({"max_concurrent_streams": null})),
    );
    let buffer = json!({"per_connection_buffer_limit_bytes": null});
    warning(
        Check::ListenerBuffer,
        &ingress().envoy("/static_resources/listeners/0", buffer.clone()),
    );
    let cluster = |patch: Value| ingress().envoy(CLUSTER, patch);
    warning(Check::ClusterBuffer, &cluster(buffer));
    warning(
        Check::ClusterBuffer,
        &cluster(json!({"per_connection_buffer_limit_bytes": 32768})),
    );
    warning(
        Check::CircuitBreakers,
        &cluster(json!({"circuit_breakers": null})),
    );
    let low = json!({"circuit_breakers": {"thresholds": [{"max_requests": 100}]}});
    warning(Check::CircuitBreakers, &cluster(low));
    let options = format!(
        "{CLUSTER}/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    );
    let idle = json!({"common_http_protocol_options": null});
    warning(Check::ClusterIdle, &ingress().envoy(&options, idle));
    let http2 = json!({"explicit_http_config": {"http2_protocol_options": {}}});
    error(Check::ClusterProtocol, &ingress().envoy(&options, http2));
    warning(
        Check::OutlierDetection,
        &cluster(json!({"outlier_detection": {}})),
    );
    warning(
        Check::HealthChecks,
        &cluster(json!({"health_checks": [{"timeout": "1s"}]})),
    );
    makes(
        &[
            (Severity::Warning, Check::Overload),
            (Severity::Warning, Check::ConnectionLimit),
        ],
        &ingress().envoy("", json!({"overload_manager": null})),
        &ingress(),
    );
    let monitors = json!({"resource_monitors": []});
    warning(
        Check::ConnectionLimit,
        &ingress().envoy("/overload_manager", monitors),
    );
    let port = json!({"address": {"pipe": null,
        "socket_address": {"address": "127.0.0.1", "port_value": 9901}}});
    warning(Check::AdminAddress, &ingress().envoy("/admin", port));
}

#[test]
fn logs_have_the_filters_facts_and_no_queries() {
    let all = json!({"name": "all", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"}});
    warning(
        Check::LogWithQuery,
        &ingress().push("/access_log", 0, all.clone()),
    );
    let mut without = all.clone();
    without["typed_config"]["log_format"] = json!({"json_format": {"path": "%PATH(NQ)%"}});
    makes(&[], &ingress().push("/access_log", 0, without), &ingress());
    // The ingress's own log, when its filter is lost.
    warning(
        Check::LogWithQuery,
        &ingress().manager("/access_log/0", json!({"filter": null})),
    );
    // By a mark on requests, or by expressions; a mark that is missing may be one that matches.
    let marked = |wanted: bool, others: bool| {
        json!({"metadata_filter": {"matcher": {"filter": "nixgate", "value": {"bool_match": wanted}},
            "match_if_key_not_found": others}})
    };
    let expression =
        |text: &str| json!({"extension_filter": {"typed_config": {"expression": text}}});
    for (filter, has_registry) in [
        (marked(false, true), false),
        (marked(true, false), true),
        (marked(true, true), true),
        (
            expression("!('wasm.nixgate.outcome' in filter_state)"),
            false,
        ),
        (expression("xds.virtual_host_name != 'nixgate'"), false),
        (expression("xds.virtual_host_name == \"nixgate\""), true),
        (json!({"status_code_filter": {}}), true),
    ] {
        let mut log = all.clone();
        log["filter"] = filter;
        let expected = [(Severity::Warning, Check::LogWithQuery)];
        let expected = if has_registry { &expected[..] } else { &[] };
        makes(expected, &ingress().push("/access_log", 0, log), &ingress());
    }
    warning(
        Check::LogWithoutFacts,
        &ingress().manager(
            "/access_log/1/typed_config/log_format/json_format",
            json!({"outcome": null}),
        ),
    );
    warning(
        Check::Tracing,
        &ingress().manager("", json!({"tracing": {"provider": {}}})),
    );
}

#[test]
fn only_logins_get_the_token_from_a_route() {
    let header = |action: &str, value: &str| {
        json!({"request_headers_to_add": [
            {"header": {"key": "Nixgate-Token", "value": value}, "append_action": action}]})
    };
    let overwrite = "OVERWRITE_IF_EXISTS_OR_ADD";
    let variable = "%ENVIRONMENT(NIXGATE_TOKEN)%";
    warning(
        Check::TokenHeader,
        &ingress().manager(REGISTRY, header(overwrite, variable)),
    );
    makes(
        &[
            (Severity::Warning, Check::TokenHeader),
            (Severity::Warning, Check::TokenInText),
        ],
        &ingress().manager(REGISTRY, header(overwrite, "secret")),
        &ingress(),
    );
    makes(
        &[
            (Severity::Warning, Check::TokenHeader),
            (Severity::Error, Check::LoginHeaders),
        ],
        &ingress().manager(REGISTRY, header("APPEND_IF_EXISTS_OR_ADD", variable)),
        &ingress(),
    );
    // To another service.
    let app = "/route_config/virtual_hosts/0";
    error(
        Check::TokenHeader,
        &ingress().manager(app, header(overwrite, variable)),
    );
    // Past the filter: whoever comes this way may have everything.
    let mut open = header(overwrite, variable);
    merge(
        &mut open,
        json!({"name": "open", "match": {"prefix": "/"},
        "route": {"cluster": "nixgate_builder", "timeout": "0s", "idle_timeout": "28s"}}),
    );
    makes(
        &[
            (Severity::Error, Check::TokenHeader),
            (Severity::Error, Check::RouteWithoutFilter),
        ],
        &ingress().push("/route_config/virtual_hosts/1/routes", 1, open),
        &ingress(),
    );
    let other = json!({"request_headers_to_add": [{"header": {"key": "nixgate-rule", "value": "a"},
        "append_action": overwrite}]});
    warning(Check::TokenHeader, &ingress().manager(REGISTRY, other));

    let gateway = Example::new("corporate-gateway");
    let login = "/route_config/virtual_hosts/0/routes/0";
    let changed = gateway.clone().manager(
        &format!("{login}/request_headers_to_add/1"),
        json!({"header": {"key": "x-other"}}),
    );
    makes(
        &[(Severity::Error, Check::LoginHeaders)],
        &changed,
        &gateway,
    );
    let changed = gateway.clone().manager(
        &format!("{login}/request_headers_to_add/0"),
        json!({"append_action": null}),
    );
    makes(
        &[(Severity::Error, Check::LoginHeaders)],
        &changed,
        &gateway,
    );
    // The page of builds, once there is a policy.
    let standalone = Example::new("standalone");
    let policy = json!({"policy": {"revision": "1", "default": "deny", "rules": []}});
    let changed = standalone.clone().settings(policy);
    makes(
        &[(Severity::Warning, Check::TokenHeader)],
        &changed,
        &standalone,
    );
}

#[test]
fn the_filters_file_has_one_resource_with_its_name_and_good_settings() {
    let mut two = ingress();
    let resources = two.at(1, "/resources").as_array_mut().unwrap();
    resources.push(resources[0].clone());
    error(Check::Resources, &two);
    let renamed = ingress().filter("/resources/0", json!({"name": "other"}));
    let found = made_by(&renamed, &ingress());
    assert!(
        found.contains(&(Severity::Error, "not-delivered")),
        "{}",
        renamed.report()
    );

    for (patch, part) in [
        (json!({"hold_second": 20}), "unknown field `hold_second`"),
        (json!({"hold_seconds": 60}), "hold_seconds is 60"),
        (json!({"policy": {"revision": "1"}}), "missing field"),
    ] {
        let changed = ingress().settings(patch);
        let report = changed.report().to_string();
        assert!(
            report.contains("error settings: filter nixgate: "),
            "{report}"
        );
        assert!(report.contains(part), "{report}");
    }
    let none = ingress().filter(PLUGIN, json!({"configuration": null}));
    assert!(made_by(&none, &ingress()).contains(&(Severity::Error, "settings")));
    let cluster = ingress().settings(json!({"builder": {"cluster": "other"}}));
    let found = made_by(&cluster, &ingress());
    assert!(
        found.contains(&(Severity::Error, "builder-cluster")),
        "{}",
        cluster.report()
    );
}

#[test]
fn settings_may_be_bytes_and_no_mapping() {
    let mapping = json!({"builder": {"cluster": "nixgate_builder", "token_env": "NIXGATE_TOKEN"},
        "hold_seconds": 60});
    let changed = ingress().filter(
        &format!("{PLUGIN}/configuration"),
        json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": mapping}),
    );
    assert!(
        changed
            .report()
            .to_string()
            .contains("a Struct that the filter can't read")
    );
    let bytes = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        mapping.to_string(),
    );
    let changed = ingress().filter(
        &format!("{PLUGIN}/configuration"),
        json!({"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": bytes}),
    );
    assert!(changed.report().to_string().contains("hold_seconds is 60"));
}

#[test]
fn the_filters_vm_has_its_token_its_module_and_its_own_memory() {
    let vm = |patch: Value| ingress().filter(&format!("{PLUGIN}/vm_config"), patch);
    let plugin = |patch: Value| ingress().filter(PLUGIN, patch);
    let unlisted = vm(json!({"environment_variables": {"host_env_keys": ["OTHER"]}}));
    error(Check::TokenVariable, &unlisted);
    let written = json!({"environment_variables": {"key_values": {"NIXGATE_TOKEN": "a"}}});
    warning(Check::TokenInText, &vm(written));
    warning(Check::VmId, &vm(json!({"vm_id": null})));
    let other = json!({"name": "other", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {"vm_config": {"vm_id": "nixgate", "code": {"local": {"filename": "other.wasm"}}}}}});
    error(
        Check::VmId,
        &ingress().push("/http_filters", 0, other.clone()),
    );
    let mut own = other;
    own["typed_config"]["config"]["vm_config"]["vm_id"] = "other".into();
    makes(&[], &ingress().push("/http_filters", 0, own), &ingress());
    error(
        Check::FailurePolicy,
        &plugin(json!({"failure_policy": "FAIL_OPEN"})),
    );
    error(Check::FailurePolicy, &plugin(json!({"fail_open": true})));
    warning(
        Check::FailurePolicy,
        &plugin(json!({"failure_policy": null})),
    );
    warning(Check::ReloadConfig, &plugin(json!({"reload_config": null})));
    let slow = json!({"reload_config": {"backoff": {"base_interval": "1s"}}});
    warning(Check::ReloadConfig, &plugin(slow));

    let module = |module: Module| {
        let mut example = ingress();
        example.modules.insert(MODULE.to_owned(), module);
        example
    };
    error(
        Check::Module,
        &module(Module::Unreadable("gone".to_owned())),
    );
    error(Check::Module, &module(Module::NotWasm));
    warning(Check::ModuleVersion, &module(Module::Version(None)));
    let old = Some("1.2.2+0123456789ab".to_owned());
    warning(Check::ModuleVersion, &module(Module::Version(old)));
    let remote = json!({"code": {"local": null, "remote": {"sha256": "a"}}});
    makes(&[(Severity::Note, Check::Module)], &vm(remote), &ingress());
    let default =
        json!({"config_discovery": {"default_config": {"@type": "type.googleapis.com/x.v3.Cors"}}});
    warning(
        Check::DefaultConfig,
        &ingress().manager("/http_filters/1", default),
    );
}

/// The ingress with its listeners in a file of their own.
fn delivered(count: usize) -> Example {
    let mut example = ingress();
    let mut listener = example.at(0, "/static_resources/listeners/0").take();
    *example.at(0, "/static_resources/listeners") = json!([]);
    listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
    let listeners: Vec<Value> = (0..count)
        .map(|index| {
            let mut one = listener.clone();
            one["name"] = format!("ingress-{index}").into();
            one
        })
        .collect();
    let source = "lds.yaml".to_owned();
    let value = json!({"resources": listeners});
    example.documents.push(Document { source, value });
    example
}

#[test]
fn delivered_listeners_are_checked_and_share_no_filter() {
    makes(&[], &delivered(1), &ingress());
    warning(Check::SharedDelivery, &delivered(2));
}

#[test]
fn files_that_are_wrong_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let folders = Folders {
        directory: root.to_owned(),
        maps: Vec::new(),
    };
    let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
    let envoy = |file: &str| {
        let manager = json!({"@type": "x.HttpConnectionManager", "http_filters": [{"name": "nixgate",
            "config_discovery": {"config_source": {"path_config_source": {"path": file}}}}]});
        let listener = json!({"filter_chains": [{"filters": [{"typed_config": manager}]}]});
        write(
            "envoy.yaml",
            &json!({"static_resources": {"listeners": [listener]}}).to_string(),
        );
        read::files(&[root.join("envoy.yaml")], &folders).unwrap()
    };
    write("broken.yaml", "a: [");
    write("list.yaml", "- a");
    for (file, part) in [
        ("missing.yaml", "No such file"),
        ("broken.yaml", "it is not YAML"),
        ("list.yaml", "it is not a mapping"),
        (".", "it is not a file"),
    ] {
        let report = check(&envoy(file), "nixgate");
        let named: Vec<_> = report
            .findings
            .iter()
            .filter(|one| one.check == "file")
            .collect();
        assert_eq!(named.len(), 1, "{file}: {report}");
        assert!(named[0].what.contains(part), "{file}: {report}");
        assert!(
            named[0]
                .path
                .contains("http_filters[0].config_discovery.config_source"),
            "{report}"
        );
        assert!(
            report
                .findings
                .iter()
                .all(|one| one.check != "not-delivered"),
            "{report}"
        );
    }
    write("strange.yaml", "a: 1");
    let sources = read::files(&[root.join("strange.yaml")], &folders).unwrap();
    assert_eq!(check(&sources, "nixgate").errors, 1);
    let error = read::files(&[root.join("missing.yaml")], &folders).unwrap_err();
    assert!(format!("{error:#}").contains("cannot read"), "{error:#}");
}

#[test]
fn a_modules_version_is_found_among_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let folders = Folders {
        directory: folder.path().to_owned(),
        maps: Vec::new(),
    };
    let version = |content: &[u8]| {
        std::fs::write(folder.path().join("a.wasm"), content).unwrap();
        let plugin =
            json!({"resources": [{"vm_config": {"code": {"local": {"filename": "a.wasm"}}}}]});
        std::fs::write(folder.path().join("a.yaml"), plugin.to_string()).unwrap();
        let sources = read::files(&[folder.path().join("a.yaml")], &folders).unwrap();
        sources.modules["a.wasm"].clone()
    };
    let of = |version: &str| Module::Version(Some(version.to_owned()));
    assert_eq!(
        version(b"\0asm nixgate 0.0.7+0123456789abbuilder"),
        of("0.0.7+0123456789ab")
    );
    assert_eq!(version(b"\0asm nothing 1.2"), Module::Version(None));
    assert_eq!(version(b"text"), Module::NotWasm);
    let own = crate::telemetry::logging::VERSION;
    // What stands before it looks like a part of it.
    assert_eq!(version(format!("\0asm 7{own}abc").as_bytes()), of(own));
}

#[test]
fn what_a_running_envoy_refuses_is_an_error_or_was_one() {
    let refused = |refused: u64, taken: u64| {
        let name = |event: &str| format!("extension_config_discovery.http_filter.nixgate.{event}");
        let stats = [
            (name("update_rejected"), refused),
            (name("update_success"), taken),
        ];
        let sources = Sources {
            documents: ingress().documents,
            modules: ingress().modules,
            stats: stats.into(),
            version: VERSION,
            ..Sources::default()
        };
        let report = check(&sources, "nixgate");
        (report.errors, report.warnings)
    };
    assert_eq!(refused(0, 1), (0, 0));
    assert_eq!(refused(1, 0), (1, 0));
    assert_eq!(refused(1, 2), (0, 1));
    let dump = json!({"configs": [{"@type": "x.ListenersConfigDump", "dynamic_listeners": [
        {"name": "ingress", "error_state": {"details": "no such cluster"}}]}]});
    let source = "config_dump".to_owned();
    let sources = Sources {
        documents: vec![Document {
            source,
            value: dump,
        }],
        ..Sources::default()
    };
    let report = check(&sources, "nixgate").to_string();
    assert!(
        report.contains(
            "error refused: listener ingress: Envoy has refused an update: no such cluster"
        ),
        "{report}"
    );
}

#[test]
fn routes_to_another_listener_with_the_filter_are_the_registrys_too() {
    // The ingress leads to a listener of its own for the registry, on a socket.
    let mut example = ingress();
    let mut inner = example.at(0, "/static_resources/listeners/0").clone();
    inner["name"] = "registry".into();
    inner["address"] = json!({"pipe": {"path": "/run/envoy/registry.sock"}});
    *example.at(0, "/static_resources/listeners/0/name") = "front".into();
    let manager = example.at(0, MANAGER);
    manager["http_filters"].as_array_mut().unwrap().remove(1);
    let route = manager.pointer_mut(REGISTRY).unwrap();
    *route = json!({"match": {"prefix": "/"}, "route": {"cluster": "registry", "timeout": "0s", "idle_timeout": "29s"}});
    let listeners = example.at(0, "/static_resources/listeners");
    listeners.as_array_mut().unwrap().push(inner);
    let endpoint = json!({"endpoint": {"address": {"pipe": {"path": "/run/envoy/registry.sock"}}}});
    let cluster = json!({"name": "registry",
        "load_assignment": {"endpoints": [{"lb_endpoints": [endpoint]}]}});
    let clusters = example.at(0, "/static_resources/clusters");
    clusters.as_array_mut().unwrap().push(cluster);
    let found = example.report();
    assert_eq!((found.errors, found.warnings), (0, 0), "{found}");
    // Its default timeout would end held requests.
    let mut wrong = example.clone();
    merge(
        wrong.at(0, &format!("{MANAGER}{REGISTRY}/route")),
        json!({"timeout": null}),
    );
    makes(&[(Severity::Error, Check::RouteTimeout)], &wrong, &example);
    let mut wrong = example.clone();
    merge(wrong.at(0, MANAGER), json!({"use_remote_address": null}));
    makes(&[(Severity::Error, Check::RemoteAddress)], &wrong, &example);
}

/// A running Envoy shows static listeners twice, once in its bootstrap.
#[test]
fn a_plugin_that_is_shown_twice_is_one() {
    let mut example = ingress();
    let filter = example.at(1, "/resources/0/typed_config").clone();
    let patch = json!({"config_discovery": null, "typed_config": filter});
    let code = json!({"local": null, "remote": {"sha256": "a"}});
    let mut example = example.manager("/http_filters/1", patch).manager(
        "/http_filters/1/typed_config/config/vm_config",
        json!({"code": code}),
    );
    let bootstrap = example.documents.remove(0).value;
    let listener = bootstrap["static_resources"]["listeners"][0].clone();
    let clusters = bootstrap["static_resources"]["clusters"]
        .as_array()
        .unwrap();
    let clusters: Vec<Value> = clusters.iter().map(|one| json!({"cluster": one})).collect();
    let value = json!({"configs": [
        {"@type": "x.BootstrapConfigDump", "bootstrap": bootstrap},
        {"@type": "x.ListenersConfigDump", "static_listeners": [{"listener": listener}]},
        {"@type": "x.ClustersConfigDump", "static_clusters": clusters},
    ]});
    let source = "config_dump".to_owned();
    example.documents = vec![Document { source, value }];
    let notes = [(Severity::Note, "module")];
    assert_eq!(example.found(), notes.into(), "{}", example.report());
}

#[test]
fn envoys_own_answers_on_other_hosts_are_no_service() {
    let other = json!({"name": "other", "domains": ["other.corp"],
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 404}}]});
    let standalone = Example::new("standalone");
    let changed = standalone
        .clone()
        .push("/route_config/virtual_hosts", 0, other);
    let expected = [
        (Severity::Warning, Check::OtherServices),
        (Severity::Warning, Check::ReplyNotBound),
    ];
    makes(&expected, &changed, &standalone);
}

#[test]
fn what_cannot_be_seen_in_files_is_noted() {
    let ads =
        json!({"config_discovery": {"config_source": {"path_config_source": null, "ads": {}}}});
    let mut example = ingress().manager("/http_filters/1", ads);
    example.documents.truncate(1);
    let notes = [(Severity::Note, Check::Unseen)];
    makes(
        &notes,
        &example,
        &Example {
            documents: Vec::new(),
            ..ingress()
        },
    );
    let rds = json!({"route_config": null, "rds": {"route_config_name": "a", "config_source": {"ads": {}}}});
    makes(&notes, &ingress().manager("", rds), &ingress());
    let matcher = json!({"routes": null, "matcher": {"matcher_tree": {}}});
    let changed = ingress().manager("/route_config/virtual_hosts/1", matcher);
    assert!(made_by(&changed, &ingress()).contains(&(Severity::Note, "unseen")));
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
