//! Whatever strangers send, it is what the grammar says or an error, never a panic; and what is
//! accepted means what was written.
//!
//! The same properties are looked for by coverage in `tests/fuzz`.

use proptest::prelude::*;

use crate::cache::{Directory, Entry, Key};
use crate::config::Config;
use crate::distribution::{Digest, Reference, Repository, Route};
use crate::package_set::PackageSet;

/// Any text, and text that is nearly right: the former alone is hardly ever accepted.
fn texts(nearly: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![1 => any::<String>(), 3 => nearly]
}

/// A path of this route; none when there is no way to write it, as for what is no route.
fn written(route: &Route) -> Option<String> {
    match route {
        Route::Manifest {
            repository,
            reference,
        } => Some(format!("/v2/{repository}/manifests/{reference}")),
        Route::Blob { repository, digest } => Some(format!("/v2/{repository}/blobs/{digest}")),
        Route::Catalog => Some("/v2/_catalog".to_owned()),
        Route::Tags { repository } => Some(format!("/v2/{repository}/tags/list")),
        Route::Referrers { repository, digest } => {
            Some(format!("/v2/{repository}/referrers/{digest}"))
        }
        Route::Base | Route::Elsewhere => None,
    }
}

fn key() -> Key {
    Key::tags(
        "builder",
        &PackageSet::of(&Repository::parse("git").unwrap())
            .unwrap()
            .into(),
    )
}

proptest! {
    #[test]
    fn a_route_is_what_was_written(
        path in texts("/v2/([a-zA-Z0-9._-]{1,3}/){0,3}(manifests|blobs|tags|referrers)/(list|latest|sha256:[a-f0-9]{63,65}|[!-~]{0,9})"),
        query in "[ -~]{0,9}",
    ) {
        let route = Route::parse(&path);
        if let Some(written) = route.as_ref().ok().and_then(written) {
            prop_assert_eq!(written.as_str(), path.split('?').next().unwrap());
            prop_assert_eq!(&Route::parse(&format!("{written}?{query}")), &route);
            let prefix = Repository::parse("a/b").unwrap();
            let below = written.replacen("/v2/", "/v2/a/b/", 1);
            prop_assert_eq!(Route::parse_below(Some(&prefix), &below), route);
        }
    }

    #[test]
    fn a_name_is_what_was_written_and_has_one_canonical_form(
        name in texts("((shell|builder|ci|arm64|amd64|[a-z0-9]{1,3}([._-]{0,3}[a-z0-9])?)/?){1,5}"),
    ) {
        if let Ok(repository) = Repository::parse(&name) {
            prop_assert_eq!(repository.as_str(), &name);
            if let Ok(set) = PackageSet::of(&repository) {
                let canonical = Repository::parse(&set.to_string()).unwrap();
                prop_assert_eq!(PackageSet::of(&canonical), Ok(set));
            }
        }
    }

    #[test]
    fn a_reference_is_what_was_written(text in texts("(sha256:)?[a-zA-Z0-9_.-]{1,130}")) {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn a_digest_is_what_was_written(text in texts("sha256:[0-9a-f]{62,65}[0-9A-F]?")) {
        if let Ok(digest) = text.parse::<Digest>() {
            prop_assert_eq!(digest.to_string(), text);
        }
    }

    /// Shared data is open to every plugin of the same `vm_id`.
    #[test]
    fn a_slot_is_an_entry_byte_for_byte_or_nothing(
        tail in prop::collection::vec(prop_oneof![Just(0_u8), 1..5_u8, any::<u8>()], 0..64),
    ) {
        let key = key();
        let mut slot = u32::try_from(key.as_bytes().len()).unwrap().to_be_bytes().to_vec();
        slot.extend_from_slice(key.as_bytes());
        slot.extend(tail);
        if let Some(entry) = Entry::decode(&slot, &key) {
            prop_assert_eq!(entry.encode(&key), slot);
        }
    }

    #[test]
    fn a_directory_of_any_bytes_can_be_used(
        bytes in prop::collection::vec(any::<u8>(), 0..500),
        way in 0_usize..20,
        length in 0_usize..(300 << 10),
    ) {
        let mut directory = Directory::decode(&bytes);
        prop_assert_eq!(&Directory::decode(&directory.encode()), &directory);
        directory.touch(way);
        let placement = directory.place(&key(), length, 10, 0);
        prop_assert_eq!(directory.find(&key()).is_some(), placement.is_some());
    }

    #[test]
    fn any_configuration_is_within_the_bounds_or_an_error(
        (hold, bytes) in (any::<i64>(), prop_oneof![any::<i64>(), 0_i64..2 << 20]),
        hold_within in any::<bool>(),
        cut in 0_usize..200,
    ) {
        let hold = if hold_within { hold % 25 } else { hold };
        let json = format!(
            r#"{{"builder": {{"cluster": "b", "token_env": "T"}}, "hold_seconds": {hold}, "cache": {{"max_bytes": {bytes}}}}}"#
        );
        let environment = |_: &str| Some("token".to_owned());
        if let Ok(config) = Config::parse(json.as_bytes(), environment) {
            prop_assert_eq!(i64::try_from(config.hold), Ok(hold));
            prop_assert_eq!(i64::try_from(config.cache_max_bytes), Ok(bytes));
            prop_assert!((1..=22).contains(&config.hold) && config.cache_max_bytes >= 1 << 20);
        }
        let cut = json.len() - 1 - cut.min(json.len() - 1);
        prop_assert!(Config::parse(&json.as_bytes()[..cut], environment).is_err());
    }

    #[test]
    fn any_bytes_are_a_configuration_or_an_error(json in prop::collection::vec(any::<u8>(), 0..99)) {
        prop_assert!(Config::parse(&json, |_| None).is_err());
    }
}
