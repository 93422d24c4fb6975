//! Of routes, and of what clients could choose.

use super::*;

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
