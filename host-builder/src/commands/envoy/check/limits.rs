//! Limits of listeners, connection managers, the builder's cluster, and Envoy as a whole.

use super::super::chains::{Chain, Scene};
use super::super::finding::{At, Check, Findings};
use super::super::node::Node;
use super::super::plugin::Plugin;

/// More buffered bytes than this for each stream or connection are a way to take all memory.
const BUFFER: u64 = 1 << 20;
/// More streams than this on one connection are the same.
const STREAMS: u64 = 1000;
/// The windows of a connection.
const CONNECTION_WINDOW: u64 = 16 << 20;
/// What the builder reads at once.
const BUILDER_READ: u64 = 256 << 10;
/// Callouts that wait for a full queue of 64 images in 16 workers.
const CALLOUTS: u64 = 1024;
/// When the builder closes an idle connection, in seconds.
const BUILDER_IDLE: f64 = 30.0;
/// How long podman and skopeo may stop reading.
const DELAYED_CLOSE: f64 = 10.0;

pub(super) fn check(scene: &Scene<'_>, found: &mut Findings) {
    for chain in scene.registry_chains() {
        manager(chain, found);
        if chain.faces_clients() {
            clients(chain, found);
            buffers(chain, found);
        }
    }
    let clusters = scene.plugins.iter().filter_map(Plugin::cluster);
    for name in clusters {
        let mut all = scene.all.clusters.iter();
        if let Some(cluster) = all.find(|cluster| cluster.name() == name) {
            builder(cluster, found);
        }
    }
    for bootstrap in &scene.all.bootstraps {
        process(scene, bootstrap, found);
    }
}

fn manager(chain: &Chain<'_>, found: &mut Findings) {
    let manager = &chain.manager;
    let at = || At(chain.label(), &manager.path);
    for key in ["normalize_path", "merge_slashes"] {
        if manager.is_true(key) {
            found.warning(
                Check::Paths,
                at(),
                format!("{key} changes paths before the filter sees them"),
                format!("set {key}: false, if no other service of the listener needs it"),
            );
        }
    }
    let slashes = manager
        .text("path_with_escaped_slashes_action")
        .unwrap_or_default();
    if slashes.starts_with("UNESCAPE") {
        found.warning(
            Check::Paths,
            at(),
            format!("path_with_escaped_slashes_action: {slashes} changes paths before the filter sees them"),
            "set path_with_escaped_slashes_action: KEEP_UNCHANGED, if no other service needs it",
        );
    }
    if manager
        .seconds("delayed_close_timeout")
        .is_none_or(|one| one > 0.0 && one < DELAYED_CLOSE)
    {
        found.warning(
            Check::DelayedClose,
            at(),
            "delayed_close_timeout is missing or too short",
            "set delayed_close_timeout: 30s",
        );
    }
}

/// What clients could choose.
fn clients(chain: &Chain<'_>, found: &mut Findings) {
    let manager = &chain.manager;
    let at = || At(chain.label(), &manager.path);
    if !manager.is_true("use_remote_address") {
        let what = "use_remote_address is missing";
        let remedy = "set use_remote_address: true, and xff_num_trusted_hops to the number of balancers \
                      in front";
        match manager.items("original_ip_detection_extensions").is_empty() {
            true => found.error(Check::RemoteAddress, at(), what, remedy),
            // Then Envoy knows the address; request ids and paths are still those of clients.
            false => found.warning(Check::RemoteAddress, at(), what, remedy),
        }
    }
    if manager.is_true("preserve_external_request_id") {
        found.warning(
            Check::RequestId,
            at(),
            "preserve_external_request_id lets clients choose the ids of their requests",
            "remove preserve_external_request_id",
        );
    }
    if manager.get("internal_address_config").is_some() {
        found.warning(
            Check::RequestId,
            at(),
            "internal_address_config lets clients with these addresses choose the ids of their requests",
            "remove internal_address_config, unless all of them are your own proxies",
        );
    }
}

fn buffers(chain: &Chain<'_>, found: &mut Findings) {
    let options = chain.manager.get("http2_protocol_options");
    let path = options
        .as_ref()
        .map_or(&chain.manager.path, |one| &one.path);
    for (key, most, value) in [
        ("max_concurrent_streams", STREAMS, 100),
        ("initial_stream_window_size", BUFFER, 65536),
        (
            "initial_connection_window_size",
            CONNECTION_WINDOW,
            1_048_576,
        ),
    ] {
        let number = options.as_ref().and_then(|one| one.number(key));
        if number.is_none_or(|number| number > most) {
            let what = match number {
                Some(number) => format!("http2_protocol_options.{key} is {number}"),
                None => format!("http2_protocol_options.{key} is missing"),
            };
            let remedy = format!("set {key}: {value}");
            found.warning(Check::Http2, At(chain.label(), path), what, remedy);
        }
    }
    let limit = chain.listener.number("per_connection_buffer_limit_bytes");
    if limit.is_none_or(|limit| limit > BUFFER) {
        found.warning(
            Check::ListenerBuffer,
            At(chain.label(), &chain.listener.path),
            "per_connection_buffer_limit_bytes is missing or large",
            "set per_connection_buffer_limit_bytes: 32768",
        );
    }
}

fn builder(cluster: &Node<'_>, found: &mut Findings) {
    let at = || At(format!("cluster {}", cluster.name()), &cluster.path);
    let limit = cluster.number("per_connection_buffer_limit_bytes");
    if limit.is_none_or(|limit| !(BUILDER_READ..=BUFFER).contains(&limit)) {
        let what = match limit {
            Some(limit) => format!("per_connection_buffer_limit_bytes is {limit}"),
            None => "per_connection_buffer_limit_bytes is missing".to_owned(),
        };
        let remedy = "set per_connection_buffer_limit_bytes: 262144";
        found.warning(Check::ClusterBuffer, at(), what, remedy);
    }
    let breakers = cluster.get("circuit_breakers");
    let thresholds = breakers
        .map(|one| one.items("thresholds"))
        .unwrap_or_default();
    let usual = thresholds.iter().find(|one| {
        let priority = one.text("priority").unwrap_or("DEFAULT");
        priority == "DEFAULT"
    });
    for key in ["max_connections", "max_pending_requests", "max_requests"] {
        let number = usual.and_then(|one| one.number(key));
        if number.is_none_or(|number| number < CALLOUTS) {
            let what = match number {
                Some(number) => format!("circuit_breakers: {key} is {number}"),
                None => format!("circuit_breakers: {key} is missing, so it is 1024"),
            };
            let remedy = format!("set {key}: 4096 in circuit_breakers.thresholds");
            found.warning(Check::CircuitBreakers, at(), what, remedy);
        }
    }
    let options = cluster.at(&[
        "typed_extension_protocol_options",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    ]);
    let options = options.as_ref();
    let common = options.and_then(|one| one.get("common_http_protocol_options"));
    let common = common.or_else(|| cluster.get("common_http_protocol_options"));
    let idle = common.and_then(|one| one.seconds("idle_timeout"));
    if idle.is_none_or(|idle| idle <= 0.0 || idle >= BUILDER_IDLE) {
        found.warning(
            Check::ClusterIdle,
            at(),
            "connections stay idle for longer than at the builder",
            "set common_http_protocol_options: { idle_timeout: 20s } in the cluster's \
             HttpProtocolOptions",
        );
    }
    let explicit = options.and_then(|one| one.get("explicit_http_config"));
    let is_newer = explicit.is_some_and(|one| {
        one.get("http2_protocol_options").is_some() || one.get("http3_protocol_options").is_some()
    });
    if is_newer || cluster.get("http2_protocol_options").is_some() {
        found.error(
            Check::ClusterProtocol,
            at(),
            "Envoy speaks HTTP/2 or HTTP/3 to the builder",
            "set explicit_http_config: { http_protocol_options: {} }",
        );
    }
    if let Some(detection) = cluster.get("outlier_detection") {
        found.warning(
            Check::OutlierDetection,
            At(format!("cluster {}", cluster.name()), &detection.path),
            "outlier_detection may take the builder out because of answers that are right",
            "remove outlier_detection, or let it count only failed connections",
        );
    }
    if let Some(checks) = cluster.items("health_checks").first() {
        found.warning(
            Check::HealthChecks,
            At(format!("cluster {}", cluster.name()), &checks.path),
            "health_checks decide whether the builder is asked",
            "remove health_checks where there is one builder; with several, check /readyz",
        );
    }
}

fn process(scene: &Scene<'_>, bootstrap: &Node<'_>, found: &mut Findings) {
    let at = |path| At("Envoy".to_owned(), path);
    let overload = bootstrap.get("overload_manager");
    if overload.is_none() {
        found.warning(
            Check::Overload,
            at(&bootstrap.path),
            "there is no overload_manager",
            "add one with a limit of the heap, as envoy/standalone/envoy.yaml has it",
        );
    }
    let monitors = overload
        .map(|one| one.items("resource_monitors"))
        .unwrap_or_default();
    let has_monitor = monitors
        .iter()
        .any(|one| one.kind() == "DownstreamConnectionsConfig");
    let limits = scene.registry_chains().all(|chain| {
        let text = chain
            .listener
            .any_text(&mut |text| text.ends_with(".ConnectionLimit"));
        text || !chain.faces_clients()
    });
    // Long ago a limit was a key of the runtime.
    let runtime = bootstrap.get("layered_runtime");
    let has_key = runtime.is_some_and(|one| {
        one.value
            .to_string()
            .contains("overload.global_downstream_max_connections")
    });
    if !has_monitor && !has_key && !limits {
        found.warning(
            Check::ConnectionLimit,
            at(&bootstrap.path),
            "nothing limits the connections of clients",
            "add the resource monitor envoy.resource_monitors.global_downstream_max_connections",
        );
    }
    let admin = bootstrap.at(&["admin", "address", "socket_address"]);
    if let Some(admin) = admin {
        found.warning(
            Check::AdminAddress,
            at(&admin.path),
            "the administration listens on a port",
            "let it listen on a socket: address: { pipe: { path: …, mode: 384 } }",
        );
    }
}
