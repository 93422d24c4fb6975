//! The two headers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use nixgate_core::distribution::{Digest, Tag};

use super::*;
use crate::records::ImageRecord;

const KNOWN: Others = Others::Known {
    names: BTreeMap::new(),
    may_grow: false,
};

fn image(age: u64, tags: &[&str]) -> Image {
    let tags = tags.iter().map(|tag| Tag::parse(tag).unwrap());
    Image {
        record: Arc::new(ImageRecord::example(&[(Digest::of(&age.to_be_bytes()), 1)])),
        tags: tags.collect(),
        latest: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age),
    }
}

/// The tags of each image that is told of.
fn told(images: Vec<Image>) -> Vec<BTreeSet<Tag>> {
    let settled = |image| (image, KNOWN);
    let mut images = images;
    images.sort_by_key(|image| Reverse(image.latest));
    let images = images.into_iter().map(settled).collect();
    let Facts { header, .. } = facts(images, &FactRules::default());
    assert!(header.len() <= MAX_HEADER, "{}", header.len());
    let facts = ImageFacts::parse(&header).unwrap();
    facts.into_iter().map(|facts| facts.tags).collect()
}

#[test]
fn images_that_say_the_same_are_told_of_once_and_the_latest_first() {
    let images = vec![
        image(3, &["latest"]),
        image(2, &["v2"]),
        image(1, &["latest"]),
        image(4, &[]),
    ];
    let tags: Vec<usize> = told(images).iter().map(BTreeSet::len).collect();
    assert_eq!(tags, [1, 1, 0]);
    let images = vec![image(3, &["latest"]), image(2, &["v2"])];
    assert!(told(images)[0].contains(&Tag::parse("v2").unwrap()));
}

#[test]
fn the_oldest_of_too_many_images_are_left_out() {
    let count = 1000;
    let images = (0..count).map(|age| image(age, &[&format!("t{age}")]));
    let told = told(images.collect());
    assert!(told.len() < 1000 && told.len() > 100, "{}", told.len());
    for (age, tags) in told.iter().enumerate() {
        assert!(tags.contains(&Tag::parse(&format!("t{age}")).unwrap()));
    }
}

#[test]
fn rules_that_can_not_be_understood_are_refused_by_the_header_s_name() {
    let request = |name: &'static str, values: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    };
    let none = Rules::of(&HeaderMap::new()).unwrap();
    assert!(none.facts.header().is_none() && none.denied.is_empty());
    let fine = br#"{"a":{"insecure":true}}"#;
    let rules = Rules::of(&request(wire::RULES, &[fine])).unwrap();
    assert_eq!(rules.facts.header().map(str::as_bytes), Some(&fine[..]));
    let rules = Rules::of(&request(wire::DENIED, &[b"git xorg.*"])).unwrap();
    assert_eq!(rules.denied.header(), "git xorg.*");
    for (name, bad) in [
        (wire::RULES, &[&b""[..]][..]),
        (wire::RULES, &[b"[]"]),
        (wire::RULES, &[br#"{"a":{"newer":true}}"#]),
        (wire::RULES, &[b"{\"a\":{\"closure\":[\"\xc3\xbc\"]}}"]),
        (wire::RULES, &[fine, fine]),
        (wire::DENIED, &[b""]),
        (wire::DENIED, &[b"xorg.* git"]),
        (wire::DENIED, &[b"git", b"htop"]),
        (wire::DENIED, &[b"\xc3\xbc"]),
    ] {
        let error = Rules::of(&request(name, bad)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::RulesInvalid);
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// The facts of one image, with what is known of other names.
fn facts_with(others: Others) -> (Facts, Vec<ImageFacts>) {
    let rules = FactRules::parse(r#"{"a b":{"insecure":true}}"#).unwrap();
    let facts = facts(vec![(image(1, &["latest"]), others)], &rules);
    let images = ImageFacts::parse(&facts.header).unwrap();
    (facts, images)
}

#[test]
fn an_answer_has_the_header_and_counts_as_long_as_its_facts() {
    let names = |count: usize| {
        let others = (0..count).map(|number| format!("other-name-{number}"));
        [("git".to_owned(), others.collect())].into()
    };
    let growing = |may_grow| Others::Known {
        names: names(2),
        may_grow,
    };
    let many = Others::Known {
        names: names(2000),
        may_grow: false,
    };
    for (others, age, expected, unknown) in [
        (KNOWN, "max-age=300", "max-age=300", false),
        (growing(false), "max-age=300", "max-age=300", false),
        (growing(true), "max-age=300", "max-age=60", false),
        (growing(true), "max-age=7", "max-age=7", false),
        (growing(true), "no-store", "no-store", false),
        (
            Others::Unknown,
            "max-age=31536000, immutable",
            "max-age=60",
            true,
        ),
        // Whatever has no room is no name that is left out.
        (many, "max-age=300", "max-age=300", true),
    ] {
        let (facts, images) = facts_with(others);
        assert_eq!(images[0].names_unknown, unknown, "{age}");
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(age));
        facts.add_to(&mut headers).unwrap();
        assert_eq!(headers[CACHE_CONTROL], expected);
        assert!(headers[wire::FACTS].len() < MAX_HEADER);
    }
}
