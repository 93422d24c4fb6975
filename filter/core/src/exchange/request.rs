//! A client's request, as the shell passes it in.

use crate::policy::{Identity, Known};

/// The parts of a request that the edge reads.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// `:method`
    pub method: &'a str,
    /// `:path`, query included
    pub path: &'a str,
    /// Every `Accept` header.
    pub accept: Vec<&'a str>,
    /// Every `If-None-Match` header.
    pub if_none_match: Vec<&'a str>,
    /// Whether it has several ranges ([`is_of_several_ranges`]).
    ///
    /// [`is_of_several_ranges`]: crate::wire::is_of_several_ranges
    pub several_ranges: bool,
    /// Its sender.
    pub caller: &'a Caller,
}

/// The attributes of a caller that the policies use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The policy's attributes.
    pub identity: Identity,
    /// The attributes of the policy on trial.
    pub shadow: Identity,
    /// The id of the request, which a denied caller and the logs of edge and builder share.
    pub decision: String,
}

impl Caller {
    /// An encoding of both identities; different callers have different keys.
    ///
    /// It is computed for each request that a copy may answer, so it is not text.
    pub fn key(&self) -> Vec<u8> {
        const UNKNOWN: [u8; 4] = [u8::MAX; 4];
        const PARTLY: [u8; 4] = [u8::MAX, u8::MAX, u8::MAX, u8::MAX - 1];
        // No header has 4 GiB, nor as many values less two.
        let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let mut key = Vec::with_capacity(64);
        for known in self.identity.iter().chain(&self.shadow) {
            let values = match known {
                Known::Unknown => {
                    key.extend_from_slice(&UNKNOWN);
                    continue;
                }
                Known::Values(values) => values,
                Known::Partly(values) => {
                    key.extend_from_slice(&PARTLY);
                    values
                }
            };
            key.extend_from_slice(&number(values.len()));
            for value in values {
                key.extend_from_slice(&number(value.len()));
                key.extend_from_slice(value.as_bytes());
            }
        }
        key
    }
}
