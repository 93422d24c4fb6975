//! Which requests pass the filter, and between which other filters it stands.

use super::super::chains::{Chain, HttpFilter, Place, Scene};
use super::super::finding::{At, Check, Findings, Severity};

/// Filters that decide who may do what: behind nixgate they decide nothing about manifests.
const DECIDING: [&str; 8] = [
    "JwtAuthentication",
    "ExtAuthz",
    "RBAC",
    "BasicAuth",
    "OAuth2",
    "ApiKeyAuth",
    "LocalRateLimit",
    "RateLimit",
];

pub(super) fn check(scene: &Scene<'_>, found: &mut Findings) {
    for chain in &scene.chains {
        match scene.filter_of(chain) {
            Some(index) => {
                enabled(scene, chain, index, found);
                last(scene, chain, index, found);
            }
            None => without(scene, chain, found),
        }
        if chain.hosts.iter().any(|host| scene.has_registry(host)) {
            jwt(scene, chain, found);
            rate_limit(scene, chain, found);
            compressor(scene, chain, found);
        }
    }
}

/// The routes to the builder have the filter, and the routes of others have not.
fn enabled(scene: &Scene<'_>, chain: &Chain<'_>, index: usize, found: &mut Findings) {
    let filter = &chain.filters[index];
    let prefix = scene.plugin(filter).is_some_and(|plugin| {
        let settings = plugin.settings.as_ref();
        settings.is_ok_and(|settings| settings.config.name_prefix.is_some())
    });
    let mut is_enabled = false;
    for place in chain.places() {
        let Place { host, route, .. } = place;
        let enables = route.enables(filter);
        is_enabled |= enables;
        if scene.leads_to_builder(route) {
            if !enables && route.covers("/v2") && !route.is_login() {
                without_filter(&place, filter.name, found);
            }
            continue;
        }
        let is_beside = scene.has_registry(host);
        let is_answered = route.clusters.is_empty();
        if enables && !(is_beside && (is_answered || prefix)) {
            // Envoy's own answers are no service.
            let severity = match is_answered {
                true => Severity::Warning,
                false => Severity::Error,
            };
            found.add(
                severity,
                Check::OtherServices,
                At(place.label(), &route.node.path),
                format!(
                    "it is not the registry's, and enables the filter {}",
                    filter.name
                ),
                format!(
                    "set `disabled: true` for the filter {} in http_filters, and enable it in the \
                     registry's routes by typed_per_filter_config",
                    filter.name
                ),
            );
        }
    }
    if !is_enabled && !chain.lacks_routes {
        found.error(
            Check::NeverEnabled,
            At(format!("{}, filter {}", chain.label(), filter.name), &filter.node.path),
            "the filter is disabled, and no route enables it",
            format!(
                "enable it in the registry's routes: typed_per_filter_config, {}, a FilterConfig with \
                 `config: {{}}` and `disabled: false`",
                filter.name
            ),
        );
    }
}

fn without(scene: &Scene<'_>, chain: &Chain<'_>, found: &mut Findings) {
    // A delivered filter whose configuration is not known may be nixgate's.
    if chain.filters.iter().any(|one| one.kind.is_empty()) {
        return;
    }
    for place in chain.places() {
        let route = place.route;
        if scene.leads_to_builder(route) && route.covers("/v2") && !route.is_login() {
            without_filter(&place, "nixgate", found);
        }
    }
}

fn without_filter(place: &Place<'_, '_>, filter: &str, found: &mut Findings) {
    found.error(
        Check::RouteWithoutFilter,
        At(place.label(), &place.route.node.path),
        "it leads to the builder without the filter",
        format!(
            "enable the filter {filter} in the route by typed_per_filter_config, or remove the route"
        ),
    );
}

/// Only the router is behind the filter.
fn last(scene: &Scene<'_>, chain: &Chain<'_>, index: usize, found: &mut Findings) {
    let name = chain.filters[index].name;
    let behind = chain.filters.iter().skip(index + 1);
    for filter in behind.filter(|one| one.kind != "Router" && is_on_registry(scene, chain, one)) {
        let severity = match DECIDING.contains(&filter.kind) {
            true => Severity::Error,
            false => Severity::Warning,
        };
        found.add(
            severity,
            Check::NotLast,
            At(
                format!("{}, filter {name}", chain.label()),
                &filter.node.path,
            ),
            format!("the filter {} stands behind it", filter.name),
            format!(
                "put {name} directly before the router, or disable {} on the registry's routes",
                filter.name
            ),
        );
    }
}

/// Whether pulls pass a filter; without routes, whether they may.
fn is_on_registry(scene: &Scene<'_>, chain: &Chain<'_>, filter: &HttpFilter<'_>) -> bool {
    let mut routes = chain
        .places()
        .filter(|place| scene.is_registrys(place.route))
        .peekable();
    match routes.peek() {
        None => !filter.is_disabled,
        Some(_) => routes.any(|place| place.route.enables(filter)),
    }
}

/// Tokens of the builder are asked for on the registry's virtual hosts alone.
fn jwt(scene: &Scene<'_>, chain: &Chain<'_>, found: &mut Findings) {
    for filter in chain
        .filters
        .iter()
        .filter(|one| one.kind == "JwtAuthentication")
    {
        let Some(config) = &filter.typed else {
            continue;
        };
        let providers = config.get("providers");
        let providers = providers.map(|one| one.fields()).unwrap_or_default();
        let is_builders = |name: &str| {
            providers.iter().any(|(known, provider)| {
                let uri = provider.at(&["remote_jwks", "http_uri"]);
                let cluster = uri.and_then(|uri| uri.text("cluster"));
                *known == name && cluster.is_some_and(|one| scene.builders.contains(one))
            })
        };
        // Requirements name providers, and may be nested.
        let requires =
            |node: &super::super::node::Node<'_>| node.any_text(&mut |text| is_builders(text));
        let named = config.get("requirement_map");
        let is_named_builders = |name: &str| {
            let named = named.as_ref().and_then(|map| map.get(name));
            named.is_some_and(|one| requires(&one))
        };
        let rules = config.items("rules");
        let mut reaching = rules.iter().filter(|rule| {
            let matches = rule.get("match");
            let is_bound = matches.is_some_and(|one| {
                one.items("headers").iter().any(|header| {
                    let name = header.name();
                    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
                })
            });
            let requirement = rule.text("requirement_name");
            let named = requirement.is_some_and(is_named_builders);
            !is_bound && (named || rule.get("requires").is_some_and(|one| requires(&one)))
        });
        let Some(rule) = reaching.next() else {
            continue;
        };
        for place in chain.places() {
            if scene.has_registry(place.host) {
                continue;
            }
            let reached = match place.route.override_of(filter.name) {
                Some(config) => config
                    .text("requirement_name")
                    .is_some_and(is_named_builders),
                None => !filter.is_disabled,
            };
            if reached {
                found.error(
                    Check::JwtElsewhere,
                    At(place.label(), &rule.path),
                    format!("{} requires tokens of the builder on it", filter.name),
                    format!(
                        "set `disabled: true` for {} in http_filters and enable it in the registry's \
                         routes, or match the registry's host (`:authority`) in the rule",
                        filter.name
                    ),
                );
            }
        }
    }
}

fn rate_limit(scene: &Scene<'_>, chain: &Chain<'_>, found: &mut Findings) {
    if !scene.is_shared(chain) {
        return;
    }
    for filter in chain
        .filters
        .iter()
        .filter(|one| one.kind == "LocalRateLimit")
    {
        let limits = filter
            .typed
            .as_ref()
            .is_some_and(|config| config.get("token_bucket").is_some());
        let is_on = |of_registry: bool| {
            chain.places().any(|place| {
                scene.has_registry(place.host) == of_registry
                    && place.route.override_of(filter.name).is_none()
            })
        };
        if limits && !filter.is_disabled && is_on(true) && is_on(false) {
            found.warning(
                Check::LimitElsewhere,
                At(
                    format!("{}, filter {}", chain.label(), filter.name),
                    &filter.node.path,
                ),
                "its token_bucket is for the registry and for other services at once",
                "give the registry's routes a limit of their own by typed_per_filter_config",
            );
        }
    }
}

fn compressor(scene: &Scene<'_>, chain: &Chain<'_>, found: &mut Findings) {
    for filter in chain.filters.iter().filter(|one| one.kind == "Compressor") {
        if is_on_registry(scene, chain, filter) {
            found.warning(
                Check::Compressor,
                At(
                    format!("{}, filter {}", chain.label(), filter.name),
                    &filter.node.path,
                ),
                "it may compress answers of the registry",
                "disable it on the registry's routes by typed_per_filter_config",
            );
        }
    }
}
