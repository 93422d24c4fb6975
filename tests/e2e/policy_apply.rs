//! `nixgate policy apply` on a running Envoy, for a filter of another name and settings in all spellings.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use nixgate_tests::envoy_config::{EnvoyConfig, parse};
use nixgate_tests::live::admin::Admin;
use nixgate_tests::live::envoy::launch;
use nixgate_tests::live::install::{self, ENVOY_VERSIONS};
use nixgate_tests::live::{poll, ports, scratch};
use serde_json::json;

/// The settings, as each spelling has them, with a policy's revision in place of `REVISION`.
const SPELLINGS: [(&str, &str); 3] = [
    (
        "StringValue",
        "|-\n            {\"builder\": BUILDER,\n             \"policy\": POLICY}",
    ),
    (
        "StringValue",
        ">\n            {\"builder\": BUILDER,\n            \"policy\": POLICY}",
    ),
    (
        "StringValue",
        "'{\"builder\": BUILDER, \"policy\": POLICY}' # kept",
    ),
];

#[test]
fn a_policy_reaches_a_filter_of_any_name_however_its_settings_are_written() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let state = scratch::folder("apply-")?;
        let admin = Admin::new()?;
        let config = EnvoyConfig::standalone()
            .module(&install::filter()?)
            .listen(0, ports::free()?)
            .admin(admin.socket());
        let envoy_yaml = config.write(state.path())?;
        let mut envoy = parse(&fs::read_to_string(&envoy_yaml)?);
        let name = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/name";
        *envoy.pointer_mut(name).context("the filter")? = json!("edge");
        fs::write(&envoy_yaml, envoy.to_string())?;
        let filter_yaml = state.path().join("filter.yaml");
        let file = |spelling: (&str, &str), revision: &str| -> Result<String> {
            let (kind, value) = spelling;
            let value = value
                .replace(
                    "BUILDER",
                    r#"{"cluster": "nixgate_builder", "token_env": "NIXGATE_TOKEN"}"#,
                )
                .replace(
                    "POLICY",
                    r#"{"revision": "REVISION", "default": "allow", "rules": []}"#,
                )
                .replace("REVISION", revision);
            Ok(format!(
                r#"# kept
resources:
  - "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
    name: edge
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
      config:
        configuration:
          "@type": type.googleapis.com/google.protobuf.{kind}
          value: {value}
        vm_config:
          vm_id: nixgate
          runtime: envoy.wasm.runtime.v8
          code: {{ local: {{ filename: {} }} }}
          environment_variables: {{ host_env_keys: [NIXGATE_TOKEN] }}
"#,
                install::filter()?.display()
            ))
        };
        fs::write(&filter_yaml, file(SPELLINGS[0], "first")?)?;
        let log = state.path().join("envoy.log");
        let envoy = launch(version, 1, &envoy_yaml, &admin, &log)?;
        let uses = |revision: &str| {
            // At the end of a line of JSON.
            let line = format!("policy {revision}\"");
            poll::until(&format!("the filter has the policy {revision}"), || {
                envoy.log().contains(&line).then_some(())
            })
        };
        uses("first")?;
        for (index, spelling) in SPELLINGS.into_iter().enumerate() {
            let [old, new] = ["old", "new"].map(|which| format!("{which}-{index}"));
            let text = file(spelling, &old)?;
            let next = filter_yaml.with_extension("next");
            fs::write(&next, &text)?;
            fs::rename(&next, &filter_yaml)?;
            uses(&old)?;
            let policy = state.path().join("policy.json");
            let json = json!({"revision": new, "default": "deny", "rules": []});
            fs::write(&policy, format!("{json:#}"))?;
            let output = Command::new(install::builder()?)
                .args(["policy", "apply", "--name", "edge", "--filter"])
                .arg(&filter_yaml)
                .args(["--admin", &format!("unix:{}", admin.socket().display())])
                .arg(&policy)
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}\n{text}");
            uses(&new)?;
            let found = fs::read_to_string(&filter_yaml)?;
            assert!(!found.contains(&old), "{found}");
            let kept = |text: &str| text.matches("# kept").count();
            assert_eq!(kept(&found), kept(&text), "{found}");
        }
        // What the filter alone knows to be wrong: Envoy lacks the variable.
        let text = file(SPELLINGS[0], "old")?.replace("\"NIXGATE_TOKEN\"", "\"NOT_SET\"");
        fs::write(&filter_yaml, &text)?;
        let output = Command::new(install::builder()?)
            .args(["policy", "apply", "--name", "edge", "--filter"])
            .arg(&filter_yaml)
            .args(["--admin", &format!("unix:{}", admin.socket().display())])
            .arg(state.path().join("policy.json"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("the filter refuses the policy"), "{said}");
        assert!(!output.status.success());
        assert_eq!(fs::read_to_string(&filter_yaml)?, text);
        // A name that Envoy does not know changes nothing.
        let before = fs::read_to_string(&filter_yaml)?;
        let output = Command::new(install::builder()?)
            .args(["policy", "apply", "--filter"])
            .arg(&filter_yaml)
            .args(["--admin", &format!("unix:{}", admin.socket().display())])
            .arg(state.path().join("policy.json"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("no resource named nixgate, but edge"),
            "{said}"
        );
        assert!(!output.status.success());
        assert_eq!(fs::read_to_string(&filter_yaml)?, before);
    }
    Ok(())
}
