//! Of limits and timeouts.

use super::*;

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
