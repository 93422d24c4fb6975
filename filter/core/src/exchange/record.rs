//! What was done for a request, in the few words that counters and access logs have.

use std::rc::Rc;

use crate::policy::{Identity, Known};

/// How a request ended at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The edge needed nobody: the version check, the list of referrers, which is empty.
    Answered,
    /// The cache knew.
    Hit,
    /// The builder was asked, and knew or built it.
    Miss,
    /// The builder had no answer, and an old one was served.
    Stale,
    /// The client was sent round again, because its image is still being built.
    Redirected,
    /// The request went on to the builder, which streams a blob.
    Forwarded,
    /// The policy does not let the caller have it.
    Denied,
    /// The client asked for what it can't have, or too early: 4xx.
    Refused,
    /// The registry failed: 5xx.
    Failed,
}

impl Outcome {
    /// The word in counters and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Redirected => "redirected",
            Self::Forwarded => "forwarded",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// What a status says by itself.
    pub(super) const fn of_status(status: u16) -> Self {
        match status {
            500.. => Self::Failed,
            400.. => Self::Refused,
            _ => Self::Miss,
        }
    }
}

/// What to note of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `manifest`, `blob`, `tags`, `catalog`, or `other` when the request was none of these.
    pub route: &'static str,
    /// The canonical package set; empty where the route is `catalog` or `other`.
    pub image: Rc<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the policy said of it; none without a policy, or when the request named no image.
    pub judgement: Option<Rc<Judgement>>,
}

/// A decision of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// The caller may have it.
    Allowed,
    /// The caller may have it while a rule is on audit.
    Warned,
    /// The caller may not have it.
    Denied,
}

impl Decision {
    /// The word in counters and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Warned => "warned",
            Self::Denied => "denied",
        }
    }
}

/// Why a rule's subject can't be known of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// What it asks for is not there.
    Absent,
    /// Something of the caller is there that can't be read, such as a claim of another type.
    Unreadable,
}

impl Doubt {
    /// Of a caller of whom something is unknown.
    pub(super) fn of(identity: &Identity) -> Self {
        let mut known = identity.iter();
        match known.any(|known| matches!(known, Known::Partly(_))) {
            true => Self::Unreadable,
            false => Self::Absent,
        }
    }

    /// The word in counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What the policy said of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The revision by which it was judged; empty when there is only one on trial.
    pub policy: Rc<str>,
    /// The decision.
    pub decision: Decision,
    /// The first rule that decided against the request, or would; empty when none did.
    pub rule: Rc<str>,
    /// Whether the policy on trial would have decided otherwise.
    pub shadow_differs: bool,
    /// Set when it could not be known whether some rule about what was asked for is for the caller.
    pub doubt: Option<Doubt>,
}

impl Record {
    /// Of a request that was not understood, or needed no understanding.
    pub(super) fn other(outcome: Outcome) -> Self {
        Self {
            route: "other",
            image: "".into(),
            outcome,
            judgement: None,
        }
    }
}
