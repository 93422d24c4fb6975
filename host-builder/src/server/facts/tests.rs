//! The two headers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use nixgate_core::distribution::{Digest, Tag};

use super::*;
use crate::records::ImageRecord;

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
    let header = header(images, &FactRules::default());
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
    let request = |rules: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for rules in rules {
            let value = HeaderValue::from_bytes(rules).unwrap();
            headers.append(wire::RULES, value);
        }
        headers
    };
    let fine = br#"{"a":{"insecure":true}}"#;
    assert_eq!(rules_of(&request(&[])).unwrap(), FactRules::default());
    let rules = rules_of(&request(&[fine])).unwrap();
    assert_eq!(rules.header().map(str::as_bytes), Some(&fine[..]));
    for bad in [
        &[&b""[..]][..],
        &[b"[]"],
        &[br#"{"a":{"newer":true}}"#],
        &[b"{\"a\":{\"closure\":[\"\xc3\xbc\"]}}"],
        &[fine, fine],
    ] {
        let error = rules_of(&request(bad)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::RulesInvalid);
        assert!(error.to_string().contains("nixgate-rules"), "{error}");
    }
}

#[test]
fn an_answer_has_the_header_whatever_the_rules_are_called() {
    let mut headers = HeaderMap::new();
    let rules = FactRules::parse(r#"{"a b":{"insecure":true}}"#).unwrap();
    add_facts(&mut headers, vec![image(1, &["latest"])], &rules).unwrap();
    let facts = headers[wire::FACTS].to_str().unwrap();
    assert_eq!(ImageFacts::parse(facts).map(|images| images.len()), Some(1));
}
