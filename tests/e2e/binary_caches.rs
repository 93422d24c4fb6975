//! Binary caches on their bad days, on each Nix: their troubles are theirs, and no package's.

use std::path::PathBuf;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::live::binary_cache::{BinaryCache, FAULTS, Fault};
use nixgate_tests::live::builder::Builder;
use nixgate_tests::live::install::{self, NixPrograms};
use nixgate_tests::live::process::run;
use nixgate_tests::live::shaped_set::ShapedSet;
use nixgate_tests::live::unbuilt_set::pull;

use crate::each_nix::on_each_nix;

/// What the cache has; `wrapper` wants to be built on each machine.
const CACHED: [&str; 5] = ["hello", "git", "wrapper", "cacert", "iana-etc"];
/// Short times, so that a cache that hangs is given up within seconds.
const SHORT: &str = ";connect-timeout=2;stalled-download-timeout=2;download-attempts=1\
                     ;narinfo-cache-negative-ttl=0;narinfo-cache-positive-ttl=0";

/// A cache with packages that the store does not have.
struct Scene {
    set: ShapedSet,
    cache: BinaryCache,
    paths: Vec<PathBuf>,
}

impl Scene {
    fn new(nix: &NixPrograms) -> Result<Self> {
        let set = ShapedSet::write()?;
        set.scale(2000)?;
        let generated: Vec<_> = (0..FAULTS.len()).map(generated).collect();
        let cached = CACHED
            .into_iter()
            .chain(generated.iter().map(String::as_str));
        let paths = set.build(nix, &cached.collect::<Vec<_>>())?;
        let cache = BinaryCache::start(&set.folder().join("cache"), nix, &paths)?;
        set.collect(&paths)?;
        Ok(Self { set, cache, paths })
    }

    fn builder(
        &self,
        nix: &NixPrograms,
        name: &str,
        more: &[(&'static str, &str)],
    ) -> Result<Builder> {
        let options = install::nix_options()?.replace("substituters=;", "");
        let options = format!("{options}{}{SHORT}", self.cache.options());
        let settings = self.set.builder(name)?.with_nix(nix);
        let settings = settings.with("NIXGATE_NIX_OPTIONS", options);
        let settings = more.iter().fold(settings, |settings, (name, value)| {
            settings.with(name, value)
        });
        Builder::start(&settings)
    }
}

const ONLY_CACHES: [(&str, &str); 1] = [("NIXGATE_ONLY_FROM_CACHES", "true")];

/// One of the generated packages that need no other one, for each number.
fn generated(number: usize) -> String {
    format!("scaled-{:06}", 400 + 10 * number)
}

#[test]
fn each_trouble_of_a_cache_is_the_cache_s_and_passes() -> Result<()> {
    on_each_nix(|nix| {
        let scene = Scene::new(nix)?;
        let builder = scene.builder(nix, "only", &ONLY_CACHES)?;
        let (status, text) = ask(&builder, "hello")?;
        assert_eq!(status, StatusCode::OK, "{text}\n{}", builder.log());
        for (number, fault) in FAULTS.into_iter().enumerate() {
            let context = format!("{fault:?} on {}", nix.version);
            let package = generated(number);
            scene.cache.set(Some(fault))?;
            let answer = pull(builder.port(), &package).with_context(|| context.clone())?;
            let (status, text) = (answer.status, answer.text());
            match fault {
                Fault::Slow => {
                    assert_eq!(status, StatusCode::OK, "{context}: {text}");
                    continue;
                }
                // The cache says that it does not have it.
                Fault::NoNarinfo => {
                    assert_eq!(status, StatusCode::FORBIDDEN, "{context}: {text}");
                    for words in [package.as_str(), "NIXGATE_ONLY_FROM_CACHES"] {
                        assert!(text.contains(words), "{context}: {text}");
                    }
                    continue;
                }
                _ => {}
            }
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{context}: {text}");
            assert!(!answer.header("retry-after").is_empty(), "{context}");
            assert!(text.contains("a binary cache failed"), "{context}: {text}");
            assert!(!text.contains("127.0.0.1"), "{context}: {text}");
            let ready = builder.get("/readyz")?;
            assert_eq!(ready.status, StatusCode::OK, "{context}");
            for text in [builder.log(), ready.text()] {
                assert!(text.contains(&scene.cache.url()), "{context}: {text}");
            }
            // It is remembered as nobody's fault.
            scene.cache.set(None)?;
            let (status, text) = ask(&builder, &package)?;
            assert_eq!(status, StatusCode::OK, "{context}: {text}");
        }
        for kind in ["unavailable", "lost", "corrupt", "unsigned"] {
            let label = format!("outcome=\"{kind}\"");
            let count = builder.counter("nixgate_cache_failures_total", &[&label])?;
            assert!(count > 0, "{kind} on {}", nix.version);
        }
        Ok(())
    })
}

#[test]
fn with_caches_alone_nothing_is_built_and_no_sandbox_is_asked_for() -> Result<()> {
    on_each_nix(|nix| {
        let scene = Scene::new(nix)?;
        let builder = scene.builder(nix, "only", &ONLY_CACHES)?;
        // Even what wants to be built on each machine is fetched.
        let (status, text) = ask(&builder, "git/wrapper")?;
        assert_eq!(status, StatusCode::OK, "{text}\n{}", builder.log());
        let asked = scene.cache.asked();
        assert!(
            asked.iter().any(|file| file.starts_with("nar/")),
            "{asked:?}"
        );
        // Nobody built this one.
        let (status, text) = ask(&builder, "curl/cowsay")?;
        assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
        assert!(text.contains("cowsay-1.2"), "{text}");
        let log = builder.log();
        assert!(!log.contains("building '"), "{log}");
        drop(builder);

        // With this, builds would see the machine.
        let options = install::nix_options()?.replace("sandbox-paths=", "sandbox-paths=/sys ");
        let refused = scene.set.builder("sandbox")?.with_nix(nix);
        let refused = refused.with("NIXGATE_NIX_OPTIONS", options);
        assert!(Builder::start(&refused).is_err(), "it started");
        Builder::start(&refused.with("NIXGATE_ONLY_FROM_CACHES", "true"))?;
        Ok(())
    })
}

#[test]
fn without_its_cache_a_package_is_built_here() -> Result<()> {
    on_each_nix(|nix| {
        let scene = Scene::new(nix)?;
        let builder = scene.builder(nix, "builds", &[])?;
        scene.cache.set(Some(Fault::Down))?;
        let (status, text) = ask(&builder, "hello")?;
        assert_eq!(status, StatusCode::OK, "{text}\n{}", builder.log());
        let log = builder.log();
        assert!(log.contains("a binary cache failed"), "{log}");
        // What announces an archive and fails to deliver it is to blame.
        scene.cache.set(Some(Fault::NarError))?;
        let (status, text) = ask(&builder, &generated(0))?;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
        // A package's own failure stays its own.
        scene.cache.set(None)?;
        let (status, text) = ask(&builder, "fails")?;
        assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
        assert!(text.contains("this build fails on purpose"), "{text}");
        Ok(())
    })
}

#[test]
fn a_package_that_wants_to_be_built_on_each_machine_is_fetched_where_nix_can() -> Result<()> {
    let nix = install::modern_nix()?;
    let scene = Scene::new(&nix)?;
    let builder = scene.builder(&nix, "builds", &[])?;
    let (status, text) = ask(&builder, "wrapper")?;
    assert_eq!(status, StatusCode::OK, "{text}\n{}", builder.log());
    let wrapper = scene
        .paths
        .iter()
        .find(|path| path.to_string_lossy().ends_with("-wrapper"));
    let wrapper = wrapper.context("a wrapper")?.display().to_string();
    // Paths that were built here have no signature.
    let info = run(nix
        .command("nix")
        .args(["--extra-experimental-features", "nix-command"])
        .args(["path-info", "--sigs", &wrapper]))?;
    assert!(info.contains("cache.example-1"), "{info}");
    Ok(())
}

fn ask(builder: &Builder, packages: &str) -> Result<(StatusCode, String)> {
    let answer = pull(builder.port(), packages)?;
    Ok((answer.status, answer.text()))
}
