//! What a client asks, as the shell hands it over.

use std::fmt::Write;

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
    /// The id of the decision: by it a refused caller and the administrator's log speak of one
    /// request.
    pub decision: String,
}

impl Caller {
    /// Who it is as a text: two texts are one only when the callers are. The decision is no part of
    /// it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for known in self.identity.iter().chain(&self.shadow) {
            match known {
                Known::Unknown => text.push_str(" ?"),
                Known::Values(values) => {
                    // Writing to a string does not fail.
                    let _ = write!(text, " {}", values.len());
                    for value in values {
                        let _ = write!(text, " {} {value}", value.len());
                    }
                }
            }
        }
        text
    }
}
