//! The policy's judgement of an exchange, and the client's reply.
//!
//! ```text
//!   begin     name ──────────► denied, without looking into cache or builder
//!   deliver   name + facts ──► denied, or the answer, with a warning for rules on audit
//! ```
//!
//! The name is judged first: this is cheapest, and reveals nothing about what exists. An answer from cache
//! or builder is judged again with its facts, by the policy in force at that time.

use std::rc::Rc;

use serde_json::json;

use super::record::{Decision, Doubt, Judgement, Outcome};
use super::{Caller, Reply};
use crate::config::Config;
use crate::distribution::{Error, ErrorKind, Tag};
use crate::policy::{self, ImageFacts, Policy, Verdict};
use crate::{ImageName, image_name, policy::Identity};

/// A request, as the policy judges it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) name: &'a ImageName,
    /// How many packages the client wrote.
    pub(super) written: usize,
    /// The requested tag.
    pub(super) tag: Option<&'a Tag>,
    pub(super) caller: &'a Caller,
}

/// The policy's judgement.
#[derive(Debug)]
pub(super) enum Judged {
    /// The caller may have the answer, with this text in a `Warning` header if there is one.
    Allowed(Option<Judgement>, Option<String>),
    /// The caller gets this reply instead.
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
                // A misfit between edge and builder must show, and reveals nothing about the packages.
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

    /// The policy's rule that grants access; none if none is needed.
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

/// A denial that looks like the builder's answer for an unknown package.
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
    /// Sets the judgement of the record.
    pub(super) fn judged(mut self, judgement: Option<Judgement>) -> Self {
        self.record.judgement = judgement.map(Rc::new);
        self
    }

    /// Adds a warning (distribution spec, "Warnings").
    pub(super) fn warned(mut self, text: Option<String>) -> Self {
        if let Some(text) = text {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            self.headers
                .push(("warning", format!("299 - \"{quoted}\"")));
        }
        self
    }
}
