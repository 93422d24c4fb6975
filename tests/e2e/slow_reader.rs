//! A blob on a slow line takes longer than any timeout of the route, and its client pauses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nixgate_core::distribution::Digest;
use nixgate_tests::live::envoy;
use nixgate_tests::live::gated_set::GatedSet;
use nixgate_tests::live::stack::Stack;
use serde_json::Value;

/// Read at once: `large` takes well over the 28 s of the route's idle timeout.
const BURST: usize = 2 << 20;
/// From one burst to the next. Longer than the second after which Envoy by default cuts off a
/// client that has its connection closed and does not read.
const PAUSE: Duration = Duration::from_secs(2);

#[test]
fn a_blob_that_is_read_slowly_arrives_whole() -> Result<()> {
    let stack = Stack::with(envoy::Settings::default(), |state| {
        GatedSet::write(state)?.settings(state)
    })?;
    let manifest = stack.get("/v2/large/manifests/latest")?;
    let manifest: Value = serde_json::from_slice(&manifest.body)?;
    let layers = manifest["layers"].as_array().context("layers")?;
    let layer = layers.iter().max_by_key(|layer| layer["size"].as_u64());
    let layer = layer.context("a layer")?;
    let digest = layer["digest"].as_str().context("a digest")?;
    let size = usize::try_from(layer["size"].as_u64().context("a size")?)?;
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
