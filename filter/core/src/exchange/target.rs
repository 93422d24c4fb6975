//! The target of a request: its cache key, its path at the builder and its name in counters.

use crate::cache::Key;
use crate::distribution::{Digest, Error, MediaType, Method, Reference, Repository};
use crate::{ImageName, OpaqueNamespaces};

/// The image that a request is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Image {
    pub(super) name: ImageName,
    /// How many packages the client wrote.
    pub(super) written: usize,
}

impl Image {
    pub(super) fn of(repository: &Repository, opaque: &OpaqueNamespaces) -> Result<Self, Error> {
        let name = ImageName::of(repository, opaque)?;
        Ok(Self {
            written: name.written(repository),
            name,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    Manifest {
        reference: Reference,
        media_type: MediaType,
    },
    Blob {
        digest: Digest,
        method: Method,
    },
    Tags,
    Catalog,
}

impl Target {
    /// The method at the builder. `HEAD` of a manifest is answered with the length of its bytes, which the
    /// edge needs too.
    pub(super) const fn method(&self) -> Method {
        match self {
            Self::Manifest { .. } | Self::Tags | Self::Catalog => Method::Get,
            Self::Blob { method, .. } => *method,
        }
    }

    /// The cache key. Every target but the catalog belongs to an image.
    pub(super) fn key(&self, scope: &str, image: Option<&Image>) -> Key {
        match (self, image.map(|image| &image.name)) {
            (
                Self::Manifest {
                    reference,
                    media_type,
                },
                Some(name),
            ) => Key::manifest(scope, name, reference, *media_type),
            (Self::Blob { digest, method }, Some(name)) => Key::blob(scope, name, digest, *method),
            (Self::Tags, Some(name)) => Key::tags(scope, name),
            (Self::Catalog, _) | (_, None) => Key::catalog(scope),
        }
    }

    /// The word in counters.
    pub(super) const fn route(&self) -> &'static str {
        match self {
            Self::Manifest { .. } => "manifest",
            Self::Blob { .. } => "blob",
            Self::Tags => "tags",
            Self::Catalog => "catalog",
        }
    }

    /// The path at the builder, with the canonical name `image`.
    pub(super) fn upstream_path(&self, image: &str) -> String {
        match self {
            Self::Manifest { reference, .. } => format!("/v2/{image}/manifests/{reference}"),
            Self::Blob { digest, .. } => format!("/v2/{image}/blobs/{digest}"),
            Self::Tags => format!("/v2/{image}/tags/list"),
            Self::Catalog => "/v2/_catalog".to_owned(),
        }
    }
}
