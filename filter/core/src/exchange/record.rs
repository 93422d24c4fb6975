//! The record of a request for counters and access logs.

use std::rc::Rc;

use crate::policy::{Identity, Known};

/// How a request ended at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The edge answered alone: the version check, or the empty list of referrers.
    Answered,
    /// The answer was cached.
    Hit,
    /// The builder answered.
    Miss,
    /// The builder had no answer, and a stale one was served.
    Stale,
    /// The client was redirected to the same path, because its image is still being built.
    Redirected,
    /// The request went on to the builder, which streams a blob.
    Forwarded,
    /// The policy denied it.
    Denied,
    /// The request was wrong, or too early: 4xx.
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

    /// The outcome for a status without further knowledge.
    pub(super) const fn of_status(status: u16) -> Self {
        match status {
            500.. => Self::Failed,
            400.. => Self::Refused,
            _ => Self::Miss,
        }
    }
}

/// The record of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `manifest`, `blob`, `tags`, `catalog`, or `other` when the request was none of these.
    pub route: &'static str,
    /// The canonical package set; empty where the route is `catalog` or `other`.
    pub image: Rc<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// The policy's judgement; none without a policy or an image.
    pub judgement: Option<Rc<Judgement>>,
}

/// A decision of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// The caller may have it.
    Allowed,
    /// The caller may have it only because a rule is on audit.
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

/// Why it is unknown whether a rule applies to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// The attribute is missing.
    Absent,
    /// The attribute can't be read, for example a claim of another type.
    Unreadable,
}

impl Doubt {
    /// The doubt about a caller with unknown attributes.
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

/// The policy's judgement of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The policy's revision; empty if the only policy is on trial.
    pub policy: Rc<str>,
    /// The decision.
    pub decision: Decision,
    /// The first rule that denies the request, or would; empty if none does.
    pub rule: Rc<str>,
    /// Whether the policy on trial would have decided otherwise.
    pub shadow_differs: bool,
    /// Set if it is unknown whether some rule about the request applies to the caller.
    pub doubt: Option<Doubt>,
}

impl Record {
    /// The record of a request on no other route.
    pub(super) fn other(outcome: Outcome) -> Self {
        Self {
            route: "other",
            image: "".into(),
            outcome,
            judgement: None,
        }
    }
}
