//! What Envoy tells of the filter's work: statistics and access log.

use std::fs;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::envoy_config::{self, BUILDER, EnvoyConfig};
use nixgate_tests::live::admin::Admin;
use nixgate_tests::live::http::request;
use nixgate_tests::live::install::{self, ENVOY_VERSIONS};
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{builder, envoy, poll, ports, scratch};

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
            r#"nixgate_edge_requests_total{nixgate_registry="nixgate",nixgate_route="manifest",nixgate_outcome="miss"} 1"#,
            r#"nixgate_edge_requests_total{nixgate_registry="nixgate",nixgate_route="manifest",nixgate_outcome="hit"} 2"#,
            r#"nixgate_edge_requests_total{nixgate_registry="nixgate",nixgate_route="other",nixgate_outcome="refused"} 1"#,
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
                .contains("nixgate_edge_callout_ms_count{nixgate_registry=\"nixgate\"} 1")
                .then_some(())
        })?;
        // One manifest, whichever workers were asked for it.
        let statistics = stack.envoy.prometheus()?;
        assert!(
            statistics.contains("nixgate_edge_cache_slots{nixgate_registry=\"nixgate\"} 1"),
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

#[test]
fn the_listener_for_prometheus_shows_statistics_and_nothing_else() -> Result<()> {
    let page = fs::read_to_string(install::root().join("docs/src/settings.md"))?;
    let block = |part: &str| {
        let mut blocks = page
            .split("```yaml\n")
            .skip(1)
            .filter_map(|it| it.split("```").next());
        blocks
            .find(|block| block.contains(part))
            .map(envoy_config::parse)
            .context(part.to_owned())
    };
    let folder = scratch::folder("statistics-")?;
    for version in ENVOY_VERSIONS {
        let (admin, port) = (Admin::new()?, ports::free()?);
        let file = EnvoyConfig::standalone()
            .listeners(block("name: statistics")?)
            .more_clusters(block("name: envoy_admin")?)
            .module(&install::filter()?)
            .listen(0, ports::free()?)
            .listen(1, port)
            .upstream(BUILDER, ports::free()?)
            .upstream_socket("envoy_admin", admin.socket())
            .admin(admin.socket())
            .write(folder.path())?;
        let log = file.with_extension("log");
        let _envoy = envoy::launch(version, 1, &file, &admin, &log)?;
        let ask = |method, path: &str| request(method, port, path, &[]);
        let statistics = ask(Method::GET, "/stats/prometheus")?;
        assert!(statistics.text().contains("envoy_server_live{} 1"));
        for path in [
            "/config_dump",
            "/stats",
            "/",
            "/quitquitquit",
            "/stats/prometheus/../config_dump",
        ] {
            for method in [Method::GET, Method::POST] {
                let answer = ask(method, path)?;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
            }
        }
        assert_eq!(admin.get("/ready")?.status, StatusCode::OK);
    }
    Ok(())
}
