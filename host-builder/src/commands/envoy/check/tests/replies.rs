//! Of Envoy's own answers.

use super::*;

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
