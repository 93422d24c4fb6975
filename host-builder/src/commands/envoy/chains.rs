//! What happens to requests in a configuration: filter chains, the routes behind them, and which of
//! both are the registry's.

use std::collections::BTreeSet;

use nixgate_core::wire;

use super::finding::Severity;
use super::gather::{Gathered, file_of};
use super::node::Node;
use super::plugin::{Plugin, plugins};

/// An HTTP connection manager, with its filters and routes.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    pub(super) listener: Node<'a>,
    /// Whether the listener is delivered (LDS).
    pub(super) is_delivered: bool,
    /// Its addresses, as [`addresses`] writes them.
    pub(super) addresses: Vec<String>,
    pub(super) manager: Node<'a>,
    pub(super) filters: Vec<HttpFilter<'a>>,
    pub(super) hosts: Vec<Host<'a>>,
    /// Whether its routes are with a server, or in a file that is not known.
    pub(super) lacks_routes: bool,
}

#[derive(Clone, Debug)]
pub(super) struct HttpFilter<'a> {
    pub(super) name: &'a str,
    pub(super) node: Node<'a>,
    /// The type of its configuration, such as `Router`; empty when it is delivered and not known.
    pub(super) kind: &'a str,
    /// Its configuration.
    pub(super) typed: Option<Node<'a>>,
    /// Unless a route enables it.
    pub(super) is_disabled: bool,
}

/// A virtual host.
#[derive(Debug)]
pub(super) struct Host<'a> {
    pub(super) node: Node<'a>,
    pub(super) routes: Vec<Route<'a>>,
}

#[derive(Debug)]
pub(super) struct Route<'a> {
    pub(super) node: Node<'a>,
    /// Its match in a few characters.
    pub(super) label: String,
    /// The clusters that it can lead to; none when Envoy itself answers or redirects.
    pub(super) clusters: Vec<&'a str>,
    /// Itself, its virtual host and the route configuration: the first that says something of a filter
    /// counts, and all add their headers.
    pub(super) levels: [Node<'a>; 3],
}

/// The parts of a configuration that are the registry's, and all others.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) all: &'a Gathered<'a>,
    pub(super) chains: Vec<Chain<'a>>,
    pub(super) plugins: Vec<Plugin<'a>>,
    /// Clusters that lead to the builder.
    pub(super) builders: BTreeSet<&'a str>,
    /// Clusters that lead to a listener of this Envoy that has the filter.
    pub(super) hops: BTreeSet<&'a str>,
}

/// A route of a chain, with its virtual host.
#[derive(Clone, Copy)]
pub(super) struct Place<'s, 'a> {
    pub(super) chain: &'s Chain<'a>,
    pub(super) host: &'s Host<'a>,
    pub(super) route: &'s Route<'a>,
}

impl<'a> Scene<'a> {
    /// `name` is that of the filter, which also has other names when it is recognised by its settings.
    pub(super) fn new(all: &'a Gathered<'a>, name: &str) -> Self {
        let plugins = plugins(all, name);
        let chains = chains(all);
        let mut scene = Self {
            all,
            chains,
            plugins,
            builders: BTreeSet::new(),
            hops: BTreeSet::new(),
        };
        scene.find_builders();
        scene.find_hops();
        scene
    }

    /// The cluster of the settings, and others with the same endpoints.
    fn find_builders(&mut self) {
        let named: BTreeSet<&str> = self.plugins.iter().filter_map(Plugin::cluster).collect();
        let is_named = |cluster: &&Node<'_>| named.contains(cluster.name());
        let endpoints: BTreeSet<String> = self
            .all
            .clusters
            .iter()
            .filter(is_named)
            .flat_map(endpoints)
            .collect();
        let leads_there = |cluster: &&Node<'a>| {
            is_named(cluster) || endpoints_any(cluster, |one| endpoints.contains(one))
        };
        let found = self.all.clusters.iter().filter(leads_there);
        self.builders = found.map(Node::name).collect();
    }

    fn find_hops(&mut self) {
        let with_filter = self
            .chains
            .iter()
            .filter(|chain| self.filter_of(chain).is_some());
        let addresses: BTreeSet<&String> = with_filter.flat_map(|one| &one.addresses).collect();
        let leads_there =
            |cluster: &&Node<'a>| endpoints_any(cluster, |one| addresses.contains(&one.to_owned()));
        let found = self.all.clusters.iter().filter(leads_there);
        let found: BTreeSet<&str> = found.map(Node::name).collect();
        self.hops = found.difference(&self.builders).copied().collect();
    }

    /// Where nixgate stands in the chain.
    pub(super) fn filter_of(&self, chain: &Chain<'a>) -> Option<usize> {
        let mut filters = chain.filters.iter();
        filters.position(|filter| self.plugin(filter).is_some())
    }

    /// nixgate's plugin in a filter of the chain.
    pub(super) fn plugin(&self, filter: &HttpFilter<'a>) -> Option<&Plugin<'a>> {
        let mut plugins = self.plugins.iter();
        plugins.find(|plugin| plugin.is_at(filter.name, &filter.node))
    }

    pub(super) fn leads_to_builder(&self, route: &Route<'a>) -> bool {
        route.clusters.iter().any(|one| self.builders.contains(one))
    }

    pub(super) fn leads_to_hop(&self, route: &Route<'a>) -> bool {
        route.clusters.iter().any(|one| self.hops.contains(one))
    }

    /// Whether a listener with the filter learns the client's address from a header of ours.
    pub(super) fn hop_asks_for_address(&self) -> bool {
        let mut chains = self
            .chains
            .iter()
            .filter(|chain| self.filter_of(chain).is_some());
        chains.any(|chain| {
            let extensions = chain.manager.items("original_ip_detection_extensions");
            let mut extensions = extensions.iter().filter_map(Node::typed);
            extensions.any(|one| one.text("header_name") == Some(wire::CLIENT_ADDRESS))
        })
    }

    /// Whether pulls take this route: to the builder, or on the way to another listener with the filter.
    pub(super) fn is_registrys(&self, route: &Route<'a>) -> bool {
        route.covers("/v2")
            && !route.is_login()
            && (self.leads_to_builder(route) || self.leads_to_hop(route))
    }

    /// Whether the virtual host is the registry's, if only among others.
    pub(super) fn has_registry(&self, host: &Host<'a>) -> bool {
        host.routes.iter().any(|route| self.is_registrys(route))
    }

    /// Whether the chain serves virtual hosts that are not the registry's.
    pub(super) fn is_shared(&self, chain: &Chain<'a>) -> bool {
        chain.hosts.iter().any(|host| !self.has_registry(host))
    }

    /// How bad it is when something reaches them: Envoy's own answers alone are no service.
    pub(super) fn harm(&self, chain: &Chain<'a>) -> Severity {
        let others = chain.hosts.iter().filter(|host| !self.has_registry(host));
        let mut routes = others.flat_map(|host| &host.routes);
        match routes.any(|route| !route.clusters.is_empty()) {
            true => Severity::Error,
            false => Severity::Warning,
        }
    }

    /// The chains through which pulls come.
    pub(super) fn registry_chains(&self) -> impl Iterator<Item = &Chain<'a>> {
        self.chains.iter().filter(|chain| {
            self.filter_of(chain).is_some()
                || chain.hosts.iter().any(|host| self.has_registry(host))
        })
    }

    /// The routes of all chains.
    pub(super) fn places(&self) -> impl Iterator<Item = Place<'_, 'a>> {
        self.chains.iter().flat_map(Chain::places)
    }

    /// The longest time that a request is held, in seconds.
    pub(super) fn hold(&self) -> f64 {
        let holds = self.plugins.iter().map(Plugin::hold);
        f64::from(u32::try_from(holds.max().unwrap_or(20)).unwrap_or(20))
    }
}

impl<'a> Chain<'a> {
    pub(super) fn places(&self) -> impl Iterator<Item = Place<'_, 'a>> {
        let chain = self;
        self.hosts.iter().flat_map(move |host| {
            let routes = host.routes.iter();
            routes.map(move |route| Place { chain, host, route })
        })
    }

    pub(super) fn label(&self) -> String {
        format!("listener {}", self.listener.name())
    }

    /// Whether clients connect to it: it is no step on the way between two listeners of one Envoy.
    pub(super) fn faces_clients(&self) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|one| !one.starts_with("unix:") && !one.starts_with("internal:"))
    }
}

impl Place<'_, '_> {
    pub(super) fn label(&self) -> String {
        format!(
            "{}, virtual host {}, route {}",
            self.chain.label(),
            self.host.node.name(),
            self.route.label
        )
    }
}

impl<'a> Route<'a> {
    /// What it does with a request, as `route`.
    pub(super) fn action(&self) -> Option<Node<'a>> {
        self.node.get("route")
    }

    /// Whether requests for paths below this one can take it.
    pub(super) fn covers(&self, path: &str) -> bool {
        let Some(matches) = self.node.get("match") else {
            return true;
        };
        let prefix = ["prefix", "path_separated_prefix"];
        let prefix = prefix.into_iter().find_map(|key| matches.text(key));
        match (prefix, matches.text("path")) {
            (Some(prefix), _) => path.starts_with(prefix) || is_below(prefix, path),
            (None, Some(exact)) => is_below(exact, path),
            // A pattern may match anything.
            (None, None) => true,
        }
    }

    /// Where clients get their tokens: neither login nor filter can be asked for before.
    pub(super) fn is_login(&self) -> bool {
        self.node.at(&["match"]).and_then(|one| one.text("path")) == Some("/v2/token")
    }

    /// Whether requests on this route pass the filter.
    pub(super) fn enables(&self, filter: &HttpFilter<'_>) -> bool {
        match self.override_of(filter.name) {
            Some(config) => !config.is_true("disabled"),
            None => !filter.is_disabled,
        }
    }

    /// What the route, or what is around it, says of a filter.
    pub(super) fn override_of(&self, filter: &str) -> Option<Node<'a>> {
        let mut levels = self.levels.iter();
        levels.find_map(|node| {
            let configs = node.get("typed_per_filter_config")?;
            let mut configs = configs.fields().into_iter();
            configs.find_map(|(name, config)| (name == filter).then_some(config))
        })
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    let rest = path.strip_prefix(folder);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder.ends_with('/'))
}

fn chains<'a>(all: &'a Gathered<'a>) -> Vec<Chain<'a>> {
    let mut chains = Vec::new();
    for listener in &all.listeners {
        let mut filter_chains = listener.node.items("filter_chains");
        filter_chains.extend(listener.node.get("default_filter_chain"));
        let filters = filter_chains
            .iter()
            .flat_map(|chain| chain.items("filters"));
        let managers = filters
            .filter(|filter| filter.kind() == "HttpConnectionManager")
            .filter_map(|filter| filter.typed());
        for manager in managers {
            let (route_config, mut lacks_routes) = routes_of(all, &manager);
            // A tree of matchers in place of routes.
            let hosts = route_config.as_ref().map(|one| one.items("virtual_hosts"));
            lacks_routes |=
                hosts.is_some_and(|all| all.iter().any(|host| host.get("matcher").is_some()));
            chains.push(Chain {
                listener: listener.node.clone(),
                is_delivered: listener.is_delivered,
                addresses: addresses(&listener.node),
                filters: filters_of(all, &manager),
                hosts: route_config.map(hosts_of).unwrap_or_default(),
                lacks_routes,
                manager,
            });
        }
    }
    chains
}

fn routes_of<'a>(all: &Gathered<'a>, manager: &Node<'a>) -> (Option<Node<'a>>, bool) {
    if let Some(inline) = manager.get("route_config") {
        return (Some(inline), false);
    }
    let name = manager.get("rds");
    let name = name.and_then(|rds| rds.text("route_config_name"));
    let found = all.routes.iter().find(|one| Some(one.name()) == name);
    (found.cloned(), found.is_none())
}

fn filters_of<'a>(all: &Gathered<'a>, manager: &Node<'a>) -> Vec<HttpFilter<'a>> {
    let filters = manager.items("http_filters").into_iter();
    filters
        .map(|node| {
            let name = node.name();
            let extension = node.get("config_discovery").and_then(|_| {
                let mut extensions = all.extensions.iter();
                extensions.find(|one| one.node.name() == name)
            });
            let configured = extension.map_or(&node, |one| &one.node);
            HttpFilter {
                name,
                kind: configured.kind(),
                typed: configured.typed(),
                is_disabled: node.is_true("disabled"),
                node,
            }
        })
        .collect()
}

fn hosts_of(route_config: Node<'_>) -> Vec<Host<'_>> {
    let hosts = route_config.items("virtual_hosts").into_iter();
    hosts
        .map(|host| {
            let routes = host.items("routes").into_iter();
            let routes = routes
                .map(|route| Route {
                    label: label_of(&route),
                    clusters: clusters_of(&route),
                    levels: [route.clone(), host.clone(), route_config.clone()],
                    node: route,
                })
                .collect();
            Host { node: host, routes }
        })
        .collect()
}

fn label_of(route: &Node<'_>) -> String {
    let named = (!route.name().is_empty()).then(|| route.name().to_owned());
    let matches = route.get("match");
    let matched = matches.and_then(|matches| {
        let keys = ["prefix", "path_separated_prefix", "path"];
        let plain = keys.into_iter().find_map(|key| matches.text(key));
        let pattern = matches.get("safe_regex");
        let pattern = pattern.and_then(|one| one.text("regex"));
        plain.or(pattern).map(str::to_owned)
    });
    named
        .or(matched)
        .unwrap_or_else(|| "with another match".to_owned())
}

fn clusters_of<'a>(route: &Node<'a>) -> Vec<&'a str> {
    let Some(action) = route.get("route") else {
        return Vec::new();
    };
    let weighted = action.get("weighted_clusters");
    let weighted = weighted
        .map(|one| one.items("clusters"))
        .unwrap_or_default();
    let weighted = weighted.into_iter().map(|one| one.name());
    action.text("cluster").into_iter().chain(weighted).collect()
}

/// The addresses of a listener: `address:port`, `unix:path`, or `internal:name`.
fn addresses(listener: &Node<'_>) -> Vec<String> {
    let more = listener.items("additional_addresses").into_iter();
    let mut found: Vec<String> = listener
        .get("address")
        .into_iter()
        .chain(more.filter_map(|one| one.get("address")))
        .filter_map(|one| address(&one))
        .collect();
    if listener.get("internal_listener").is_some() {
        found.push(format!("internal:{}", listener.name()));
    }
    found
}

fn address(node: &Node<'_>) -> Option<String> {
    if let Some(socket) = node.get("socket_address") {
        let port = socket.number("port_value")?;
        let address = socket.text("address").unwrap_or_default();
        // A listener on all addresses is reached by those of the machine.
        let is_here = ["0.0.0.0", "::", "::1", "localhost"].contains(&address);
        let address = if is_here { "127.0.0.1" } else { address };
        return Some(format!("{address}:{port}"));
    }
    if let Some(path) = node.get("pipe").and_then(|pipe| pipe.text("path")) {
        return Some(format!("unix:{path}"));
    }
    let internal = node.get("envoy_internal_address")?;
    let name = internal.text("server_listener_name")?;
    Some(format!("internal:{name}"))
}

/// The addresses that a cluster leads to.
fn endpoints(cluster: &Node<'_>) -> Vec<String> {
    let Some(assignment) = cluster.get("load_assignment") else {
        return Vec::new();
    };
    let places = assignment.items("endpoints").into_iter();
    places
        .flat_map(|place| place.items("lb_endpoints"))
        .filter_map(|one| one.at(&["endpoint", "address"]))
        .filter_map(|one| address(&one))
        .collect()
}

fn endpoints_any(cluster: &Node<'_>, wanted: impl Fn(&str) -> bool) -> bool {
    endpoints(cluster).iter().any(|one| wanted(one))
}

/// The file of the filter's configuration, if the chain's filter names one.
pub(super) fn file_of_filter<'a>(filter: &HttpFilter<'a>) -> Option<&'a str> {
    let source = filter.node.at(&["config_discovery", "config_source"])?;
    file_of(&source)
}
