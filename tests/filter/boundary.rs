//! Where the filter ends: requests that it leaves alone, requests that it answers alone, and what
//! the module wants of its host.

use nixgate_tests::wasm_host::{Outcome, module_bytes, module_exports, module_imports};

use crate::support::*;

#[test]
fn requests_for_others_pass_unchanged() {
    let (mut host, root) = edge();
    let headers = [
        (":method", "POST"),
        (":path", "/v2x/login?to=/v2/"),
        (":authority", "registry"),
        ("authorization", "Bearer x"),
        ("cookie", "session=1"),
    ];
    let stream = host.request(root, &headers);
    let expected = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    assert_eq!(host.outcome(stream), Outcome::Continued(expected.into()));
    assert!(host.callouts().is_empty());
}

#[test]
fn nobody_brings_the_builders_token_along() {
    let (mut host, root) = edge();
    let stream = host.request(
        root,
        &[
            (":method", "GET"),
            (":path", "/elsewhere"),
            (":authority", "registry"),
            ("nixgate-token", TOKEN),
            ("nixgate-token", "another"),
        ],
    );
    let Outcome::Continued(headers) = host.outcome(stream) else {
        panic!("not for the registry")
    };
    assert!(
        headers.iter().all(|(name, _)| name != "nixgate-token"),
        "{headers:?}"
    );
}

#[test]
fn headers_that_are_not_text_are_no_reason_to_panic() {
    let (mut host, root) = edge();
    host.get(root, GIT);
    let callout = host.callout();
    let mut response = manifest(b"{}");
    response
        .headers
        .push(("x-odd".to_owned(), vec![0xff, 0xfe]));
    host.respond(&callout, response);

    for (path, accept, status) in [
        (GIT.as_bytes(), b"\xff", 200),
        (b"/v2/g\xfft/manifests/latest", b"*", 400),
    ] {
        let headers: [(&str, &[u8]); 3] =
            [(":method", b"GET"), (":path", path), ("accept", accept)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_vec()));
        let stream = host.request_bytes(root, headers.into());
        assert_eq!(host.reply(stream).status, status);
    }
}

/// Beyond the first block, which the filter calls, these are functions that the SDK's traits
/// refer to. Envoy 1.36 to 1.40 has all of them; none reaches a file or a socket.
const IMPORTS: [&str; 40] = [
    "env.proxy_continue_stream",
    "env.proxy_define_metric",
    "env.proxy_dequeue_shared_queue",
    "env.proxy_enqueue_shared_queue",
    "env.proxy_get_buffer_bytes",
    "env.proxy_get_current_time_nanoseconds",
    "env.proxy_get_header_map_pairs",
    "env.proxy_get_property",
    "env.proxy_get_shared_data",
    "env.proxy_http_call",
    "env.proxy_increment_metric",
    "env.proxy_log",
    "env.proxy_record_metric",
    "env.proxy_register_shared_queue",
    "env.proxy_remove_header_map_value",
    "env.proxy_replace_header_map_value",
    "env.proxy_send_local_response",
    "env.proxy_set_effective_context",
    "env.proxy_set_property",
    "env.proxy_set_shared_data",
    "env.proxy_set_tick_period_milliseconds",
    "wasi_snapshot_preview1.environ_get",
    "wasi_snapshot_preview1.environ_sizes_get",
    "wasi_snapshot_preview1.fd_write",
    "wasi_snapshot_preview1.proc_exit",
    "wasi_snapshot_preview1.random_get",
    // Of the SDK alone:
    "env.proxy_add_header_map_value",
    "env.proxy_call_foreign_function",
    "env.proxy_close_stream",
    "env.proxy_done",
    "env.proxy_get_header_map_value",
    "env.proxy_get_status",
    "env.proxy_grpc_call",
    "env.proxy_grpc_cancel",
    "env.proxy_grpc_close",
    "env.proxy_grpc_send",
    "env.proxy_grpc_stream",
    "env.proxy_resolve_shared_queue",
    "env.proxy_set_buffer_bytes",
    "env.proxy_set_header_map_pairs",
];

#[test]
fn the_module_wants_nothing_of_its_host_but_what_is_listed() {
    let mut allowed = IMPORTS;
    allowed.sort_unstable();
    assert_eq!(module_imports(), allowed);
}

/// `filter/wasm-ld.sh` leaves these of the SDK. Envoy calls whatever is here, the last three for
/// every request.
const EXPORTS: [&str; 11] = [
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_configure",
    "proxy_on_http_call_response",
    "proxy_on_memory_allocate",
    "proxy_on_queue_ready",
    "proxy_on_tick",
    "proxy_on_vm_start",
    "proxy_on_context_create",
    "proxy_on_request_headers",
    "proxy_on_delete",
];

#[test]
fn the_module_is_called_for_nothing_but_what_is_listed() {
    let mut expected = EXPORTS;
    expected.sort_unstable();
    assert_eq!(module_exports(), expected);
}

#[test]
fn the_module_stays_small() {
    let size = module_bytes().len();
    println!("the filter's module has {size} bytes");
    assert!(
        size < 700_000,
        "{size} bytes: each of Envoy's workers compiles all of them"
    );
}
