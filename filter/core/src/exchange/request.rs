//! What a client asks, as the shell hands it over.

use crate::policy::{Identity, Known};

/// A client's request, as far as the edge reads it.
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
    /// Whether it asks for several parts at once ([`is_of_several_ranges`]).
    ///
    /// [`is_of_several_ranges`]: crate::wire::is_of_several_ranges
    pub several_ranges: bool,
    /// Who asks.
    pub caller: &'a Caller,
}

/// Who asks, as far as the policies want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// By the attributes of the policy.
    pub identity: Identity,
    /// By the attributes of the policy on trial.
    pub shadow: Identity,
    /// The id of the request and of the decision about it: by it a refused caller and the logs of edge
    /// and builder speak of one request.
    pub decision: String,
}

impl Caller {
    /// Who it is, in bytes: two keys are one only when the callers are. The decision is no part of it.
    ///
    /// It is made for each request that a copy may answer, so nothing is written out as text.
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
