//! A builder whose clock jumps: while it runs, and from one start to the next.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::live::builder::{Builder, Settings};
use nixgate_tests::live::poll;
use nixgate_tests::live::unbuilt_set::{UnbuiltSet, pull};

/// What makes a program see another time.
fn libfaketime() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib")?.flatten();
    let mut libraries = folders.map(|one| one.path().join("faketime/libfaketime.so.1"));
    let found = libraries.find(|library| library.exists());
    found.context("faketime is not installed: make test does it")
}

/// Has the builder, and not Nix, see the time that `clock` says, which can be changed. Files keep
/// theirs: those that are there were made long before or after, as it is with a clock that jumps.
pub(crate) fn by_clock(settings: Settings, clock: &Path) -> Result<Settings> {
    Ok(settings
        .with("LD_PRELOAD", libfaketime()?)
        .with("FAKETIME_TIMESTAMP_FILE", clock)
        .with("FAKETIME_NO_CACHE", "1")
        .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .with("NO_FAKE_STAT", "1"))
}

/// Has the clock be ahead of the right time by so much. Nobody finds half a file.
pub(crate) fn turn(clock: &Path, ahead: &str) -> Result<()> {
    let new = clock.with_extension("new");
    fs::write(&new, ahead)?;
    Ok(fs::rename(new, clock)?)
}

/// The year on the builder's clock, as its log has it. The `Date` of answers is kept by the HTTP
/// library, which waits for a clock that was set back to catch up.
fn year(builder: &Builder) -> Result<i64> {
    builder.get("/v2/nothing/of/the/registry")?;
    let log = builder.log();
    let last = log
        .lines()
        .rev()
        .find(|line| line.contains("nothing/of/the"));
    let year = last.context("it logs refusals")?.split('-').next();
    year.context("a date")?.parse().context("a year")
}

#[test]
fn a_clock_that_jumps_by_years_changes_no_image() -> Result<()> {
    let set = UnbuiltSet::write()?;
    let clock = set.folder().join("clock");
    turn(&clock, "+0d")?;
    let settings = by_clock(set.builder("one")?, &clock)?;
    let mut builder = Builder::start(&settings)?;
    let digest = |builder: &Builder, packages: &str| -> Result<String> {
        let answer = pull(builder.port(), packages)?;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "{packages}: {}\n{}",
            answer.text(),
            builder.log()
        );
        Ok(answer.header("docker-content-digest").to_owned())
    };
    let mut known = vec![("a/b", digest(&builder, "a/b")?)];
    let now = year(&builder)?;
    for (jump, direction, new) in [("+800d", 1, "a/c"), ("-800d", -1, "b/c"), ("+0d", 0, "d")] {
        turn(&clock, jump)?;
        poll::until("the builder's clock has jumped", || {
            // 800 days are two years and some. One may begin in the midst of this.
            let years = year(&builder).ok()? - now;
            let seen = if years.abs() < 2 { 0 } else { years.signum() };
            (seen == direction).then_some(())
        })?;
        for restarts in 0..2 {
            for (packages, expected) in &known {
                let digest = digest(&builder, packages)?;
                assert_eq!(&digest, expected, "{jump} {restarts} {packages}");
            }
            if restarts == 0 {
                known.push((new, digest(&builder, new)?));
                drop(builder);
                builder = Builder::start(&settings)?;
            }
        }
        assert!(!builder.log().contains("panicked"), "{}", builder.log());
    }
    // Somebody whose clock was right all along makes the same.
    let other = Builder::start(
        &set.builder("other")?
            .with("STORAGE_PATH", set.folder().join("x")),
    )?;
    for (packages, expected) in &known {
        assert_eq!(&digest(&other, packages)?, expected, "{packages}");
    }
    Ok(())
}
