//! The filter's configuration is delivered while Envoy runs and holds requests.

use std::thread;

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::http::{Connection, get, request};
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{builder, envoy};
use serde_json::json;

const PATH: &str = "/v2/gated/manifests/latest";

#[test]
fn a_change_of_configuration_good_or_bad_loses_no_request_that_is_held() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = envoy::Settings {
            version,
            ..envoy::Settings::default()
        };
        let (stack, set) = Stack::gated(settings, &[])?;
        let port = stack.envoy.port();
        // One connection, open through all changes.
        let mut open = Connection::open(port)?;
        assert_eq!(open.get("/v2/")?.status, StatusCode::OK);
        let mut clients = vec![thread::spawn(move || get(port, PATH))];
        set.wait_for_start()?;
        stack.envoy.wait_until_it_holds(1)?;
        assert!(stack.envoy.deliver(json!({"hold_seconds": 1}))?);
        // A new request is under the new configuration, while the old one is held on.
        let short = request(Method::GET, port, PATH, &[])?;
        assert_eq!(short.status, StatusCode::TEMPORARY_REDIRECT);
        assert!(
            short.header("location").contains("nixgate-since="),
            "{short:?}"
        );
        stack.envoy.wait_until_it_holds(1)?;

        assert!(!stack.envoy.deliver(json!({"hold_seconds": 99}))?);
        assert!(stack.envoy.log().contains("hold_seconds is 99"));
        // The one that was refused changes nothing.
        let short = request(Method::GET, port, PATH, &[])?;
        assert_eq!(short.status, StatusCode::TEMPORARY_REDIRECT);
        stack.envoy.wait_until_it_holds(1)?;

        assert!(stack.envoy.deliver(json!({"hold_seconds": 21}))?);
        clients.push(thread::spawn(move || get(port, PATH)));
        stack.envoy.wait_until_it_holds(2)?;
        set.open()?;
        for client in clients {
            let answer = client.join().expect("the client's thread ends")?;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        }
        assert_eq!(open.get(PATH)?.status, StatusCode::OK);
    }
    Ok(())
}

#[test]
fn an_edge_without_a_good_configuration_says_so_until_it_has_one() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = envoy::Settings {
            version,
            config: EnvoyConfig::standalone().settings(json!({"hold_seconds": 99})),
            ..Default::default()
        };
        let stack = Stack::with(settings, builder::Settings::new)?;
        let failure = stack.get("/v2/")?;
        assert_eq!(failure.status, StatusCode::INTERNAL_SERVER_ERROR);
        let (code, message) = failure.error()?;
        assert_eq!(code, "UNKNOWN");
        assert!(message.contains("hold_seconds is 99"), "{message}");
        assert!(stack.envoy.deliver(json!({"hold_seconds": 20}))?);
        assert_eq!(stack.get("/v2/")?.status, StatusCode::OK);
    }
    Ok(())
}
