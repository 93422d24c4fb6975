//! The Envoy configurations below `envoy/` as values, so that a test changes them by name.
//!
//! A change is a JSON merge patch (RFC 7396) on an object that the shipped file must have: without the
//! object the test fails, and Envoy and the filter refuse fields that they do not know. So no change
//! silently does nothing.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{Value, json};

/// The cluster of nixgate's builder.
pub const BUILDER: &str = "nixgate_builder";
/// The type of what a route says of a filter.
pub const FILTER_CONFIG: &str = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
/// The listener's HTTP connection manager; each file has one listener.
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const PLUGIN: &str = "/resources/0/typed_config/config";
const ENDPOINT: &str = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";

/// `envoy.yaml` of an example, and the `filter.yaml` beside it.
#[derive(Clone, Debug)]
#[must_use]
pub struct EnvoyConfig {
    envoy: Value,
    filter: Option<FilterConfig>,
}

impl EnvoyConfig {
    /// `envoy/standalone/`
    pub fn standalone() -> Self {
        Self::with_filter("standalone")
    }

    /// `envoy/beside-registry/`, with the other registry at a port of loopback.
    pub fn beside_registry(other: u16) -> Self {
        Self::with_filter("beside-registry").upstream("other_registry", other)
    }

    /// `envoy/existing-ingress/`, with the other service at a port of loopback.
    pub fn existing_ingress(app: u16) -> Self {
        Self::with_filter("existing-ingress").upstream("app", app)
    }

    /// `envoy/existing-ingress/` without nixgate.
    pub fn ingress_before_nixgate(app: u16) -> Self {
        let before = shipped("existing-ingress/envoy.before.yaml");
        let (envoy, filter) = (parse(&before), None);
        Self { envoy, filter }.upstream("app", app)
    }

    /// `envoy/corporate-gateway/`
    pub fn corporate_gateway() -> Self {
        Self::with_filter("corporate-gateway")
    }

    /// `envoy/corporate-gateway/` with the lines for a company's own issuer, which is at a port of
    /// loopback, without TLS.
    pub fn gateway_with_issuer(port: u16) -> Self {
        let text = shipped("corporate-gateway/envoy.yaml");
        let config = Self {
            envoy: parse(&with_marked_lines(&text)),
            ..Self::corporate_gateway()
        };
        config
            .cluster("company_issuer", json!({"transport_socket": null}))
            .upstream("company_issuer", port)
    }

    fn with_filter(folder: &str) -> Self {
        let file = |name| shipped(&format!("{folder}/{name}"));
        let envoy = parse(&file("envoy.yaml"));
        let filter = Some(FilterConfig::parse(&file("filter.yaml")));
        Self { envoy, filter }
    }

    /// Patches the filter's settings.
    pub fn settings(mut self, patch: Value) -> Self {
        merge(&mut self.filter_mut().settings, patch);
        self
    }

    /// Changes the rules of the filter's policy.
    pub fn rules(mut self, change: impl FnOnce(&mut Vec<Value>)) -> Self {
        change(list(at(&mut self.filter_mut().settings, "/policy/rules")));
        self
    }

    /// Patches the `PluginConfig` in which the settings are.
    pub fn plugin(mut self, patch: Value) -> Self {
        merge(at(&mut self.filter_mut().file, PLUGIN), patch);
        self
    }

    /// Patches the HTTP connection manager.
    pub fn manager(mut self, patch: Value) -> Self {
        merge(self.in_manager(""), patch);
        self
    }

    /// Patches a cluster.
    pub fn cluster(mut self, name: &str, patch: Value) -> Self {
        merge(named(self.clusters(), name), patch);
        self
    }

    /// Patches where the route for `/v2` leads.
    pub fn registry_route(mut self, patch: Value) -> Self {
        merge(
            at(self.route("path_separated_prefix", "/v2"), "/route"),
            patch,
        );
        self
    }

    /// Patches what `jwt_authn` has of the builder's tokens.
    pub fn builder_tokens(mut self, patch: Value) -> Self {
        let filters = list(self.in_manager("/http_filters"));
        let filter = named(filters, "envoy.filters.http.jwt_authn");
        merge(at(filter, "/typed_config/providers/nixgate"), patch);
        self
    }

    /// Patches the token bucket that each address has for logins.
    pub fn login_limit(mut self, patch: Value) -> Self {
        let bucket = "/typed_per_filter_config/envoy.filters.http.local_ratelimit\
                      /descriptors/0/token_bucket";
        merge(at(self.route("path", "/v2/token"), bucket), patch);
        self
    }

    /// Adds an HTTP filter before all others.
    pub fn http_filter(mut self, filter: Value) -> Self {
        list(self.in_manager("/http_filters")).insert(0, filter);
        self
    }

    /// Adds an HTTP filter between nixgate and the router.
    pub fn filter_behind_nixgate(mut self, filter: Value) -> Self {
        let filters = list(self.in_manager("/http_filters"));
        let router = filters.len() - 1;
        filters.insert(router, filter);
        self
    }

    /// Adds a virtual host.
    pub fn virtual_host(mut self, host: Value) -> Self {
        list(self.in_manager("/route_config/virtual_hosts")).push(host);
        self
    }

    /// Adds access logs, a list.
    pub fn access_logs(mut self, mut logs: Value) -> Self {
        list(self.in_manager("/access_log")).append(list(&mut logs));
        self
    }

    /// Adds listeners, a list.
    pub fn listeners(mut self, mut listeners: Value) -> Self {
        list(at(&mut self.envoy, "/static_resources/listeners")).append(list(&mut listeners));
        self
    }

    /// Adds clusters, a list.
    pub fn more_clusters(mut self, mut clusters: Value) -> Self {
        self.clusters().append(list(&mut clusters));
        self
    }

    /// Has a listener listen at another port.
    pub fn listen(mut self, index: usize, port: u16) -> Self {
        let port_value =
            format!("/static_resources/listeners/{index}/address/socket_address/port_value");
        *at(&mut self.envoy, &port_value) = port.into();
        self
    }

    /// Has a cluster lead to a port of loopback.
    pub fn upstream(mut self, cluster: &str, port: u16) -> Self {
        let address = at(named(self.clusters(), cluster), ENDPOINT);
        merge(
            at(address, "/socket_address"),
            json!({"address": "127.0.0.1", "port_value": port}),
        );
        self
    }

    /// Has a cluster lead to a socket.
    pub fn upstream_socket(mut self, cluster: &str, socket: &Path) -> Self {
        *at(
            named(self.clusters(), cluster),
            &format!("{ENDPOINT}/pipe/path"),
        ) = text(socket);
        self
    }

    /// Has the admin page at a socket.
    pub fn admin(mut self, socket: &Path) -> Self {
        *at(&mut self.envoy, "/admin/address/pipe/path") = text(socket);
        self
    }

    /// Has Envoy load the filter from a file.
    pub fn module(mut self, module: &Path) -> Self {
        let filename = format!("{PLUGIN}/vm_config/code/local/filename");
        *at(&mut self.filter_mut().file, &filename) = text(module);
        self
    }

    /// Has the gateway send clients to a port of loopback to log in.
    pub fn realm(mut self, port: u16) -> Self {
        let realm = |port: u16| format!("realm=\"https://127.0.0.1:{port}/v2/token\"");
        let mappers = list(self.in_manager("/local_reply_config/mappers")).iter_mut();
        let headers = mappers.filter_map(|one| one.pointer_mut("/headers_to_add/0/header/value"));
        let mut count = 0;
        for value in headers {
            let text = value.as_str().unwrap_or_default();
            count += text.matches(&realm(8443)).count();
            *value = text.replace(&realm(8443), &realm(port)).into();
        }
        assert_eq!(count, 3, "envoy.yaml tells users to change three realms");
        self
    }

    /// Has the listener read its certificate's file elsewhere.
    pub fn certificate(mut self, file: &Path) -> Self {
        let secret = "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config\
                      /common_tls_context/tls_certificate_sds_secret_configs/0\
                      /sds_config/path_config_source/path";
        *at(&mut self.envoy, secret) = text(file);
        self
    }

    /// The fields of the access log.
    pub fn access_log_fields(mut self) -> Value {
        let fields = "/access_log/0/typed_config/log_format/json_format";
        self.in_manager(fields).take()
    }

    /// The filter's file.
    ///
    /// # Panics
    /// Without nixgate there is none.
    pub fn filter(&self) -> &FilterConfig {
        self.filter.as_ref().expect("nixgate is part of it")
    }

    /// Writes both files into a folder; Envoy is started with the first, which is returned, and reads
    /// the second, `filter.yaml`.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn write(mut self, folder: &Path) -> io::Result<PathBuf> {
        if let Some(filter) = self.filter.take() {
            let file = folder.join("filter.yaml");
            fs::write(&file, filter.yaml())?;
            let filters = list(self.in_manager("/http_filters"));
            let source = "/config_discovery/config_source/path_config_source/path";
            *at(named(filters, "nixgate"), source) = text(&file);
        }
        let file = folder.join("envoy.yaml");
        fs::write(&file, yaml(&self.envoy))?;
        Ok(file)
    }

    fn in_manager(&mut self, pointer: &str) -> &mut Value {
        at(&mut self.envoy, &format!("{MANAGER}{pointer}"))
    }

    /// The first virtual host's route with this match.
    fn route(&mut self, kind: &str, path: &str) -> &mut Value {
        let routes = list(self.in_manager("/route_config/virtual_hosts/0/routes"));
        let route = routes.iter_mut().find(|one| one["match"][kind] == path);
        route.unwrap_or_else(|| panic!("the shipped configuration has no route for {path}"))
    }

    fn clusters(&mut self) -> &mut Vec<Value> {
        list(at(&mut self.envoy, "/static_resources/clusters"))
    }

    fn filter_mut(&mut self) -> &mut FilterConfig {
        self.filter.as_mut().expect("nixgate is part of it")
    }
}

/// A `filter.yaml`.
#[derive(Clone, Debug)]
#[must_use]
pub struct FilterConfig {
    file: Value,
    settings: Value,
}

impl FilterConfig {
    /// Reads the text of a `filter.yaml`.
    ///
    /// # Panics
    /// When it is none.
    pub fn parse(text: &str) -> Self {
        let file = parse(text);
        let value = file.pointer(&format!("{PLUGIN}/configuration/value"));
        let settings = value.and_then(Value::as_str).expect("settings");
        Self {
            settings: serde_json::from_str(settings).expect("settings are JSON"),
            file,
        }
    }

    /// The same with a patch on the settings.
    pub fn settings(mut self, patch: Value) -> Self {
        merge(&mut self.settings, patch);
        self
    }

    /// The same under another name.
    pub fn name(mut self, name: &str) -> Self {
        *at(&mut self.file, "/resources/0/name") = name.into();
        self
    }

    /// Its text.
    pub fn yaml(&self) -> String {
        let mut file = self.file.clone();
        let settings = format!("{:#}\n", self.settings);
        *at(&mut file, &format!("{PLUGIN}/configuration/value")) = settings.into();
        yaml(&file)
    }
}

/// The text of a file below `envoy/`.
///
/// # Panics
/// When there is no such file.
pub fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../envoy")
        .join(file);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("envoy/{file}: {error}"))
}

/// `envoy/corporate-gateway/certificate.yaml` with the certificate in another folder.
pub fn certificate(folder: &Path) -> String {
    let mut file = parse(&shipped("corporate-gateway/certificate.yaml"));
    let certificate = at(&mut file, "/resources/0/tls_certificate");
    *at(certificate, "/certificate_chain/filename") = text(&folder.join("tls.crt"));
    *at(certificate, "/private_key/filename") = text(&folder.join("tls.key"));
    *at(certificate, "/watched_directory/path") = text(folder);
    yaml(&file)
}

/// A file with the lines that `#|` keeps back.
pub fn with_marked_lines(text: &str) -> String {
    text.replace("#| ", "")
}

/// Reads YAML.
///
/// # Panics
/// When it is none.
pub fn parse(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// Applies a JSON merge patch (RFC 7396).
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().map(|target| target.remove(&key));
        } else {
            merge(&mut target[&key], value);
        }
    }
}

fn at<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    let found = value.pointer_mut(pointer);
    found.unwrap_or_else(|| panic!("the shipped configuration has no {pointer}"))
}

fn list(value: &mut Value) -> &mut Vec<Value> {
    value.as_array_mut().expect("a list")
}

fn named<'a>(list: &'a mut [Value], name: &str) -> &'a mut Value {
    let found = list.iter_mut().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("the shipped configuration has no {name}"))
}

fn text(path: &Path) -> Value {
    path.display().to_string().into()
}

/// A value in block style.
fn yaml(value: &Value) -> String {
    let mut yaml = String::new();
    write_yaml(value, 0, &mut yaml);
    yaml.push('\n');
    yaml
}

/// A text with lines becomes a literal block: `nixgate policy apply` finds the filter's settings by it.
fn write_yaml(value: &Value, indent: usize, yaml: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let is_plain = key.starts_with(|first: char| first.is_ascii_alphabetic());
                let key = if is_plain {
                    key.clone()
                } else {
                    format!("{key:?}")
                };
                _ = write!(yaml, "\n{:indent$}{key}:", "");
                write_yaml(value, indent + 2, yaml);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                _ = write!(yaml, "\n{:indent$}-", "");
                write_yaml(item, indent + 2, yaml);
            }
        }
        Value::String(text) if text.ends_with('\n') => {
            yaml.push_str(" |");
            for line in text.lines() {
                _ = write!(yaml, "\n{:indent$}{line}", "");
            }
        }
        scalar => _ = write!(yaml, " {scalar}"),
    }
}
