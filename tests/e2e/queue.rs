//! More images than the builder takes on.

use std::thread;

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_tests::live::envoy;
use nixgate_tests::live::http::{get, request};
use nixgate_tests::live::stack::Stack;

#[test]
fn one_image_too_many_is_refused_at_once_and_those_in_the_queue_are_not() -> Result<()> {
    const GATED: &str = "/v2/gated/manifests/latest";
    const OTHER: &str = "/v2/cacert/manifests/latest";
    let (stack, set) = Stack::gated(envoy::Settings::default(), &[("NIXGATE_MAX_QUEUE", "1")])?;
    let port = stack.envoy.port();

    let first = thread::spawn(move || get(port, GATED));
    set.wait_for_start()?;
    // Each is answered by the builder: a refusal for now is not cached.
    for _ in 0..2 {
        let refused = request(Method::GET, port, OTHER, &[])?;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.error()?.0, "TOOMANYREQUESTS");
        assert!(refused.header("retry-after").parse::<u32>().is_ok());
    }
    let refusals = ["route=\"manifest\"", "status=\"429\""];
    assert_eq!(
        stack.builder.counter("nixgate_requests_total", &refusals)?,
        2
    );
    let joined = thread::spawn(move || get(port, "/v2/gated/cacert/manifests/latest"));
    stack.envoy.wait_until_it_holds(2)?;
    set.open()?;
    for client in [first, joined] {
        let answer = client.join().expect("the client's thread ends")?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    assert_eq!(get(port, OTHER)?.status, StatusCode::OK);
    Ok(())
}
