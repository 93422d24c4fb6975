//! Parts of blobs, and conditions: through Envoy, from a folder and from S3.

use std::fmt::Write as _;
use std::ops::Range;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use nixgate_tests::live::builder::Settings;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::envoy;
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::process::run;
use nixgate_tests::live::s3::S3;
use nixgate_tests::live::scratch;
use nixgate_tests::live::stack::Stack;
use serde_json::Value;

const IMAGE: &str = "/v2/shell/hello";

/// The largest blob of an image, and what it is to be.
struct Blob {
    path: String,
    digest: String,
    content: Bytes,
}

impl Blob {
    /// Reads it without Envoy and storage.
    fn largest(stack: &Stack, folder: &std::path::Path) -> Result<Self> {
        let manifest = stack.get(&format!("{IMAGE}/manifests/latest"))?;
        let manifest: Value = serde_json::from_slice(&manifest.body)?;
        let layers = manifest["layers"].as_array().context("no layers")?;
        let layer = layers.iter().max_by_key(|layer| layer["size"].as_u64());
        let digest = layer.context("no layer")?["digest"].as_str();
        let digest = digest.context("no digest")?.to_owned();
        let file = folder
            .join("layers")
            .join(digest.trim_start_matches("sha256:"));
        let content = std::fs::read(&file).with_context(|| file.display().to_string())?;
        ensure!(content.len() > 200_000, "a small blob: {}", content.len());
        Ok(Self {
            path: format!("{IMAGE}/blobs/{digest}"),
            digest,
            content: content.into(),
        })
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.digest)
    }

    fn size(&self) -> usize {
        self.content.len()
    }

    fn ask(&self, stack: &Stack, headers: &[(&str, &str)]) -> Result<Response> {
        request(Method::GET, stack.envoy.port(), &self.path, headers)
    }
}

/// The parts of a body, each with its `Content-Range`, as a client reads them: from boundary to
/// boundary.
fn parts(answer: &Response) -> Result<Vec<(String, Bytes)>> {
    let content_type = answer.header("content-type");
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.with_context(|| format!("not in parts: {content_type:?}"))?;
    let (first, next) = (format!("--{boundary}\r\n"), format!("\r\n--{boundary}"));
    let find = |from: usize, what: &str| {
        let rest = answer.body.get(from..).unwrap_or_default();
        let found = rest
            .windows(what.len())
            .position(|bytes| bytes == what.as_bytes());
        found
            .map(|at| from + at)
            .with_context(|| format!("no {what:?}"))
    };
    ensure!(
        answer.body.starts_with(first.as_bytes()),
        "no first boundary"
    );
    let (mut parts, mut at) = (Vec::new(), first.len());
    loop {
        let content = find(at, "\r\n\r\n")? + 4;
        let head = String::from_utf8(answer.body[at..content].to_vec())?;
        let mut lines = head.lines();
        let range = lines.find_map(|line| line.strip_prefix("Content-Range: bytes "));
        let end = find(content, &next)?;
        let range = range.context("a part without its range")?.to_owned();
        parts.push((range, answer.body.slice(content..end)));
        at = end + next.len();
        if answer.body[at..].starts_with(b"--\r\n") {
            ensure!(answer.body.len() == at + 4, "something is behind the end");
            return Ok(parts);
        }
        at += "\r\n".len();
    }
}

fn assert_parts(blob: &Blob, answer: &Response, ranges: &[Range<usize>]) -> Result<()> {
    assert_eq!(
        answer.status,
        StatusCode::PARTIAL_CONTENT,
        "{}",
        answer.text()
    );
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    assert!(!answer.headers.contains_key("content-range"));
    assert!(!answer.headers.contains_key("nixgate-facts"));
    let expected: Vec<_> = ranges
        .iter()
        .map(|range| {
            let (first, last, size) = (range.start, range.end - 1, blob.size());
            (
                format!("{first}-{last}/{size}"),
                blob.content.slice(range.clone()),
            )
        })
        .collect();
    assert!(parts(answer)? == expected, "other parts than {ranges:?}");
    Ok(())
}

fn header(ranges: &[Range<usize>]) -> String {
    let mut header = "bytes=".to_owned();
    for (place, range) in ranges.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(header, "{comma}{}-{}", range.start, range.end - 1);
    }
    header
}

/// As many ranges as podman asks for in one request: gaps between some, none between others.
fn as_podman_asks(size: usize) -> Vec<Range<usize>> {
    let step = size / 1024;
    let range = |place: usize| {
        let start = place * step;
        start
            ..start
                + if place.is_multiple_of(3) {
                    step
                } else {
                    step / 2
                }
    };
    (0..1024).map(range).collect()
}

fn assert_several(stack: &Stack, blob: &Blob) -> Result<()> {
    for ranges in [
        vec![0..10, 1000..1010],
        vec![100_000..150_000, 0..1, 70_000..90_000],
        as_podman_asks(blob.size()),
    ] {
        let answer = blob.ask(stack, &[("range", &header(&ranges))])?;
        assert_parts(blob, &answer, &ranges)?;
    }
    // What overlaps is sent once; what there is not is left out.
    let header = format!("bytes=5-19,1000-1009,0-9,{}-", blob.size());
    let answer = blob.ask(stack, &[("range", &header)])?;
    assert_parts(blob, &answer, &[0..20, 1000..1010])?;
    let answer = blob.ask(stack, &[("range", "bytes=5-19,0-9")])?;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(
        answer.header("content-range"),
        format!("bytes 0-19/{}", blob.size())
    );
    assert_eq!(answer.body, blob.content.slice(..20));
    Ok(())
}

/// More than may be asked for: the whole is sent.
fn too_many() -> String {
    header(
        &(0..1025)
            .map(|place| place * 9..place * 9 + 1)
            .collect::<Vec<_>>(),
    )
}

#[test]
fn several_ranges_of_a_blob_in_a_folder_come_in_one_answer() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = envoy::Settings {
            version,
            ..Default::default()
        };
        let stack = Stack::with(settings, Settings::new)?;
        let blob = Blob::largest(&stack, &stack.state().join("storage"))?;
        assert_several(&stack, &blob)?;
        let whole = blob.ask(&stack, &[("range", &too_many())])?;
        assert_eq!(whole.status, StatusCode::OK);
        assert!(whole.body == blob.content);
        // A client of its own mind about what it sends.
        let url = format!("http://127.0.0.1:{}{}", stack.envoy.port(), blob.path);
        let said = run(Command::new("curl").args([
            "--disable",
            "--noproxy",
            "*",
            "--silent",
            "--range",
            "0-4,100-104",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code} %{content_type}",
            &url,
        ]))?;
        let boundary = blob.digest.trim_start_matches("sha256:");
        assert_eq!(
            said,
            format!("206 multipart/byteranges; boundary={boundary}")
        );
    }
    Ok(())
}

#[test]
fn several_ranges_of_a_blob_in_s3_come_from_the_builder_and_all_else_from_s3() -> Result<()> {
    let objects = scratch::folder("s3-")?;
    let s3 = S3::start(objects.path())?;
    let stack = Stack::with(envoy::Settings::default(), |state| {
        Ok(s3.settings(Settings::new(state)?))
    })?;
    let blob = Blob::largest(&stack, &objects.path().join("images"))?;
    let before = s3.seen().len();
    let ranges = [0..10, 1000..1010, 5000..5001];
    let answer = blob.ask(&stack, &[("range", &header(&ranges))])?;
    assert_parts(&blob, &answer, &ranges)?;
    // Read by the builder, a part at a time.
    let seen = s3.seen();
    let mut read = seen[before..].iter().filter(|seen| seen.status == 206);
    assert!(read.clone().all(|seen| !seen.presigned), "{seen:?}");
    assert_eq!(read.by_ref().count(), ranges.len(), "{seen:?}");
    assert_several(&stack, &blob)?;
    // Where S3 does as well, there they are sent.
    for headers in [
        &[][..],
        &[("range", "bytes=0-9")],
        &[("range", "bytes=0-,")],
        &[("range", &too_many())],
        &[("range", "bytes=0-9,1000-1009"), ("if-range", "\"x\"")],
        &[("if-none-match", &blob.etag())],
    ] {
        let answer = blob.ask(&stack, headers)?;
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT, "{headers:?}");
        let location = answer.header("location");
        assert!(
            location.starts_with("http://localhost:"),
            "{headers:?}: {location}"
        );
    }
    let head = [("range", "bytes=0-9,1000-1009")];
    let head = request(Method::HEAD, stack.envoy.port(), &blob.path, &head)?;
    assert_eq!(head.status, StatusCode::TEMPORARY_REDIRECT);
    // And a client that asks for no part is served as ever.
    Podman::new()?.pull(&stack.image("shell/hello"))
}

#[test]
fn conditions_and_ranges_are_answered_as_the_rfc_says() -> Result<()> {
    let stack = Stack::start()?;
    let blob = Blob::largest(&stack, &stack.state().join("storage"))?;
    let (etag, size) = (blob.etag(), blob.size());
    let (this, other) = (etag.as_str(), "\"sha256:0\"");
    let (part, beyond) = (("range", "bytes=2-5"), format!("bytes={size}-"));
    let beyond = ("range", beyond.as_str());
    for (headers, status) in [
        (&[][..], 200),
        (&[part], 206),
        (&[beyond], 416),
        (&[("if-range", this), part], 206),
        (&[("if-range", other), part], 200),
        (&[("if-range", other), beyond], 200),
        (&[("if-match", this), part], 206),
        (&[("if-match", other), part], 412),
        (&[("if-none-match", this), part], 304),
        (&[("if-none-match", other), part], 206),
        (&[("if-match", other), ("if-none-match", this)], 412),
        (
            &[("if-modified-since", "Sun, 06 Nov 2094 08:49:37 GMT")],
            200,
        ),
    ] {
        let answer = blob.ask(&stack, headers)?;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
        match status {
            200 => assert!(answer.body == blob.content),
            206 => assert_eq!(answer.body, blob.content.slice(2..6)),
            304 => assert!(answer.body.is_empty()),
            _ => {
                let (code, message) = answer.error()?;
                assert!(!code.is_empty() && message.contains(' '), "{message}");
            }
        }
        if status < 400 {
            assert_eq!(answer.header("etag"), this, "{headers:?}");
        }
        // HEAD says what the whole would be, whatever part is asked for.
        let head = request(Method::HEAD, stack.envoy.port(), &blob.path, headers)?;
        let expected = if matches!(status, 206 | 416) {
            200
        } else {
            status
        };
        assert_eq!(head.status, expected, "HEAD {headers:?}");
        if expected == 200 {
            assert_eq!(head.header("content-length"), size.to_string());
            assert_eq!(head.header("accept-ranges"), "bytes");
        }
    }
    let answer = blob.ask(&stack, &[beyond])?;
    assert_eq!(answer.header("content-range"), format!("bytes */{size}"));
    let (code, message) = answer.error()?;
    assert_eq!(code, "SIZE_INVALID");
    assert!(message.contains(&size.to_string()), "{message}");
    Ok(())
}
