//! nixgate's plugin: the part of a configuration that loads the filter and has its settings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nixgate_core::config::Config;
use serde_json::Value;

use super::gather::{Extension, Gathered};
use super::node::Node;

/// A filter of WebAssembly that is nixgate's.
#[derive(Clone, Debug)]
pub(super) struct Plugin<'a> {
    pub(super) name: &'a str,
    /// Its file, when it is delivered.
    pub(super) extension: Option<Extension<'a>>,
    /// The HTTP filter in the chain, when it is not.
    filter: Option<Node<'a>>,
    /// Envoy's `PluginConfig`.
    pub(super) config: Node<'a>,
    /// The settings as the filter gets them.
    pub(super) settings: Result<Settings, String>,
    cluster: Option<&'a str>,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    /// The variable of Envoy that has the builder's token.
    pub(super) token_env: String,
}

impl<'a> Plugin<'a> {
    /// Whether it is this filter of a chain.
    pub(super) fn is_at(&self, name: &str, filter: &Node<'a>) -> bool {
        match &self.filter {
            Some(own) => own.path == filter.path,
            None => self.name == name && filter.get("config_discovery").is_some(),
        }
    }

    /// The builder's cluster, as the settings name it.
    pub(super) fn cluster(&self) -> Option<&'a str> {
        self.cluster
    }

    pub(super) fn hold(&self) -> u64 {
        let settings = self.settings.as_ref();
        settings.map_or(20, |settings| settings.config.hold)
    }

    /// Where it is, for findings.
    pub(super) fn label(&self) -> String {
        format!("filter {}", self.name)
    }

    pub(super) fn vm(&self) -> Option<Node<'a>> {
        self.config.get("vm_config")
    }

    /// The file of the module.
    pub(super) fn module(&self) -> Option<&'a str> {
        let code = self.vm()?.at(&["code", "local"])?;
        code.text("filename")
    }
}

/// All that are nixgate's: by the name, by the settings, or by the module's file.
pub(super) fn plugins<'a>(all: &'a Gathered<'a>, name: &str) -> Vec<Plugin<'a>> {
    let delivered = all
        .extensions
        .iter()
        .map(|one| (&one.node, Some(one.clone())));
    let delivered = delivered.map(|(node, extension)| (node.clone(), extension, None));
    let mut found: Vec<_> = delivered.collect();
    for listener in &all.listeners {
        listener.node.each_object(&mut |node| {
            for filter in node.items("http_filters") {
                found.push((filter.clone(), None, Some(filter)));
            }
        });
    }
    let found = found.into_iter().filter(|(node, ..)| node.kind() == "Wasm");
    found
        .filter_map(|(node, extension, filter)| {
            let config = node.typed()?.get("config")?;
            let text = settings_text(&config);
            let value = text
                .as_ref()
                .ok()
                .and_then(|text| serde_json::from_str(text).ok());
            let value: Value = value.unwrap_or_default();
            let token_env = value.pointer("/builder/token_env").and_then(Value::as_str);
            let module = config.at(&["vm_config", "code", "local"]);
            let module = module
                .and_then(|one| one.text("filename"))
                .unwrap_or_default();
            let is_nixgates =
                node.name() == name || token_env.is_some() || module.contains("nixgate");
            is_nixgates.then(|| Plugin {
                name: node.name(),
                extension,
                filter,
                cluster: cluster_of(all, &value),
                settings: text.and_then(|text| {
                    // Only Envoy has the variable of the token.
                    let config = Config::parse(text.as_bytes(), |_| Some("token".to_owned()));
                    let token_env = token_env.unwrap_or_default().to_owned();
                    let settings = |config| Settings { config, token_env };
                    config.map(settings).map_err(|error| error.to_string())
                }),
                config,
            })
        })
        .collect()
}

/// The cluster of the settings, which may be wrong otherwise.
fn cluster_of<'a>(all: &'a Gathered<'a>, settings: &Value) -> Option<&'a str> {
    let name = settings.pointer("/builder/cluster")?.as_str()?;
    let mut clusters = all.clusters.iter().map(Node::name);
    clusters.find(|cluster| *cluster == name)
}

/// The settings as Envoy hands them to the filter.
fn settings_text(config: &Node<'_>) -> Result<String, String> {
    let Some(configuration) = config.get("configuration") else {
        return Err("it has no `configuration`".to_owned());
    };
    let value = configuration.get("value");
    let text = value.as_ref().and_then(|value| value.value.as_str());
    match (configuration.own_kind(), text) {
        ("StringValue", Some(text)) => Ok(text.to_owned()),
        ("BytesValue", Some(text)) => {
            let bytes = STANDARD.decode(text).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            text.ok_or_else(|| "its `configuration` is no text in base64".to_owned())
        }
        (kind, ..) => Err(format!(
            "its `configuration` is a {kind} that the filter can't read; make it a \
             google.protobuf.StringValue with the settings as JSON in `value`"
        )),
    }
}
