//! What the policy says of an exchange, and what the client is told of it.
//!
//! ```text
//!   begin     name ──────────► refused here, without a look at cache or builder
//!   deliver   name + facts ──► refused, or the answer, with a warning where a rule is on audit
//! ```
//!
//! The verdict on a name comes first, since it costs least and tells nothing about what exists.
//! What came from cache or builder is judged again with its facts, by the policy that is in force
//! when it is delivered.

use std::rc::Rc;

use serde_json::json;

use super::record::{Decision, Doubt, Judgement, Outcome};
use super::{Caller, Reply};
use crate::config::Config;
use crate::distribution::{Error, ErrorKind, Tag};
use crate::policy::{self, ImageFacts, Policy, Verdict};
use crate::{ImageName, image_name, policy::Identity};

/// What a request asks of the policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) name: &'a ImageName,
    /// How many packages the client wrote.
    pub(super) written: usize,
    /// The tag that was asked for.
    pub(super) tag: Option<&'a Tag>,
    pub(super) caller: &'a Caller,
}

/// The policy's word.
#[derive(Debug)]
pub(super) enum Judged {
    /// The answer may be given, with this text in a `Warning` header if there is one.
    Allowed(Option<Judgement>, Option<String>),
    /// This is the answer instead.
    Denied(Reply),
}

impl Case<'_> {
    /// Judges by the name, or with the facts of the images that an answer belongs to.
    pub(super) fn judge(&self, config: &Config, facts: Option<&[ImageFacts]>) -> Judged {
        let shadow = config.shadow.as_ref();
        let shadow = shadow.map(|shadow| self.verdict(shadow, &self.caller.shadow, facts));
        let shadow = shadow.as_ref().map(Verdict::allows);
        let Some(policy) = &config.policy else {
            let judgement = shadow.map(|allows| Judgement {
                policy: "".into(),
                decision: Decision::Allowed,
                rule: "".into(),
                shadow_differs: !allows,
                doubt: None,
            });
            return Judged::Allowed(judgement, None);
        };
        let verdict = self.verdict(policy, &self.caller.identity, facts);
        let judgement = Judgement {
            policy: policy.revision().into(),
            decision: match (verdict.allows(), verdict.warnings.is_empty()) {
                (false, _) => Decision::Denied,
                (true, false) => Decision::Warned,
                (true, true) => Decision::Allowed,
            },
            rule: verdict.rule().unwrap_or_default().into(),
            shadow_differs: shadow.is_some_and(|allows| allows != verdict.allows()),
            doubt: verdict
                .is_doubtful
                .then(|| Doubt::of(&self.caller.identity)),
        };
        match verdict.error(&self.caller.decision) {
            None => Judged::Allowed(Some(judgement), verdict.warning()),
            Some(error) => {
                // What is broken is to be seen, and tells nothing of what there is.
                let error = if policy.hides() && !verdict.is_misfit {
                    hidden(self.name, &verdict)
                } else {
                    error
                };
                let reply = Reply::error(&error).with_outcome(Outcome::Denied);
                Judged::Denied(reply.judged(Some(judgement)))
            }
        }
    }

    /// The rule of the policy that lets the caller in; none when no rule has to.
    pub(super) fn grantor<'a>(&self, config: &'a Config) -> Option<&'a str> {
        let policy = config.policy.as_ref()?;
        policy.grantor(&self.request(), &self.caller.identity)
    }

    const fn request(&self) -> policy::Request<'_> {
        policy::Request {
            image: self.name,
            written: self.written,
            tag: self.tag,
        }
    }

    fn verdict(
        &self,
        policy: &Policy,
        identity: &Identity,
        facts: Option<&[ImageFacts]>,
    ) -> Verdict {
        let request = self.request();
        match facts {
            None => policy.judge_name(&request, identity),
            Some(images) => policy.judge_images(&request, identity, images),
        }
    }
}

/// A refusal that looks as a builder's word on an image that doesn't exist.
fn hidden(name: &ImageName, verdict: &Verdict) -> Error {
    let packages = match name {
        ImageName::Packages(packages) => packages,
        ImageName::Opaque(name) => return image_name::unknown_image(name),
    };
    let refused: Vec<&str> = packages
        .packages()
        .filter(|package| verdict.refuses(package))
        .collect();
    let message = format!("the package set has no {}", refused.join(", "));
    Error::new(ErrorKind::ManifestUnknown, message).with_detail(json!({ "unknown": refused }))
}

impl Reply {
    /// Notes the judgement on it.
    pub(super) fn judged(mut self, judgement: Option<Judgement>) -> Self {
        self.record.judgement = judgement.map(Rc::new);
        self
    }

    /// Adds what a client is to be warned of (distribution spec, "Warnings").
    pub(super) fn warned(mut self, text: Option<String>) -> Self {
        if let Some(text) = text {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            self.headers
                .push(("warning", format!("299 - \"{quoted}\"")));
        }
        self
    }
}
