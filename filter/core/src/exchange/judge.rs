//! Judges an exchange by the policy, and tells the client.
//!
//! ```text
//!   begin     name ──────────► refused at once, before cache and builder are asked
//!   deliver   name + facts ──► refused, or the answer, with a warning by audited rules
//! ```
//!
//! The verdict on the name comes first: it costs least and doesn't reveal which images exist. An answer
//! of the cache or the builder is judged again with its facts, by the policy that is in force when it
//! is delivered.

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
    /// The number of packages that the client wrote.
    pub(super) written: usize,
    pub(super) tag: Option<&'a Tag>,
    pub(super) caller: &'a Caller,
}

/// The decision.
#[derive(Debug)]
pub(super) enum Judged {
    /// The client may have the answer, with this text in a `Warning` header if there is one.
    Allowed(Option<Judgement>, Option<String>),
    /// The client gets this refusal.
    Denied(Reply),
}

impl Case<'_> {
    /// Judges by the name, and by the facts of the images that an answer belongs to.
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
                // Administrators must see a mismatch, and it doesn't reveal which images exist.
                let error = if policy.hides() && !verdict.is_mismatch {
                    hidden(self.name, &verdict)
                } else {
                    error
                };
                let reply = Reply::error(&error).with_outcome(Outcome::Denied);
                Judged::Denied(reply.judged(Some(judgement)))
            }
        }
    }

    /// See [`Policy::grantor`].
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

/// A refusal that looks like the builder's answer for an unknown image.
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
    /// Records the judgement.
    pub(super) fn judged(mut self, judgement: Option<Judgement>) -> Self {
        self.record.judgement = judgement.map(Rc::new);
        self
    }

    /// Adds a warning for the client (distribution spec, "Warnings").
    pub(super) fn warned(mut self, text: Option<String>) -> Self {
        if let Some(text) = text {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            self.headers
                .push(("warning", format!("299 - \"{quoted}\"")));
        }
        self
    }
}
