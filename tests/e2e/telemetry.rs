//! What Envoy tells of the filter's work: statistics and access log.

use anyhow::Result;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{builder, envoy, poll};

#[test]
fn statistics_and_access_log_say_what_became_of_each_request() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = envoy::Settings {
            version,
            ..envoy::Settings::default()
        };
        let stack = Stack::with(settings, builder::Settings::new)?;
        let path = "/v2/hello/manifests/latest";
        for _ in 0..3 {
            stack.digest("hello")?;
        }
        stack.get("/v2/Hello/manifests/latest")?;
        for line in [
            r#"nixgate_edge_requests_total{nixgate_route="manifest",nixgate_outcome="miss"} 1"#,
            r#"nixgate_edge_requests_total{nixgate_route="manifest",nixgate_outcome="hit"} 2"#,
            r#"nixgate_edge_requests_total{nixgate_route="other",nixgate_outcome="refused"} 1"#,
        ] {
            // Repeated answers are counted once a second.
            poll::until(&format!("the statistics say {line}"), || {
                let statistics = stack.envoy.prometheus().ok()?;
                statistics.lines().any(|one| one == line).then_some(())
            })?;
        }
        // Histograms are merged every few seconds.
        poll::until("the callout's duration is there", || {
            let statistics = stack.envoy.prometheus().ok()?;
            statistics
                .contains("nixgate_edge_callout_ms_count{} 1")
                .then_some(())
        })?;
        // One manifest, whichever workers were asked for it.
        let statistics = stack.envoy.prometheus()?;
        assert!(
            statistics.contains("nixgate_edge_cache_slots{} 1"),
            "{statistics}"
        );
        for outcome in ["miss", "hit"] {
            poll::until(&format!("the access log says {outcome}"), || {
                let mut lines = stack.envoy.access_log().into_iter();
                // Without a policy, neither its revision nor a rule.
                let said = lines.any(|line| {
                    line["path"] == path
                        && line["outcome"] == outcome
                        && line["image"] == "cacert/hello/iana-etc"
                        && line["policy"].is_null()
                        && line["rule"].is_null()
                });
                said.then_some(())
            })?;
        }
    }
    Ok(())
}
