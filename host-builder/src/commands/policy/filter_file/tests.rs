use proptest::prelude::*;
use serde_json::json;

use super::*;

const FILE: &str = r#"# A comment: value: | is not here.
resources:
  - name: nixgate
    typed_config:
      config:
        configuration:
          "@type": type.googleapis.com/google.protobuf.StringValue
          value: |
            {
              "builder": { "cluster": "b", "token_env": "T" },
              "policy": {
                "revision": "1",
                "default": "deny",
                "rules": []
              },

              "hold_seconds": 20
            }
        other: true # kept
"#;

const POLICY: &str = "{\n  \"revision\": \"2\",\n\n  \"default\": \"deny\",\n  \"rules\": [\n    { \"name\": \"a\", \"allow\": [\"git\"] }\n  ]\n}";
const SHADOW: &str = r#"{"revision":"3","default":"allow","rules":[]}"#;

fn apply(file: &str, policy: &str, shadow: Option<&str>) -> Result<String> {
    with_policies(file, "nixgate", policy, shadow)
}

/// The file with its settings written otherwise: the line of the key, and what is below it.
fn written(value: &str) -> String {
    let (before, rest) = FILE.split_once("value: |\n").unwrap();
    let (_, after) = rest.split_once("            }\n").unwrap();
    format!("{before}{value}\n{after}")
}

/// The file with these lines for those of the policy, and of the empty line after it.
fn with_policy_written(lines: &str) -> String {
    let (before, rest) = FILE.split_once("              \"policy\"").unwrap();
    let (_, after) = rest.split_once("},\n\n").unwrap();
    format!("{before}{lines}{after}")
}

/// The settings as Envoy hands them to the filter.
fn settings(file: &str) -> Value {
    let mut file = parse(file).unwrap();
    let text = take_settings(&mut file, "nixgate").unwrap();
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

#[test]
fn a_policy_takes_the_place_of_the_old_one_as_it_is_written() {
    let with = |shadow| apply(FILE, POLICY, shadow).unwrap();
    let new = r#"              "policy": {
                "revision": "2",
                "default": "deny",
                "rules": [
                  { "name": "a", "allow": ["git"] }
                ]
              },
"#;
    assert_eq!(with(None), with_policy_written(new));
    // The same again changes nothing, and the one on trial comes and goes.
    let once = with(None);
    assert_eq!(apply(&once, POLICY, None).unwrap(), once);
    let shadowed = with(Some(SHADOW));
    let line =
        "              \"shadow\": {\"revision\":\"3\",\"default\":\"allow\",\"rules\":[]}\n";
    assert!(shadowed.contains(line), "{shadowed}");
    assert_eq!(apply(&shadowed, POLICY, None).unwrap(), once);
    // Where there was none, and where lines end as they do on Windows.
    let none = FILE.replace("\"policy\"", "\"shadow\"");
    let policy = POLICY.replace('\n', "\r\n");
    let first = apply(&none, &policy, None).unwrap();
    assert!(!first.contains('\r') && first.contains("\"revision\": \"2\","));
}

#[test]
fn the_settings_may_be_any_text_of_yaml() {
    let json = r#"{"builder": {"cluster": "b", "token_env": "T"}, "hold_seconds": 20}"#;
    let quoted = serde_json::to_string(json).unwrap();
    for value in [
        format!("value: |- # why\n            {json}\n"),
        format!("value: >-\n            {json}"),
        format!("value: >\n            {json}\n\n"),
        format!("value: |4\n              {json}"),
        format!("value: {quoted} # why"),
        format!("value: '{json}' # why"),
        "value: '{\"builder\": {\"cluster\": \"b\",\n            \"token_env\": \"T\"}, \"hold_seconds\": 20}'".to_owned(),
        format!("value:\n            {quoted}\n"),
        format!("\"value\": !!str {quoted}"),
        format!("value: &settings {quoted}"),
    ] {
        let file = written(&value);
        let new =
            apply(&file, POLICY, Some(SHADOW)).unwrap_or_else(|error| panic!("{error:#}\n{file}"));
        let expected = json!({"builder": {"cluster": "b", "token_env": "T"}, "hold_seconds": 20,
            "policy": serde_json::from_str::<Value>(POLICY).unwrap(),
            "shadow": serde_json::from_str::<Value>(SHADOW).unwrap()});
        assert_eq!(settings(&new), expected, "{new}");
        assert!(
            new.starts_with("# A comment: value: | is not here.\n"),
            "{new}"
        );
        assert!(new.ends_with("        other: true # kept\n"), "{new}");
        assert_eq!(new.contains("# why"), value.contains("# why"), "{new}");
        assert_eq!(
            apply(&new, POLICY, Some(SHADOW)).unwrap(),
            new,
            "the same again"
        );
    }
}

#[test]
fn a_configuration_in_one_line_stays_one() {
    let json = r#"{"builder": {"cluster": "b", "token_env": "T"}}"#;
    let quoted = serde_json::to_string(json).unwrap();
    let kind = "type.googleapis.com/google.protobuf.StringValue";
    let file = format!(
        "resources: [{{name: nixgate, typedConfig: {{config: {{configuration: {{'@type': {kind}, value: {quoted} }}}}}}}}] # why\n"
    );
    let new = apply(&file, POLICY, None).unwrap();
    assert_eq!(new.lines().count(), 1, "{new}");
    assert!(new.ends_with(" }}}}] # why\n"), "{new}");
    assert_eq!(settings(&new)["policy"]["revision"], "2");
}

#[test]
fn one_of_several_filters_gets_the_policy() {
    let second = FILE.replace("name: nixgate", "name: other");
    let (_, second) = second.split_once("resources:\n").unwrap();
    let file = format!("{FILE}{second}");
    let new = with_policies(&file, "other", POLICY, None).unwrap();
    assert!(new.starts_with(FILE), "{new}");
    assert_ne!(new, file);
    let error = with_policies(&file, "third", POLICY, None).unwrap_err();
    let error = error.to_string();
    assert_eq!(
        error,
        "it has no resource named third, but nixgate, other: give --name the filter's name"
    );
    let twice = file.replace("name: other", "name: nixgate");
    let error = apply(&twice, POLICY, None).unwrap_err().to_string();
    assert!(
        error.contains("more than one resource named nixgate"),
        "{error}"
    );
}

#[test]
fn what_the_filter_would_refuse_is_not_written() {
    let doubled = r#"{"revision":"dup","default":"allow","rules":[{"name":"a","deny":["sqlite"],"deny":["nothing"]}]}"#;
    let opaque = r#"{"revision":"o","default":"deny","rules":[{"name":"a","images":["corp/*"]}]}"#;
    let mapping = written("value: {builder: {cluster: b, token_env: T}}");
    let mapping = mapping.replace("StringValue", "Struct");
    for (file, policy, part) in [
        (FILE, doubled, "duplicate field `deny`"),
        (FILE, opaque, "is in no opaque namespace"),
        (
            &FILE.replace("\"hold_seconds\"", "\"builder\""),
            POLICY,
            "duplicate field `builder`",
        ),
        (&FILE.replace("20", "200"), POLICY, "hold_seconds is 200"),
        (&mapping, POLICY, "the filter can't read anything else"),
        (
            &FILE.replace("StringValue", "BytesValue"),
            POLICY,
            "must be a google.protobuf.StringValue",
        ),
        (
            &FILE.replace("          value: |", "          text: |"),
            POLICY,
            "no `value`",
        ),
        (
            &FILE.replace("        configuration:", "        settings:"),
            POLICY,
            "no `typed_config.config.configuration`",
        ),
        ("a: 1", POLICY, "no list of `resources`"),
        ("a: [", POLICY, "not YAML"),
        (&format!("{FILE}---\n{FILE}"), POLICY, "not YAML"),
    ] {
        let error = format!("{:#}", apply(file, policy, None).unwrap_err());
        assert!(error.contains(part), "{error}");
        let shadow = apply(file, POLICY, Some(policy));
        assert!(shadow.is_err(), "{policy}");
    }
}

#[test]
fn settings_that_are_also_used_elsewhere_are_left_alone() {
    let text = r#""{\"builder\":{\"cluster\":\"b\",\"token_env\":\"T\"}}""#;
    let file = written("value: *settings")
        .replace("resources:", &format!("more: &settings {text}\nresources:"));
    let error = format!("{:#}", apply(&file, POLICY, None).unwrap_err());
    assert!(
        error.contains("must be a google.protobuf.StringValue"),
        "{error}"
    );
    // The other way round, the change would be in both places.
    let file = written(&format!("value: &settings {text}")) + "more: *settings\n";
    let error = format!("{:#}", apply(&file, POLICY, None).unwrap_err());
    assert!(error.contains("cannot change"), "{error}");
}

proptest! {
    /// Whatever a policy says, the file has it, or is left alone.
    #[test]
    fn any_policy_arrives_as_it_is(revision in "[ -~äö\u{2028}\t'\"#:{}\\\\]{0,20}") {
        let policy = json!({"revision": revision, "default": "deny", "rules": []}).to_string();
        let quoted = r#"value: "{\"builder\":{\"cluster\":\"b\",\"token_env\":\"T\"}}" # why"#;
        let files = [
            FILE.to_owned(),
            written(quoted),
        ];
        for file in files {
            if let Ok(new) = apply(&file, &policy, None) {
                prop_assert_eq!(&settings(&new)["policy"]["revision"], &json!(revision), "{}", new);
            } else {
                // The filter's own limits on a revision.
                prop_assert!(nixgate_core::policy::Policy::parse(policy.as_bytes()).is_err());
            }
        }
    }
}
