//! Who sent a request: the attributes that a policy asks for, as Envoy knows them.

use nixgate_core::config::{Config, Identity as Places};
use nixgate_core::exchange::Caller;
use nixgate_core::policy::{Attribute, ClaimKind, Identity, Known, Policy};

use crate::header_map::HeaderMap;
use crate::host;

/// Envoy's id of the request, by which its log and a refusal speak of one decision.
const REQUEST_ID: &str = "x-request-id";

/// The caller of the request with these headers.
pub(crate) fn of(config: &Config, headers: &HeaderMap) -> Caller {
    let identity = |policy: &Option<Policy>| match policy {
        Some(policy) => identity(policy, &config.identity, headers),
        None => Identity::new(),
    };
    Caller {
        identity: identity(&config.policy),
        shadow: identity(&config.shadow),
        decision: match config.policy {
            Some(_) => headers.all(REQUEST_ID).next().unwrap_or_default().into(),
            None => String::new(),
        },
    }
}

fn identity(policy: &Policy, places: &Places, headers: &HeaderMap) -> Identity {
    let attributes = policy.attributes().iter();
    attributes
        .map(|attribute| known(attribute, places, headers))
        .collect()
}

fn known(attribute: &Attribute, places: &Places, headers: &HeaderMap) -> Known {
    let header = |name: &str| {
        let values: Vec<_> = headers.all(name).map(String::from).collect();
        if values.is_empty() {
            Known::Unknown
        } else {
            Known::Values(values)
        }
    };
    let text = |path: &[&str]| host::property(path).map_or(Known::Unknown, |it| Known::text(&it));
    match attribute {
        Attribute::JwtClaim { path, kind } => {
            let place = places.jwt_metadata.iter().chain(path).map(String::as_str);
            let path: Vec<_> = ["metadata", "filter_metadata"]
                .into_iter()
                .chain(place)
                .collect();
            match kind {
                ClaimKind::Text => text(&path),
                ClaimKind::List => host::property(&path).map_or(Known::Unknown, |list| {
                    Known::list(&list, |index| {
                        let index = index.to_string();
                        let item: Vec<_> = path.iter().copied().chain([index.as_str()]).collect();
                        host::property(&item)
                    })
                }),
            }
        }
        Attribute::Header { name } => header(name),
        Attribute::BasicUser => places
            .basic_user_header
            .as_deref()
            .map_or(Known::Unknown, header),
        Attribute::Host => headers
            .all(":authority")
            .next()
            .map_or(Known::Unknown, |authority| Known::host(&authority)),
        Attribute::UriSan => text(&["connection", "uri_san_peer_certificate"]),
        Attribute::Address => host::property(&["source", "address"])
            .map_or(Known::Unknown, |address| Known::address(&address)),
    }
}
