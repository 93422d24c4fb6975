//! Blobs that the builder says are somewhere, and are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use http::{Method, StatusCode};
use nixgate_core::distribution::Digest;
use nixgate_tests::live::http::request;
use nixgate_tests::live::stub_builder::{Act, Asked, MARK, head, response};

use super::{on_each_envoy, served, unavailable};

#[test]
fn blobs_that_are_nowhere_are_told() -> Result<()> {
    let script = |asked: &Asked| {
        Act::Send(match asked.package() {
            "nowhere" => response("307 Oh", &[MARK], b""),
            "empty" => response("307 Oh", &[MARK, ("location", "")], b""),
            "hostless" => response("307 Oh", &[MARK, ("location", "http:///x")], b""),
            "relative" => response("307 Oh", &[MARK, ("location", "/x")], b""),
            "unmarked" => response("307 Oh", &[("location", "http://localhost/")], b""),
            "unmarked-stream" => response("204 Oh", &[], b""),
            "whole" => response("200 Oh", &[MARK], b"the blob"),
            _ => response("206 Oh", &[MARK], b"the"),
        })
    };
    on_each_envoy(script, |edge| {
        for package in [
            "nowhere",
            "empty",
            "hostless",
            "relative",
            "unmarked",
            "unmarked-stream",
            "whole",
            "part",
        ] {
            let digest = Digest::of(b"the blob");
            let path = format!("/v2/{package}/blobs/{digest}");
            for method in [Method::GET, Method::HEAD] {
                let answer = request(method.clone(), edge.envoy.port(), &path, &[])?;
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{package}");
                if method == Method::GET {
                    unavailable(&answer, "is unavailable").context(package)?;
                }
            }
        }
        Ok(())
    })
}

/// The builder is asked where the blob is, says that it streams it, and then does not.
#[test]
fn a_blob_that_breaks_off_is_not_taken_for_whole() -> Result<()> {
    let blob = b"the blob";
    let streams = Arc::new(AtomicU64::new(0));
    let script = move |asked: &Asked| {
        if asked.prefers_minimal {
            return Act::Send(response(
                "204 Oh",
                &[MARK, ("cache-control", "max-age=300")],
                b"",
            ));
        }
        let length = ("content-length", "8");
        // Whole, broken off, whole, …
        if streams.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return Act::Send(response("200 OK", &[MARK], blob));
        }
        Act::SendAndClose([&head("200 OK", &[MARK, length])[..], &blob[..5]].concat())
    };
    on_each_envoy(script, |edge| {
        let path = format!("/v2/git/blobs/{}", Digest::of(blob));
        for whole in [true, false, true, false] {
            let answer = request(Method::GET, edge.envoy.port(), &path, &[]);
            match answer {
                Ok(answer) if whole => served(&answer, blob)?,
                Err(error) if whole => return Err(error),
                Ok(answer) => bail!("{} {}", answer.status, answer.text()),
                // The client sees its connection end before the length that it was told.
                Err(_) => {}
            }
        }
        Ok(())
    })
}
