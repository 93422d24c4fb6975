//! Decisions before and around Nix; the end-to-end tests build for real.

use nixgate_core::distribution::ErrorKind;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::*;
use crate::files::state_dir::StateDir;
use crate::index::Indexes;
use crate::layer::Reach;
use crate::nix::Nix;
use crate::nix::fake::FakeNix;
use crate::nix::gc_roots::GcRoots;
use crate::nix::{NixError, Resolution};
use crate::records::Records;
use crate::telemetry::build_log::BuildLogs;
use crate::telemetry::metrics::Metrics;

fn builder(nix: Arc<dyn Nix>, folder: &Path) -> NixBuilder {
    let storage = Storage::filesystem(&folder.join("storage")).unwrap();
    let state = StateDir::open(&folder.join("state")).unwrap();
    let records = Records::new(storage.clone(), None);
    let roots = GcRoots::open(&state.gc_roots(), Duration::from_secs(60)).unwrap();
    let (metrics, disks) = (Metrics::new(), Disks::new(folder, None, 0));
    let staging = state.staging();
    NixBuilder {
        packages: Packages::new(
            Arc::clone(&nix),
            Indexes::example(nix, folder, false),
            records,
            roots,
            metrics.clone(),
            1,
        ),
        layers: Layers::new(storage.clone(), metrics, staging, disks.clone()),
        storage,
        logs: BuildLogs::default(),
        disks,
    }
}

async fn build(nix: Arc<dyn Nix>, packages: &[&str]) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let builder = builder(nix, folder.path());
    Builder::build(&builder, &ImageRequest::example(packages), &Rule::NONE)
        .await
        .unwrap_err()
}

fn nix() -> FakeNix {
    let git = Resolution::Derivation(Derivation::example("git"));
    FakeNix {
        packages: [("git".to_owned(), git)].into(),
        ..FakeNix::default()
    }
}

#[tokio::test]
async fn derivations_that_the_garbage_collector_took_are_made_again_once() {
    // The fake's derivations are in no store.
    let nix = Arc::new(nix());
    *nix.failure.lock().unwrap() = Some(NixError::Missing { program: "nix" });
    let shared: Arc<dyn Nix> = Arc::clone(&nix) as _;
    build(shared, &["git"]).await;
    let count =
        |calls: &std::sync::atomic::AtomicUsize| calls.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!((count(&nix.resolved), count(&nix.realised)), (2, 2));
}

#[tokio::test]
async fn a_wrong_name_is_reported_while_builds_run() {
    let folder = tempfile::tempdir().unwrap();
    let nix = FakeNix {
        realise_gate: Some(Semaphore::new(0)),
        ..nix()
    };
    let builder = builder(Arc::new(nix), folder.path());
    let git = ImageRequest::example(&["git"]);
    let mut build = Box::pin(Builder::build(&builder, &git, &Rule::NONE));
    while builder.packages.builds.available_permits() > 0 {
        assert!(futures::poll!(&mut build).is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let nope = ImageRequest::example(&["nope"]);
    let error = Builder::build(&builder, &nope, &Rule::NONE).await;
    assert_eq!(error.unwrap_err().kind, ErrorKind::ManifestUnknown);
}

#[test]
fn one_program_is_started_and_several_leave_the_choice_to_the_caller() {
    let package = |name: &str, program: Option<&str>| {
        let mut derivation = Derivation::example(name);
        derivation.main_program = program.map(str::to_owned);
        derivation
    };
    let (cacert, git) = (package("cacert", None), package("git", Some("git")));
    let htop = package("htop", Some("htop"));
    let run = |shell, derivations: &[&Derivation]| {
        let image = ImageRequest {
            shell,
            ..ImageRequest::example(&[])
        };
        command(&image, derivations)
    };
    assert_eq!(run(false, &[&cacert, &git]), ["git"]);
    assert_eq!(run(false, &[&git, &htop]), [""; 0]);
    assert_eq!(run(false, &[&cacert]), [""; 0]);
    assert_eq!(run(true, &[&git]), ["bash"]);
}

#[test]
fn a_package_under_two_names_is_taken_once() {
    let package = |name: &str| PackageRecord {
        derivation: Derivation::example(name),
        paths: BTreeMap::new(),
        trees: vec![Tree::Directory(BTreeMap::new())],
        reach: Reach::default(),
    };
    let (git, htop) = (package("git"), package("htop"));
    let found = outputs(&[htop.clone(), git.clone(), htop.clone()]);
    let paths: Vec<_> = found.iter().map(|(path, _)| path).collect();
    let expected = [&htop, &git].map(|one| &one.derivation.outputs[0].path);
    assert_eq!(paths, expected);
}
