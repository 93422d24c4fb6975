//! Manifest media types, and their negotiation.

/// The manifest formats that nixgate writes. Both describe the same blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MediaType {
    /// `application/vnd.oci.image.manifest.v1+json`
    Oci,
    /// `application/vnd.docker.distribution.manifest.v2+json` ("Docker schema 2")
    Docker,
}

impl MediaType {
    /// Every format, in the order of preference.
    pub const ALL: [Self; 2] = [Self::Oci, Self::Docker];

    /// The registered name, as in `Content-Type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    /// Chooses by all `Accept` headers of the request: skopeo and podman send six.
    ///
    /// OCI is preferred, since it has annotations; Docker schema 2 is for clients that accept only that. A
    /// client that accepts neither gets OCI, as the distribution spec allows ("the registry MAY ignore
    /// it"). Quality values are ignored: no client sends them here.
    pub fn negotiate<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let mut docker = false;
        for range in accept.into_iter().flat_map(|header| header.split(',')) {
            let media_type = range.split(';').next().unwrap_or_default().trim();
            if media_type.eq_ignore_ascii_case(Self::Oci.as_str()) {
                return Self::Oci;
            }
            docker |= media_type.eq_ignore_ascii_case(Self::Docker.as_str());
        }
        if docker { Self::Docker } else { Self::Oci }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accept_header_is_read() {
        let docker = MediaType::Docker.as_str();
        let oci = MediaType::Oci.as_str();
        let joined = format!("{docker};q=0.5, {oci}");
        for (accept, expected) in [
            (vec![], MediaType::Oci),
            (vec!["*/*"], MediaType::Oci),
            (vec![docker], MediaType::Docker),
            (
                vec!["text/html", docker, "application/json"],
                MediaType::Docker,
            ),
            (vec![docker, oci], MediaType::Oci),
            (vec![joined.as_str()], MediaType::Oci),
        ] {
            assert_eq!(
                MediaType::negotiate(accept.iter().copied()),
                expected,
                "{accept:?}"
            );
        }
    }
}
