//! Timeouts, retries and headers of the routes that pulls take.

use super::super::chains::{Place, Scene};
use super::super::finding::{At, Check, Findings};
use super::super::node::Node;

/// After this time containerd and Docker give up.
const PATIENCE: f64 = 30.0;
/// How much longer than the hold a callout may take.
const MARGIN: f64 = 5.0;
/// Envoy's default of `stream_idle_timeout`.
const STREAM_IDLE: f64 = 300.0;

/// Conditions of requests that nobody has answered or begun.
const UNSENT: [&str; 3] = ["connect-failure", "refused-stream", "reset-before-request"];

const TOKEN: &str = nixgate_core::wire::TOKEN;
const CLIENT_ADDRESS: &str = nixgate_core::wire::CLIENT_ADDRESS;

pub(super) fn check(scene: &Scene<'_>, found: &mut Findings) {
    for place in scene.places() {
        if scene.is_registrys(place.route) {
            timeouts(scene, &place, found);
            repetitions(&place, found);
        }
        headers(scene, &place, found);
    }
    for chain in scene
        .chains
        .iter()
        .filter(|chain| scene.filter_of(chain).is_some())
    {
        let timeout = chain.manager.seconds("request_timeout");
        let least = scene.hold() + MARGIN;
        if let Some(seconds) = timeout.filter(|&seconds| seconds > 0.0 && seconds <= least) {
            found.error(
                Check::RequestTimeout,
                At(chain.label(), &chain.manager.path),
                format!(
                    "request_timeout is {seconds} s, and requests are held for {} s",
                    scene.hold()
                ),
                format!("set request_timeout to more than {least} s, or remove it"),
            );
        }
    }
}

fn timeouts(scene: &Scene<'_>, place: &Place<'_, '_>, found: &mut Findings) {
    let Some(action) = place.route.action() else {
        return;
    };
    let at = || At(place.label(), &action.path);
    let timeout = action.seconds("timeout");
    if timeout != Some(0.0) {
        let what = match timeout {
            Some(seconds) => format!("its timeout is {seconds} s"),
            None => "it has no timeout, so it is Envoy's default, 15 s".to_owned(),
        };
        found.error(Check::RouteTimeout, at(), what, "set timeout: 0s");
    }
    let least = scene.hold() + MARGIN;
    let own = action.seconds("idle_timeout");
    let inherited = place
        .chain
        .manager
        .seconds("stream_idle_timeout")
        .unwrap_or(STREAM_IDLE);
    let idle = own.unwrap_or(inherited);
    let source = match own {
        Some(_) => "its idle_timeout",
        None => "it has no idle_timeout, and the manager's stream_idle_timeout",
    };
    let remedy = format!("set idle_timeout to more than {least} s and less than 30 s, such as 28s");
    if idle > 0.0 && idle <= least {
        let what = format!(
            "{source} is {idle} s, and requests are held for {} s",
            scene.hold()
        );
        found.error(Check::IdleTimeout, at(), what, remedy);
    } else if idle == 0.0 || idle >= PATIENCE {
        let what = match idle {
            0.0 => format!("{source} is off"),
            _ => format!("{source} is {idle} s"),
        };
        found.warning(Check::IdleTimeout, at(), what, remedy);
    }
    let common = place.chain.manager.get("common_http_protocol_options");
    let common = common.and_then(|one| one.seconds("max_stream_duration"));
    let own = action.get("max_stream_duration");
    let own = own.and_then(|one| one.seconds("max_stream_duration"));
    if let Some(seconds) = own.or(common).filter(|&seconds| seconds > 0.0) {
        let what = format!("a request ends after {seconds} s (max_stream_duration)");
        let remedy = "set max_stream_duration to 0s in the route, and rely on idle_timeout";
        match seconds <= least {
            true => found.error(Check::MaxDuration, at(), what, remedy),
            false => found.warning(Check::MaxDuration, at(), what, remedy),
        }
    }
}

fn repetitions(place: &Place<'_, '_>, found: &mut Findings) {
    let own = place.route.action();
    let of = |key: &str| {
        let own = own.as_ref().and_then(|action| action.get(key));
        own.or_else(|| place.host.node.get(key))
    };
    if let Some(policy) = of("retry_policy").filter(repeats) {
        found.warning(
            Check::Retries,
            At(place.label(), &policy.path),
            "Envoy repeats requests of it that fail",
            "remove retry_policy, or set an empty one in the route",
        );
    }
    if let Some(policy) = of("hedge_policy") {
        found.warning(
            Check::Hedging,
            At(place.label(), &policy.path),
            "Envoy sends requests of it more than once",
            "remove hedge_policy",
        );
    }
    let host = &place.host.node;
    let mirrors = own
        .map(|one| one.items("request_mirror_policies"))
        .unwrap_or_default();
    for policy in mirrors
        .into_iter()
        .chain(host.items("request_mirror_policies"))
    {
        found.error(
            Check::Mirror,
            At(place.label(), &policy.path),
            "Envoy sends a copy of its requests to another cluster",
            "remove request_mirror_policies from the registry's routes",
        );
    }
}

/// Whether a policy repeats requests that may have reached the builder.
fn repeats(policy: &Node<'_>) -> bool {
    let conditions = policy.text("retry_on").unwrap_or_default().split(',');
    let mut conditions = conditions.map(str::trim).filter(|one| !one.is_empty());
    conditions.any(|one| !UNSENT.contains(&one))
}

/// What routes add to requests.
fn headers(scene: &Scene<'_>, place: &Place<'_, '_>, found: &mut Findings) {
    let route = place.route;
    let added: Vec<_> = route
        .levels
        .iter()
        .flat_map(|node| node.items("request_headers_to_add"))
        .filter_map(|option| Added::new(&option))
        .collect();
    let mut overwritten = Vec::new();
    for header in &added {
        let at = || At(place.label(), &header.node.path);
        let name = header.name.as_str();
        if !header.overwrites && [TOKEN, CLIENT_ADDRESS].contains(&name) {
            found.error(
                Check::LoginHeaders,
                at(),
                format!("a client's own {name} stays beside the one that is added"),
                "set append_action: OVERWRITE_IF_EXISTS_OR_ADD",
            );
        } else {
            overwritten.push(name);
        }
        if name == TOKEN {
            token(scene, place, header, found);
        } else if name.starts_with("nixgate-")
            && !route.is_login()
            && !(name == CLIENT_ADDRESS && scene.leads_to_hop(route))
        {
            found.warning(
                Check::TokenHeader,
                at(),
                format!("it adds {name}, a header between the edge and the builder"),
                "remove it: the filter sends these headers itself",
            );
        }
    }
    if scene.leads_to_hop(route)
        && scene.hop_asks_for_address()
        && !overwritten.contains(&CLIENT_ADDRESS)
    {
        found.error(
            Check::LoginHeaders,
            At(place.label(), &route.node.path),
            format!("the listener that it leads to requires the header {CLIENT_ADDRESS}"),
            format!(
                "add {CLIENT_ADDRESS}: \"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\" with \
                 append_action: OVERWRITE_IF_EXISTS_OR_ADD"
            ),
        );
    }
    let adds_token = added.iter().any(|header| header.name == TOKEN);
    if scene.leads_to_builder(route)
        && route.is_login()
        && adds_token
        && !overwritten.contains(&CLIENT_ADDRESS)
    {
        found.error(
            Check::LoginHeaders,
            At(place.label(), &route.node.path),
            format!("it adds the token, and lets a client's own {CLIENT_ADDRESS} through"),
            format!(
                "add {CLIENT_ADDRESS}: \"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\" with \
                 append_action: OVERWRITE_IF_EXISTS_OR_ADD"
            ),
        );
    }
}

fn token(scene: &Scene<'_>, place: &Place<'_, '_>, header: &Added<'_>, found: &mut Findings) {
    let route = place.route;
    let at = || At(place.label(), &header.node.path);
    let is_login = route.is_login();
    let filter = scene
        .filter_of(place.chain)
        .map(|index| &place.chain.filters[index]);
    let has_filter = filter.is_some_and(|filter| route.enables(filter));
    if !is_login && route.covers("/v2") && !has_filter {
        found.error(
            Check::TokenHeader,
            at(),
            format!("it adds {TOKEN} to requests for images that did not pass the filter"),
            "remove the header: only the route of /v2/token needs it",
        );
    } else if !is_login && !scene.leads_to_builder(route) {
        found.error(
            Check::TokenHeader,
            at(),
            format!("it sends {TOKEN} to another service than the builder"),
            "remove the header from the routes of others",
        );
    } else if !is_login && route.covers("/v2") {
        found.warning(
            Check::TokenHeader,
            at(),
            format!("it adds {TOKEN} also to requests that the filter leaves alone"),
            "remove the header: the filter sends it itself",
        );
    } else if !is_login && has_policy(scene) {
        found.warning(
            Check::TokenHeader,
            at(),
            "with a policy, it shows everybody the names of packages that are built",
            "remove the route, or let an RBAC filter decide who may use it",
        );
    }
    if !header.value.contains('%') {
        found.warning(
            Check::TokenInText,
            at(),
            format!("the value of {TOKEN} is written in the configuration"),
            "write \"%ENVIRONMENT(NIXGATE_TOKEN)%\"",
        );
    }
}

fn has_policy(scene: &Scene<'_>) -> bool {
    let mut settings = scene
        .plugins
        .iter()
        .filter_map(|one| one.settings.as_ref().ok());
    settings.any(|settings| settings.config.policy.is_some())
}

/// A header that a route adds.
struct Added<'a> {
    node: Node<'a>,
    name: String,
    value: &'a str,
    overwrites: bool,
}

impl<'a> Added<'a> {
    fn new(option: &Node<'a>) -> Option<Self> {
        let header = option.get("header")?;
        let action = option.text("append_action").unwrap_or_default();
        Some(Self {
            name: header.text("key")?.to_ascii_lowercase(),
            value: header.text("value").unwrap_or_default(),
            overwrites: action.starts_with("OVERWRITE") || option.flag("append") == Some(false),
            node: option.clone(),
        })
    }
}
