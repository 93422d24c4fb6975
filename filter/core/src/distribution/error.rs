//! Errors as registry clients read them (distribution spec, "Error Codes").
//!
//! Inside, an [`Error`] says *what is wrong* ([`ErrorKind`]) and *what to do* (its message).
//! Status, code and whether to try again are decided in one match without a wildcard,
//! `ErrorKind::wire`: a new kind forces the decision.

use serde_json::{Value, json};

/// A code of the distribution spec, or one of the two older ones that clients know for 5xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// `BLOB_UNKNOWN`
    BlobUnknown,
    /// `DENIED`
    Denied,
    /// `DIGEST_INVALID`
    DigestInvalid,
    /// `MANIFEST_INVALID`
    ManifestInvalid,
    /// `MANIFEST_UNKNOWN`
    ManifestUnknown,
    /// `NAME_INVALID`
    NameInvalid,
    /// `NAME_UNKNOWN`
    NameUnknown,
    /// `SIZE_INVALID`
    SizeInvalid,
    /// `TOOMANYREQUESTS`
    TooManyRequests,
    /// `UNAUTHORIZED`
    Unauthorized,
    /// `UNAVAILABLE` (Docker registry v2)
    Unavailable,
    /// `UNKNOWN` (Docker registry v2)
    Unknown,
    /// `UNSUPPORTED`
    Unsupported,
}

impl Code {
    /// The code as it is written in an error body.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
            Self::Unsupported => "UNSUPPORTED",
        }
    }
}

/// What went wrong, at the edge or at the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The repository name breaks the grammar or contradicts itself.
    NameInvalid,
    /// The digest is not one.
    DigestInvalid,
    /// The tag is not one.
    TagInvalid,
    /// The path under `/v2/` is no route of a registry.
    RouteUnknown,
    /// The method would change the registry, or is none that it knows.
    MethodUnsupported,
    /// The builder can't read the rules that the edge sent.
    RulesInvalid,
    /// The list of all repositories, which has no end here.
    CatalogUnsupported,
    /// No package of that name, no such tag, or no such manifest under that name.
    ManifestUnknown,
    /// No image of that name has the blob.
    BlobUnknown,
    /// The blob is there, and not the one that the request is for (`If-Match`).
    PreconditionFailed,
    /// The blob has no such part.
    RangeNotSatisfiable,
    /// The caller may not have it.
    Denied,
    /// The builder refuses the edge's token, and says nothing of the image.
    TokenRefused,
    /// The builder refuses the time of the edge's signature.
    SignatureOutdated,
    /// The caller has no valid credentials.
    Unauthenticated,
    /// The client's time is used up while the build goes on.
    StillBuilding,
    /// The builder's queue is full, or its disk.
    TooBusy,
    /// The build failed.
    BuildFailed,
    /// The build took longer than it may.
    BuildTimedOut,
    /// The builder cannot be reached, or its answer makes no sense.
    BuilderUnreachable,
    /// Something that the builder needs (Nix, storage) is not available.
    BuilderUnready,
    /// The build failed for a reason outside the packages, such as a full disk or a killed process. They
    /// may be the cause all the same.
    BuildBroken,
    /// A binary cache failed, and no package did.
    CacheFailed,
    /// The package set as a whole can't be evaluated, such as by too old a Nix.
    PackageSetUnusable,
    /// Files of a package were altered after the build, and could not be repaired.
    PackageAltered,
    /// A defect.
    Internal,
}

/// Whether the same request may be answered differently later.
enum Retry {
    /// Shortly, without anybody changing anything: the answer carries `Retry-After`.
    Soon,
    /// Not for a while: it is about the packages that were asked for.
    Lasts,
    /// Only once somebody changes the request or the registry; told again at no cost.
    Changed,
}

impl ErrorKind {
    /// The HTTP status and the code on the wire, and whether to try again.
    ///
    /// A failed build is `403`: docker, containerd, podman and skopeo hide the body of every 5xx, and
    /// crane and oras repeat the request for seconds. `403` is the one status whose body all of them show,
    /// and a failed build stays failed as a refusal does. The code tells it from a refusal (`DENIED`).
    const fn wire(self) -> (u16, Code, Retry) {
        use Retry::{Changed, Lasts, Soon};
        match self {
            Self::NameInvalid => (400, Code::NameInvalid, Changed),
            Self::DigestInvalid => (400, Code::DigestInvalid, Changed),
            Self::TagInvalid => (400, Code::ManifestInvalid, Changed),
            Self::RouteUnknown => (404, Code::NameUnknown, Changed),
            Self::MethodUnsupported => (405, Code::Unsupported, Changed),
            Self::RulesInvalid => (400, Code::Unsupported, Changed),
            // The catalog is Docker's, not the spec's, and 404 is how a registry says that it has
            // none. The code is not NAME_UNKNOWN: no name is missing, the operation is.
            Self::CatalogUnsupported => (404, Code::Unsupported, Changed),
            Self::ManifestUnknown => (404, Code::ManifestUnknown, Lasts),
            Self::BlobUnknown => (404, Code::BlobUnknown, Changed),
            Self::PreconditionFailed => (412, Code::DigestInvalid, Changed),
            Self::RangeNotSatisfiable => (416, Code::SizeInvalid, Changed),
            Self::Denied => (403, Code::Denied, Lasts),
            Self::Unauthenticated => (401, Code::Unauthorized, Changed),
            Self::StillBuilding | Self::TooBusy => (429, Code::TooManyRequests, Soon),
            Self::BuildFailed | Self::BuildTimedOut => (403, Code::Unknown, Lasts),
            Self::Internal => (500, Code::Unknown, Changed),
            Self::BuilderUnreachable
            | Self::BuilderUnready
            | Self::BuildBroken
            | Self::CacheFailed
            | Self::PackageSetUnusable
            | Self::PackageAltered
            | Self::TokenRefused
            | Self::SignatureOutdated => (503, Code::Unavailable, Soon),
        }
    }

    /// Whether the builder that answers this is not fit to answer, so that another one had better be asked.
    /// Only of interest where the status is a 5xx: see [`wire`](crate::wire).
    pub const fn is_fault_of_the_builder(self) -> bool {
        match self {
            // Another builder may accept the token.
            Self::BuilderUnreachable
            | Self::BuilderUnready
            | Self::Internal
            | Self::TokenRefused => true,
            // A package may have filled the disk, or taken the memory.
            Self::BuildBroken
            // Other builders have the same caches, and whoever pulls may choose the branch.
            | Self::CacheFailed
            | Self::PackageSetUnusable
            // The edge signs anew by this builder's clock.
            | Self::SignatureOutdated
            | Self::BuildFailed
            | Self::BuildTimedOut
            | Self::PackageAltered
            | Self::NameInvalid
            | Self::DigestInvalid
            | Self::TagInvalid
            | Self::RouteUnknown
            | Self::MethodUnsupported
            | Self::RulesInvalid
            | Self::CatalogUnsupported
            | Self::ManifestUnknown
            | Self::BlobUnknown
            | Self::PreconditionFailed
            | Self::RangeNotSatisfiable
            | Self::Denied
            | Self::Unauthenticated
            | Self::StillBuilding
            | Self::TooBusy => false,
        }
    }

    /// Whether this is about the packages that were asked for, and so stays true for a while.
    pub const fn lasts(self) -> bool {
        matches!(self.wire(), (_, _, Retry::Lasts))
    }

    /// Whether the same request may succeed shortly without anybody changing anything; such
    /// answers carry `Retry-After`.
    pub const fn is_transient(self) -> bool {
        matches!(self.wire(), (_, _, Retry::Soon))
    }
}

/// An error for a registry client.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// What happened, to what, and what to do, for the person who reads it.
    pub message: String,
    /// The same for programs; [`Value::Null`] when there is nothing to add.
    pub detail: Value,
}

impl Error {
    /// An error without detail.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            detail: Value::Null,
        }
    }

    pub(crate) fn name_invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NameInvalid, message)
    }

    /// The same error with something for programs to read.
    #[must_use]
    pub fn with_detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        self.kind.wire().0
    }

    /// The body, `{"errors":[{"code","message","detail"}]}`.
    pub fn body(&self) -> Vec<u8> {
        let (_, code, _) = self.kind.wire();
        let mut error = json!({ "code": code.as_str(), "message": self.message });
        if let (Some(fields), false) = (error.as_object_mut(), self.detail.is_null()) {
            fields.insert("detail".to_owned(), self.detail.clone());
        }
        json!({ "errors": [error] }).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_the_spec_says() {
        let error = Error::new(ErrorKind::ManifestUnknown, "no package \"x\"")
            .with_detail(json!({ "packages": ["x"] }));
        assert_eq!(
            String::from_utf8(error.body()).unwrap(),
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","detail":{"packages":["x"]},"message":"no package \"x\""}]}"#
        );
        assert_eq!(
            String::from_utf8(Error::new(ErrorKind::Internal, "m").body()).unwrap(),
            r#"{"errors":[{"code":"UNKNOWN","message":"m"}]}"#
        );
    }
}
