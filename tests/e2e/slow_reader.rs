//! A blob on a slow line takes longer than any timeout of the route, and its client pauses. Clients
//! that don't read at all cost Envoy no more than its configuration says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nixgate_core::distribution::Digest;
use nixgate_tests::live::envoy;
use nixgate_tests::live::gated_set::GatedSet;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::raw::Unread;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{poll, raw};
use serde_json::Value;

/// Read at once: `large` takes well over the 28 s of the route's idle timeout.
const BURST: usize = 2 << 20;
/// From one burst to the next. Longer than the second after which Envoy by default cuts off a
/// client that has its connection closed and does not read.
const PAUSE: Duration = Duration::from_secs(2);

/// Connections that don't read, in two ways, and what each asks for. The shipped configurations allow
/// 100 streams.
const CONNECTIONS: [Unread; 4] = [
    Unread::OnTheWay,
    Unread::AtTheServer,
    Unread::OnTheWay,
    Unread::AtTheServer,
];
const ASKED: u32 = 300;
const STREAMS: u64 = 100;
/// What a stream may hold in Envoy: its window (`initial_stream_window_size`), the connection to the
/// builder (`per_connection_buffer_limit_bytes`), and what one more read of each brings.
const HELD: u64 = (64 + 256 + 2 * 16) << 10;
/// What connections, and Envoy's allocator, take besides.
const OVERHEAD: u64 = 32 << 20;
/// So long nothing more has come when Envoy has stopped reading.
const QUIET: Duration = Duration::from_secs(2);

/// The digest and the size of the large layer of `large`.
fn large(stack: &Stack) -> Result<(String, usize)> {
    let manifest = stack.get("/v2/large/manifests/latest")?;
    let manifest: Value = serde_json::from_slice(&manifest.body)?;
    let layers = manifest["layers"].as_array().context("layers")?;
    let layer = layers.iter().max_by_key(|layer| layer["size"].as_u64());
    let layer = layer.context("a layer")?;
    let digest = layer["digest"].as_str().context("a digest")?;
    let size = layer["size"].as_u64().context("a size")?;
    Ok((digest.to_owned(), usize::try_from(size)?))
}

#[test]
fn clients_that_do_not_read_take_no_more_memory_than_the_limits_say() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let envoy = envoy::Settings {
            version,
            ..envoy::Settings::default()
        };
        let stack = Stack::with(envoy, |state| GatedSet::write(state)?.settings(state))?;
        let (digest, _) = large(&stack)?;
        let envoy = &stack.envoy;
        let before = envoy.resident_bytes()?;
        let path = format!("/v2/large/blobs/{digest}");
        let connections = CONNECTIONS
            .iter()
            .map(|unread| raw::unread_http2(envoy.port(), &path, ASKED, *unread))
            .collect::<Result<Vec<_>>>()?;

        let streams = CONNECTIONS.len() as u64 * STREAMS;
        let bound = before + streams * HELD + OVERHEAD;
        envoy.wait_until_it_holds(streams)?;
        let received = || envoy.stat("nixgate_builder.upstream_cx_rx_bytes_total");
        let mut last = (received()?, Instant::now());
        poll::until("Envoy reads no more, or has too much", || {
            let (now, peak) = (received().ok()?, envoy.resident_bytes().ok()?);
            if now != last.0 {
                last = (now, Instant::now());
            }
            (peak > bound || last.1.elapsed() > QUIET).then_some(())
        })?;
        let peak = envoy.resident_bytes()?;
        let mib = |bytes: u64| bytes >> 20;
        println!(
            "Envoy {version}: {} MiB, with {streams} streams unread {} MiB, at most {} MiB",
            mib(before),
            mib(peak),
            mib(bound)
        );
        assert!(peak < bound, "{before} → {peak}, at most {bound} bytes");

        // Others are served meanwhile, and nobody waits for ever for a reader.
        assert_eq!(large(&stack)?.0, digest);
        envoy.wait_until_it_holds(0)?;
        drop(connections);
    }
    Ok(())
}

#[test]
fn a_blob_that_is_read_slowly_arrives_whole() -> Result<()> {
    let stack = Stack::with(envoy::Settings::default(), |state| {
        GatedSet::write(state)?.settings(state)
    })?;
    let (digest, size) = large(&stack)?;
    ensure!(size > 20 * BURST, "{size} bytes are read too soon");

    let mut stream = TcpStream::connect(("127.0.0.1", stack.envoy.port()))?;
    // One request for each connection, as podman and skopeo ask.
    write!(
        stream,
        "GET /v2/large/blobs/{digest} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n"
    )?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line != "\r\n" {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "the headers break off");
    }
    let mut blob = vec![0; size];
    let start = Instant::now();
    for (burst, piece) in (0_u32..).zip(blob.chunks_mut(BURST)) {
        thread::sleep((PAUSE * burst).saturating_sub(start.elapsed()));
        stream
            .read_exact(piece)
            .with_context(|| format!("the blob breaks off in the burst {burst}"))?;
    }
    assert_eq!(Digest::of(&blob).to_string(), digest);
    Ok(())
}
