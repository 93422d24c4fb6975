//! Listeners, clusters, routes and delivered filters, out of whatever an Envoy's configuration is
//! written in: a bootstrap, files of resources, or the `/config_dump` of a running Envoy.

use serde_json::Value;

use super::node::Node;

/// A file, or the answer of a running Envoy, as a value.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// How it is called in findings.
    pub(super) source: String,
    pub(super) value: Value,
}

/// A part of a configuration that is in another file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// As it is written.
    pub(super) file: String,
    /// Where.
    pub(super) place: String,
}

/// Everything that is known of one Envoy.
#[derive(Debug, Default)]
pub(super) struct Gathered<'a> {
    /// Whether it comes from a running Envoy.
    pub(super) is_running: bool,
    pub(super) bootstraps: Vec<Node<'a>>,
    pub(super) listeners: Vec<Listener<'a>>,
    pub(super) clusters: Vec<Node<'a>>,
    pub(super) routes: Vec<Node<'a>>,
    pub(super) extensions: Vec<Extension<'a>>,
    /// What Envoy has refused.
    pub(super) refusals: Vec<Refusal<'a>>,
    /// All documents, to look for something everywhere.
    pub(super) documents: Vec<Node<'a>>,
    /// Documents that are no configuration of Envoy.
    pub(super) strange: Vec<Node<'a>>,
}

#[derive(Clone, Debug)]
pub(super) struct Listener<'a> {
    pub(super) node: Node<'a>,
    /// Whether a discovery service delivers it (LDS), be it a file.
    pub(super) is_delivered: bool,
}

/// A delivered filter (ECDS).
#[derive(Clone, Debug)]
pub(super) struct Extension<'a> {
    pub(super) node: Node<'a>,
    /// How many resources its file has.
    pub(super) resources: usize,
    /// The file as findings name it.
    pub(super) source: &'a str,
}

/// An update that Envoy has refused.
#[derive(Clone, Debug)]
pub(super) struct Refusal<'a> {
    /// Such as `listener`.
    pub(super) what: &'static str,
    pub(super) name: &'a str,
    pub(super) details: &'a str,
    pub(super) node: Node<'a>,
}

/// Sorts documents into the parts of one configuration.
pub(super) fn gather(documents: &[Document]) -> Gathered<'_> {
    let mut all = Gathered::default();
    for document in documents {
        let node = Node::root(&document.source, &document.value);
        if node.get("configs").is_some() {
            all.is_running = true;
            all.dump(&node, &document.source);
        } else if node.get("resources").is_some() {
            all.resources(&node, &document.source);
        } else if BOOTSTRAP.iter().any(|key| node.get(key).is_some()) {
            all.static_resources(&node);
            all.bootstraps.push(node.clone());
        } else {
            all.strange.push(node.clone());
        }
        all.documents.push(node);
    }
    all
}

/// A bootstrap has one of these at least.
const BOOTSTRAP: [&str; 5] = [
    "static_resources",
    "dynamic_resources",
    "admin",
    "node",
    "layered_runtime",
];

impl<'a> Gathered<'a> {
    fn static_resources(&mut self, bootstrap: &Node<'a>) {
        let Some(resources) = bootstrap.get("static_resources") else {
            return;
        };
        let listeners = resources.items("listeners").into_iter();
        self.listeners.extend(listeners.map(|node| Listener {
            node,
            is_delivered: false,
        }));
        self.clusters.extend(resources.items("clusters"));
    }

    /// A file that answers as a discovery service does.
    fn resources(&mut self, file: &Node<'a>, source: &'a str) {
        let resources = file.items("resources");
        let count = resources.len();
        for resource in resources {
            // Some are wrapped, to have a name and a version.
            let node = match resource.own_kind() {
                "Resource" => resource.get("resource").unwrap_or(resource),
                _ => resource,
            };
            match node.own_kind() {
                "Listener" => self.listeners.push(Listener {
                    node,
                    is_delivered: true,
                }),
                "Cluster" => self.clusters.push(node),
                "RouteConfiguration" => self.routes.push(node),
                "TypedExtensionConfig" => self.extensions.push(Extension {
                    node,
                    resources: count,
                    source,
                }),
                _ => {}
            }
        }
    }

    /// `/config_dump`
    fn dump(&mut self, dump: &Node<'a>, source: &'a str) {
        for part in dump.items("configs") {
            match part.own_kind() {
                "BootstrapConfigDump" => self.bootstraps.extend(part.get("bootstrap")),
                "ListenersConfigDump" => {
                    for entry in part.items("static_listeners") {
                        self.listener(entry.get("listener"), false);
                    }
                    for entry in part.items("dynamic_listeners") {
                        // One that warms is what will serve, unless it is refused.
                        let states = ["warming_state", "active_state"].map(|key| entry.get(key));
                        let state = states.into_iter().flatten().next();
                        self.listener(state.and_then(|state| state.get("listener")), true);
                        self.refusal("listener", entry.name(), &entry);
                    }
                }
                "ClustersConfigDump" => {
                    for key in ["static_clusters", "dynamic_active_clusters"] {
                        let entries = part.items(key).into_iter();
                        self.clusters
                            .extend(entries.filter_map(|one| one.get("cluster")));
                    }
                    for entry in part.items("dynamic_warming_clusters") {
                        let cluster = entry.get("cluster");
                        let name = cluster.map_or("", |cluster| cluster.name());
                        self.refusal("cluster", name, &entry);
                    }
                }
                "RoutesConfigDump" => {
                    for entry in part.items("dynamic_route_configs") {
                        let route = entry.get("route_config");
                        let name = route.as_ref().map_or("", Node::name);
                        self.refusal("route configuration", name, &entry);
                        self.routes.extend(route);
                    }
                }
                "EcdsConfigDump" => {
                    for entry in part.items("ecds_filters") {
                        let filter = entry.get("ecds_filter");
                        let name = filter.as_ref().map_or("", Node::name);
                        self.refusal("filter", name, &entry);
                        self.extensions.extend(filter.map(|node| Extension {
                            node,
                            resources: 1,
                            source,
                        }));
                    }
                }
                _ => {}
            }
        }
    }

    fn listener(&mut self, node: Option<Node<'a>>, is_delivered: bool) {
        self.listeners
            .extend(node.map(|node| Listener { node, is_delivered }));
    }

    fn refusal(&mut self, what: &'static str, name: &'a str, entry: &Node<'a>) {
        let Some(state) = entry.get("error_state") else {
            return;
        };
        let details = state.text("details").unwrap_or("without a reason");
        self.refusals.push(Refusal {
            what,
            name,
            details,
            node: state,
        });
    }
}

/// The files that a document says its listeners, clusters, routes and filters are in. Files of secrets
/// are none of these.
pub(super) fn references(document: &Document) -> Vec<Reference> {
    let mut found = Vec::new();
    let root = Node::root(&document.source, &document.value);
    root.each_object(&mut |node| {
        let sources = [
            node.get("lds_config"),
            node.get("cds_config"),
            node.at(&["rds", "config_source"]),
            node.at(&["config_discovery", "config_source"]),
        ];
        for source in sources.into_iter().flatten() {
            if let Some(file) = file_of(&source) {
                found.push(Reference {
                    file: file.to_owned(),
                    place: source.path,
                });
            }
        }
    });
    found
}

/// The file of a config source; none when a server has the configuration.
pub(super) fn file_of<'a>(source: &Node<'a>) -> Option<&'a str> {
    let path = source.get("path_config_source");
    path.and_then(|path| path.text("path"))
        .or_else(|| source.text("path"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(value: Value) -> Document {
        let source = "a.yaml".to_owned();
        Document { source, value }
    }

    #[test]
    fn files_with_listeners_clusters_routes_and_filters_are_named_and_no_secrets() {
        let file = |name: &str| json!({"path_config_source": {"path": name}});
        let document = document(json!({
            "dynamicResources": {"ldsConfig": file("lds.yaml"), "cds_config": {"path": "cds.yaml"}},
            "listeners": [{
                "rds": {"config_source": file("rds.yaml")},
                "http_filters": [{"config_discovery": {"config_source": file("filter.yaml")}}],
                "secret": {"sds_config": file("secret.yaml")},
                "other": {"rds": {"config_source": {"ads": {}}}},
            }],
        }));
        let mut files: Vec<_> = references(&document)
            .into_iter()
            .map(|one| one.file)
            .collect();
        files.sort();
        assert_eq!(files, ["cds.yaml", "filter.yaml", "lds.yaml", "rds.yaml"]);
    }

    #[test]
    fn what_a_running_envoy_refuses_is_found() {
        let document = document(json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [
                {"name": "a", "error_state": {"details": "no"}},
                {"name": "b", "active_state": {"listener": {"name": "b"}}},
            ]},
            {"@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump", "ecds_filters": [
                {"ecds_filter": {"name": "nixgate"}, "error_state": {"details": "refused"}},
            ]},
        ]}));
        let documents = [document];
        let all = gather(&documents);
        let refusals: Vec<_> = all
            .refusals
            .iter()
            .map(|one| (one.name, one.details))
            .collect();
        assert_eq!(refusals, [("a", "no"), ("nixgate", "refused")]);
        assert_eq!(all.listeners.len(), 1);
        assert!(all.is_running && all.listeners[0].is_delivered);
    }
}
