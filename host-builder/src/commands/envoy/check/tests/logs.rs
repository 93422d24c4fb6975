//! Of access logs.

use super::*;

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
