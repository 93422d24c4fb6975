//! The caller of a request: the attributes that a policy uses, from Envoy.

use std::cell::OnceCell;

use nixgate_core::config::{Config, Identity as Places};
use nixgate_core::exchange::Caller;
use nixgate_core::policy::{Attribute, Identity, Known, Policy};
use nixgate_core::wire;

use crate::header_map::HeaderMap;
use crate::host;

/// The caller of the request with these headers.
pub(crate) fn of(config: &Config, headers: &HeaderMap) -> Caller {
    let sources = Sources {
        places: &config.identity,
        headers,
        metadata: OnceCell::new(),
    };
    let identity = |policy: &Option<Policy>| match policy {
        Some(policy) => {
            let attributes = policy.attributes().iter();
            attributes.map(|one| sources.known(one)).collect()
        }
        None => Identity::new(),
    };
    Caller {
        identity: identity(&config.policy),
        shadow: identity(&config.shadow),
        decision: headers
            .all(wire::REQUEST_ID)
            .next()
            .unwrap_or_default()
            .into(),
    }
}

/// The sources of attributes.
struct Sources<'a> {
    places: &'a Places,
    headers: &'a HeaderMap,
    /// Dynamic metadata, read for the first claim; empty if there is none.
    metadata: OnceCell<Vec<u8>>,
}

impl Sources<'_> {
    fn known(&self, attribute: &Attribute) -> Known {
        let text = |path: &[&str]| {
            let property = host::property(path);
            property.map_or(Known::Unknown, |it| Known::text(&it))
        };
        match attribute {
            Attribute::JwtClaim { path, kind } => {
                let read = || host::property(&["metadata"]).unwrap_or_default();
                let path = self.places.jwt_metadata.iter().chain(path);
                Known::claim(
                    self.metadata.get_or_init(read),
                    path.map(String::as_str),
                    *kind,
                )
            }
            Attribute::Header { name } => self.header(name),
            Attribute::BasicUser => {
                let name = self.places.basic_user_header.as_deref();
                name.map_or(Known::Unknown, |name| self.header(name))
            }
            Attribute::Host => {
                let mut authority = self.headers.all(":authority");
                authority
                    .next()
                    .map_or(Known::Unknown, |authority| Known::host(&authority))
            }
            Attribute::UriSan => text(&["connection", "uri_san_peer_certificate"]),
            Attribute::Address => host::property(&["source", "address"])
                .map_or(Known::Unknown, |address| Known::address(&address)),
        }
    }

    fn header(&self, name: &str) -> Known {
        Known::header(self.headers.all(name).map(String::from))
    }
}
