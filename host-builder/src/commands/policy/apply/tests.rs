use std::os::unix::fs::{PermissionsExt as _, symlink};

use expect_test::expect;

use super::*;

const FILE: &str = r#"# A comment: value: | is not here.
resources:
  - name: nixgate
    typed_config:
      configuration:
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
      other: true
"#;

const POLICY: &str = "{\n  \"revision\": \"2\",\n\n  \"default\": \"deny\",\n  \"rules\": [\n    { \"name\": \"a\", \"allow\": [\"git\"] }\n  ]\n}";

#[test]
fn a_policy_takes_the_place_of_the_old_one_as_it_is_written() {
    let with = |shadow| with_policies(FILE, POLICY, shadow).unwrap();
    expect![[r#"
        # A comment: value: | is not here.
        resources:
          - name: nixgate
            typed_config:
              configuration:
                value: |
                  {
                    "builder": { "cluster": "b", "token_env": "T" },
                    "policy": {
                      "revision": "2",
                      "default": "deny",
                      "rules": [
                        { "name": "a", "allow": ["git"] }
                      ]
                    },
                    "hold_seconds": 20
                  }
              other: true
    "#]]
    .assert_eq(&with(None));
    // The same again changes nothing, and the one on trial comes and goes.
    let once = with(None);
    assert_eq!(with_policies(&once, POLICY, None).unwrap(), once);
    let shadowed = with(Some(r#"{"revision":"3","default":"allow","rules":[]}"#));
    assert!(shadowed.contains(
        "            \"shadow\": {\"revision\":\"3\",\"default\":\"allow\",\"rules\":[]}\n"
    ));
    assert_eq!(with_policies(&shadowed, POLICY, None).unwrap(), once);
    // Where there was none, and where lines end as they do on Windows.
    let none = FILE.replace("\"policy\"", "\"shadow\"");
    let policy = POLICY.replace('\n', "\r\n");
    let first = with_policies(&none, &policy, None).unwrap();
    assert!(!first.contains('\r') && first.contains("\"revision\": \"2\","));
}

#[test]
fn what_the_filter_would_refuse_is_not_written() {
    let doubled = r#"{"revision":"dup","default":"allow","rules":[{"name":"a","deny":["sqlite"],"deny":["nothing"]}]}"#;
    let opaque = r#"{"revision":"o","default":"deny","rules":[{"name":"a","images":["corp/*"]}]}"#;
    for (file, policy, part) in [
        (FILE, doubled, "duplicate field `deny`"),
        (FILE, opaque, "is in no opaque namespace"),
        (
            &FILE.replace("\"hold_seconds\"", "\"builder\""),
            POLICY,
            "duplicate field `builder`",
        ),
        (&FILE.replace("20", "200"), POLICY, "hold_seconds is 200"),
        (
            &FILE.replace("value: |", "value: >"),
            POLICY,
            "one line `value: |`",
        ),
        (&format!("{FILE}{FILE}"), POLICY, "one line `value: |`"),
    ] {
        let error = format!("{:#}", with_policies(file, policy, None).unwrap_err());
        assert!(error.contains(part), "{error}");
        let shadow = with_policies(file, POLICY, Some(policy));
        assert!(shadow.is_err(), "{policy}");
    }
}

#[test]
fn envoys_administration_is_at_an_address_or_a_socket() {
    for (text, admin) in [
        (
            "127.0.0.1:9901",
            Some(Admin::Tcp("127.0.0.1:9901".to_owned())),
        ),
        ("[::1]:9901", Some(Admin::Tcp("[::1]:9901".to_owned()))),
        ("unix:a/b.sock", Some(Admin::Unix("a/b.sock".into()))),
        ("http://127.0.0.1:9901", None),
        ("127.0.0.1", None),
        (":9901", None),
        ("/run/envoy.sock", None),
    ] {
        assert_eq!(text.parse().ok(), admin, "{text}");
        if let Some(admin) = admin {
            assert_eq!(admin.to_string(), text);
        }
    }
}

#[test]
fn a_replaced_file_keeps_its_mode_and_no_symlink_beside_it_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let [file, other] = ["filter.yaml", "other"].map(|name| folder.path().join(name));
    fs::write(&other, "other").unwrap();
    symlink(&other, folder.path().join("filter.yaml.new")).unwrap();
    for mode in [0o640, 0o604] {
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        replace(&file, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        let found = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode);
    }
    assert_eq!(fs::read_to_string(&other).unwrap(), "other");
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 3, "nothing is left behind");
}
