//! The Envoy configurations that are shipped: what the filter relies on is in all of them, and what
//! Envoy's own advice for edge proxies asks for ("Configuring Envoy as an edge proxy").

use std::fs;
use std::path::Path;

use nixgate_tests::envoy_config::{BUILDER, parse, with_marked_lines};
use serde_json::{Value, json};

/// After so many seconds without an answer containerd and Docker hang up.
const CLIENTS_WAIT: u64 = 30;
/// What `hold_seconds` is when it is not given.
const DEFAULT_HOLD: u64 = 20;
/// A callout may take that much longer than the hold.
const CALLOUT_MARGIN: u64 = 5;
/// What a builder takes on, for each of 16 workers, and as many blobs.
const LEAST_OPEN: u64 = 2 * 64 * 16;
/// The builder closes connections that have idled for this long.
const BUILDER_WAITS: u64 = 30;
/// So many clients may wait for one image.
const CLIENTS: u64 = 10_000;
/// The ingress before nixgate came to it: Envoy's advice holds for it, and nothing of ours does.
const WITHOUT_NIXGATE: &str = "envoy.before.yaml";

/// The example that adds nixgate to an ingress, whose own settings are not ours.
const INGRESS: &str = "existing-ingress/";

/// The example whose listeners and clusters are delivered.
const DELIVERED: &str = "ingress-with-login/envoy.yaml";

/// A YAML file below `envoy/`, with the lines that `#|` keeps back.
struct File {
    /// `example/file`.
    name: String,
    content: Value,
}

impl File {
    fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy");
        let mut files = Vec::new();
        for example in fs::read_dir(&folder).expect("envoy/ is there").flatten() {
            for file in fs::read_dir(example.path()).into_iter().flatten().flatten() {
                let name = file.file_name().to_string_lossy().into_owned();
                if !name.ends_with(".yaml") {
                    continue;
                }
                let text = fs::read_to_string(file.path()).expect("the file can be read");
                let name = format!("{}/{name}", example.file_name().to_string_lossy());
                let content = parse(&with_marked_lines(&text));
                files.push(Self { name, content });
            }
        }
        files
    }

    /// Those that Envoy is started with.
    fn of_envoys() -> Vec<Self> {
        let mut files = Self::all();
        files.retain(|file| file.content.get("static_resources").is_some());
        assert!(files.len() >= 5, "too few of them are found");
        files
    }

    /// Those that have nixgate, and [`DELIVERED`] with what is delivered of nixgate's as if it were static.
    fn with_nixgate_or_its_delivery() -> Vec<Self> {
        let mut files = Self::all();
        let [listeners, clusters] = ["lds", "cds"].map(|kind| Self::delivered(&files, kind));
        files.retain(|file| file.name == DELIVERED);
        let mut example = files.pop().expect(DELIVERED);
        example.content["static_resources"] = json!({"listeners": listeners, "clusters": clusters});
        let mut files = Self::with_nixgate();
        files.push(example);
        files
    }

    /// Whether what is not nixgate's own is a company's.
    fn is_of_an_ingress(&self) -> bool {
        self.name.starts_with(INGRESS) || self.name == DELIVERED
    }

    /// nixgate's resources in a file of [`DELIVERED`]'s folder.
    fn delivered(files: &[Self], kind: &str) -> Vec<Value> {
        let name = DELIVERED.replace("envoy.yaml", &format!("{kind}.yaml"));
        let file = files.iter().find(|file| file.name == name).expect(&name);
        let resources = file.list("/resources").into_iter();
        let ours = resources.filter(|one| {
            one["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("nixgate"))
        });
        ours.cloned().collect()
    }

    /// Those that have nixgate.
    fn with_nixgate() -> Vec<Self> {
        let mut files = Self::of_envoys();
        files.retain(|file| !file.name.ends_with(WITHOUT_NIXGATE));
        files
    }

    fn list(&self, pointer: &str) -> Vec<&Value> {
        let list = self.content.pointer(pointer).and_then(Value::as_array);
        list.unwrap_or_else(|| panic!("{}: no {pointer}", self.name))
            .iter()
            .collect()
    }

    fn clusters(&self) -> Vec<&Value> {
        self.list("/static_resources/clusters")
    }

    fn cluster(&self, name: &str) -> &Value {
        let mut clusters = self.clusters().into_iter();
        let found = clusters.find(|cluster| cluster["name"] == name);
        found.unwrap_or_else(|| panic!("{}: no cluster {name}", self.name))
    }

    fn connection_managers(&self) -> Vec<&Value> {
        let mut found = Vec::new();
        descend(&self.content, &mut |value| {
            let kind = value.get("@type").and_then(Value::as_str);
            if kind.is_some_and(|kind| kind.ends_with(".HttpConnectionManager")) {
                found.push(value);
            }
        });
        assert!(!found.is_empty(), "{}: no connection manager", self.name);
        found
    }

    /// What routes say of where they lead, if they lead to a cluster.
    fn route_actions(&self) -> Vec<&Value> {
        let mut found = Vec::new();
        descend(&self.content, &mut |value| {
            found.extend(value.get("route").filter(|_| value.get("match").is_some()));
        });
        found
    }

    /// The filter's settings: those of the file beside this one.
    fn hold_seconds(&self) -> u64 {
        let folder = self.name.split('/').next().unwrap_or_default();
        let filter = format!("{folder}/filter.yaml");
        let mut files = Self::all().into_iter();
        let filter = files.find(|file| file.name == filter).expect(&filter);
        let settings =
            filter.content["resources"][0]["typed_config"]["config"]["configuration"]["value"]
                .as_str();
        let settings: Value = serde_json::from_str(settings.expect("settings")).expect("JSON");
        settings["hold_seconds"].as_u64().unwrap_or(DEFAULT_HOLD)
    }
}

/// Visits a value and all that is in it.
fn descend<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Value)) {
    visit(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| descend(item, visit)),
        Value::Object(fields) => fields.values().for_each(|field| descend(field, visit)),
        _ => {}
    }
}

/// The seconds that a duration is written as, such as `28s`.
fn seconds(value: &Value) -> Option<f64> {
    value.as_str()?.strip_suffix('s')?.parse().ok()
}

/// What a key is to be.
type Holds = fn(&Value) -> bool;

fn is_duration(value: &Value) -> bool {
    seconds(value).is_some_and(|seconds| seconds > 0.0)
}

fn at_most<const LIMIT: u64>(value: &Value) -> bool {
    value
        .as_u64()
        .is_some_and(|number| (1..=LIMIT).contains(&number))
}

fn is_true(value: &Value) -> bool {
    value == true
}

fn is_some(value: &Value) -> bool {
    !value.is_null()
}

/// The keys (JSON pointers) that a part of a configuration lacks, or has with another value.
fn lacks(file: &File, part: &str, value: &Value, keys: &[(&str, Holds)]) -> Vec<String> {
    let name = value["name"].as_str().unwrap_or_default();
    keys.iter()
        .filter(|(key, holds)| !value.pointer(key).is_some_and(holds))
        .map(|(key, _)| format!("{}: {part} {name}: {key}", file.name))
        .collect()
}

/// Of Envoy's own advice.
const LISTENER: [(&str, Holds); 1] = [("/per_connection_buffer_limit_bytes", at_most::<32_768>)];
const CLUSTER: [(&str, Holds); 1] = [("/per_connection_buffer_limit_bytes", at_most::<262_144>)];
const ROUTE: [(&str, Holds); 1] = [("/idle_timeout", is_duration)];
const WITH_TLS: [(&str, Holds); 1] = [("/transport_socket_connect_timeout", is_duration)];
const CONNECTION_MANAGER: [(&str, Holds); 9] = [
    ("/use_remote_address", is_true),
    ("/request_headers_timeout", is_duration),
    ("/request_timeout", is_duration),
    ("/stream_idle_timeout", is_duration),
    ("/common_http_protocol_options/idle_timeout", is_duration),
    (
        "/common_http_protocol_options/headers_with_underscores_action",
        |value| value == "DROP_HEADER" || value == "REJECT_REQUEST",
    ),
    (
        "/http2_protocol_options/max_concurrent_streams",
        at_most::<100>,
    ),
    (
        "/http2_protocol_options/initial_stream_window_size",
        at_most::<65_536>,
    ),
    (
        "/http2_protocol_options/initial_connection_window_size",
        at_most::<1_048_576>,
    ),
];
const BOOTSTRAP: [(&str, Holds); 2] = [
    // No port: builds may reach those of the machine.
    ("/admin/address/pipe/path", is_some),
    ("/admin/address/pipe/mode", |mode| *mode == 0o600),
];
const MONITORS: [(&str, &str, Holds); 2] = [
    (
        "envoy.resource_monitors.fixed_heap",
        "/typed_config/max_heap_size_bytes",
        is_some,
    ),
    (
        "envoy.resource_monitors.global_downstream_max_connections",
        "/typed_config/max_active_downstream_connections",
        |limit| limit.as_u64().is_some_and(|limit| limit > CLIENTS),
    ),
];
const ACTIONS: [&str; 2] = [
    "envoy.overload_actions.shrink_heap",
    "envoy.overload_actions.stop_accepting_requests",
];

#[test]
fn every_example_has_what_envoy_advises_for_the_edge() {
    let mut missing = Vec::new();
    for file in File::of_envoys() {
        let mut check = |part: &str, value: &Value, keys: &[(&str, Holds)]| {
            missing.extend(lacks(&file, part, value, keys));
        };
        check("bootstrap", &file.content, &BOOTSTRAP);
        for listener in file.list("/static_resources/listeners") {
            check("listener", listener, &LISTENER);
            for chain in listener["filter_chains"].as_array().into_iter().flatten() {
                if chain.get("transport_socket").is_some() {
                    check("filter chain", chain, &WITH_TLS);
                }
            }
        }
        for manager in file.connection_managers() {
            check("connection manager", manager, &CONNECTION_MANAGER);
        }
        for route in file.route_actions() {
            check("route", route, &ROUTE);
        }
        for cluster in file.clusters() {
            check("cluster", cluster, &CLUSTER);
        }
        let named = |list: &str, name: &str| {
            let list = file.content["overload_manager"][list].as_array();
            let mut list = list.into_iter().flatten();
            list.find(|one| one["name"] == name).cloned()
        };
        for (name, key, holds) in MONITORS {
            let monitor = named("resource_monitors", name).unwrap_or_default();
            check(
                &format!("overload_manager {name}"),
                &monitor,
                &[(key, holds)],
            );
        }
        for name in ACTIONS {
            let action = named("actions", name).unwrap_or_default();
            check("overload_manager", &action, &[("/triggers", is_some)]);
        }
    }
    assert!(
        missing.is_empty(),
        "missing or wrong:\n{}",
        missing.join("\n")
    );
}

/// What clients write is their own affair: no log, rule or answer of Envoy's goes by it, and what is
/// nixgate's is said in one place alone. With `use_remote_address`, Envoy makes ids itself and takes off
/// what it would believe (`x-envoy-original-path` and its like).
#[test]
fn no_header_of_a_client_is_believed() {
    for file in File::with_nixgate() {
        for manager in file.connection_managers() {
            for key in [
                "preserve_external_request_id",
                // Who is inside may choose ids.
                "internal_address_config",
                "xff_num_trusted_hops",
            ] {
                assert!(manager.get(key).is_none(), "{}: {key}", file.name);
            }
        }
        descend(&file.content, &mut |value| {
            // A second description of which requests are nixgate's, by what a client writes.
            let by_header = value.get("header_filter");
            assert!(by_header.is_none(), "{}: {by_header:?}", file.name);
            let text = value.as_str().unwrap_or_default().to_ascii_lowercase();
            for header in ["x-forwarded-for", "x-forwarded-host", "x-real-ip"] {
                let read = text.contains(&format!("%req({header}"));
                assert!(!read, "{}: {text}", file.name);
            }
        });
    }
}

#[test]
fn a_filter_that_dies_is_replaced_and_lets_nothing_through_meanwhile() {
    let mut found = 0;
    for file in File::all() {
        descend(&file.content, &mut |value| {
            let Some(config) = value.get("vm_config").map(|_| value) else {
                return;
            };
            found += 1;
            let name = &file.name;
            assert_eq!(config["failure_policy"], "FAIL_RELOAD", "{name}");
            let interval = &config["reload_config"]["backoff"]["base_interval"];
            assert_eq!(interval, "0.01s", "{name}");
            assert_eq!(config["vm_config"]["vm_id"], "nixgate", "{name}");
            assert!(config.get("fail_open").is_none(), "{name}");
        });
    }
    assert_eq!(found, File::with_nixgate_or_its_delivery().len());
}

#[test]
fn routes_outlast_the_hold_and_not_the_clients() {
    for file in File::with_nixgate_or_its_delivery() {
        let least = (file.hold_seconds() + CALLOUT_MARGIN) as f64;
        let routes = file.route_actions().into_iter();
        let mut ours = routes
            .filter(|route| route["cluster"] == BUILDER)
            .peekable();
        assert!(ours.peek().is_some(), "{}", file.name);
        for route in ours {
            let timeout = seconds(&route["idle_timeout"]).expect("an idle timeout");
            let fits = least < timeout && timeout < CLIENTS_WAIT as f64;
            assert!(fits, "{}: {route}", file.name);
        }
        // It goes on while a request is held.
        for manager in file.connection_managers() {
            let timeout = seconds(&manager["request_timeout"]).expect("a request timeout");
            assert!(least < timeout, "{}: {timeout}", file.name);
        }
    }
}

#[test]
fn connections_to_the_builder_are_given_up_before_it_does() {
    for file in File::with_nixgate_or_its_delivery() {
        for cluster in file.clusters() {
            if !cluster["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("nixgate_"))
            {
                continue;
            }
            let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            let options = &cluster["typed_extension_protocol_options"][options];
            let timeout = &options["common_http_protocol_options"]["idle_timeout"];
            let soon = seconds(timeout).is_some_and(|it| it < BUILDER_WAITS as f64);
            assert!(soon, "{}: {cluster}", file.name);
        }
    }
}

#[test]
fn clients_may_stop_reading_for_longer_than_by_default() {
    for file in File::with_nixgate() {
        for manager in file.connection_managers() {
            let enough = seconds(&manager["delayed_close_timeout"]).is_some_and(|it| it >= 30.0);
            assert!(enough, "{}", file.name);
        }
    }
}

#[test]
fn as_many_requests_may_be_open_as_images_are_held() {
    for file in File::with_nixgate_or_its_delivery() {
        let thresholds = &file.cluster(BUILDER)["circuit_breakers"]["thresholds"][0];
        for bound in ["max_connections", "max_pending_requests", "max_requests"] {
            let enough = thresholds[bound]
                .as_u64()
                .is_some_and(|it| it >= LEAST_OPEN);
            assert!(enough, "{}: {bound} {thresholds}", file.name);
        }
    }
}

#[test]
fn logins_take_no_connection_of_a_pull() {
    let mut found = 0;
    for file in File::with_nixgate_or_its_delivery() {
        descend(&file.content, &mut |value| {
            // Without TLS, one example refuses at once.
            if value["match"]["path"] != "/v2/token" || value.get("route").is_none() {
                return;
            }
            found += 1;
            let route = &value["route"];
            let name = route["cluster"].as_str().expect("a cluster");
            assert_ne!(name, BUILDER, "{}", file.name);
            let bounds = &file.cluster(name)["circuit_breakers"]["thresholds"][0];
            let few = bounds["max_connections"]
                .as_u64()
                .is_some_and(|it| it <= 64);
            assert!(few, "{}: {bounds}", file.name);
            assert!(is_duration(
                &route["max_stream_duration"]["max_stream_duration"]
            ));
            let filters = &value["typed_per_filter_config"];
            let buffered = &filters["envoy.filters.http.buffer"]["buffer"]["max_request_bytes"];
            assert!(at_most::<65_536>(buffered), "{}: {filters}", file.name);
        });
    }
    assert!(found > 0);
}

/// Errors of Envoy's own, by a status or by an expression, that clients get as errors of a registry.
const MAPPED: [&str; 4] = ["426", "408", "wasm_fail_stream", "NFCF"];

#[test]
fn errors_of_envoys_own_are_those_of_a_registry() {
    for file in File::with_nixgate() {
        for manager in file.connection_managers() {
            let mappers = manager["local_reply_config"]["mappers"].as_array();
            let mappers = mappers.unwrap_or_else(|| panic!("{}: no mappers", file.name));
            for mapper in mappers {
                let errors = &mapper["body_format_override"]["json_format"]["errors"];
                assert!(errors[0]["code"].is_string(), "{}: {mapper}", file.name);
            }
            // Of other services, an ingress answers HTTP/1.0 and late requests itself.
            let all = if file.is_of_an_ingress() {
                &MAPPED[2..]
            } else {
                &MAPPED
            };
            for error in all {
                let is_mapped = |mapper: &Value| mapper["filter"].to_string().contains(error);
                assert!(mappers.iter().any(is_mapped), "{}: {error}", file.name);
            }
        }
    }
}

#[test]
fn logs_are_lines_of_json_without_queries() {
    for file in File::with_nixgate_or_its_delivery() {
        let mut formats = 0;
        for manager in file.connection_managers() {
            for log in manager["access_log"].as_array().into_iter().flatten() {
                let format = &log["typed_config"]["log_format"]["json_format"];
                if format.is_null() && file.is_of_an_ingress() {
                    // The ingress's own log, which was there before.
                    continue;
                }
                formats += 1;
                assert_eq!(format["path"], "%PATH(NQ):1024%", "{}", file.name);
                let text = format.to_string();
                for path in ["%REQ(:PATH", "%PATH(WQ", "X-ENVOY-ORIGINAL-PATH"] {
                    assert!(!text.contains(path), "{}: {text}", file.name);
                }
            }
        }
        assert!(formats > 0, "{}: no access log of JSON", file.name);
        let log = file
            .content
            .pointer("/application_log_config/log_format/json_format");
        assert!(log.is_some() || file.is_of_an_ingress(), "{}", file.name);
    }
}
