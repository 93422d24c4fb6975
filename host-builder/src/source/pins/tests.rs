//! Pins over a fake Nix, whose every fetch is one folder. Git is real.

use std::process::Command;
use std::sync::atomic::Ordering;

use tempfile::TempDir;

use super::*;
use crate::nix::Version;
use crate::nix::fake::FakeNix;
use crate::source::roots::Roots;
use crate::source::{AllowedRefs, required_nix};

const LONG: Duration = Duration::from_secs(60);
const MAX_REFS: usize = 4;

/// Sources over a fake Nix, and where they write.
struct Fixture {
    sources: Sources,
    nix: Arc<FakeNix>,
    folder: TempDir,
}

impl Fixture {
    fn new(source: Source, any_tag: bool) -> Self {
        Self::open(source, any_tag, LONG, tempfile::tempdir().unwrap())
    }

    /// Looks at the source for each pin.
    fn always_due(source: Source) -> Self {
        Self::open(source, false, Duration::ZERO, tempfile::tempdir().unwrap())
    }

    fn open(source: Source, any_tag: bool, hold: Duration, folder: TempDir) -> Self {
        let nix = Arc::new(FakeNix {
            store: folder.path().join("store"),
            ..FakeNix::default()
        });
        std::fs::create_dir_all(&nix.store).unwrap();
        let shared: Arc<dyn Nix> = Arc::clone(&nix) as _;
        let settings = SourceSettings {
            source,
            system: System::X86_64Linux,
            any_tag,
            hold,
            max_refs: MAX_REFS,
            network: NetworkSettings::default(),
        };
        let sources = Sources::new(settings, shared, BuildLogs::default(), folder.path()).unwrap();
        Self {
            sources,
            nix,
            folder,
        }
    }

    async fn pin(&self, tag: &str) -> Result<Pin, PinError> {
        match self.sources.pin(&Tag::parse(tag).unwrap(), LONG).await? {
            Known::Value(pin, _) => Ok(pin),
            Known::Pending(elapsed) => panic!("not pinned after {elapsed:?}"),
        }
    }

    /// The number of links.
    fn links(&self) -> usize {
        let links = std::fs::read_dir(self.folder.path().join("sources"));
        links.unwrap().count()
    }

    fn has_link(&self, tag: &str) -> bool {
        let roots = Roots::new(self.folder.path(), LONG).unwrap();
        roots.link(tag).is_symlink()
    }

    fn fetched(&self) -> usize {
        self.nix.fetched.load(Ordering::SeqCst)
    }
}

fn channel() -> Source {
    Source::Channel {
        name: "nixos-unstable".to_owned(),
        base: "https://mirror.example".to_owned(),
    }
}

fn git_source(url: String) -> Source {
    Source::Git {
        url,
        refs: AllowedRefs::default(),
    }
}

#[tokio::test]
async fn unknown_tags_say_which_are_known() {
    let path = tempfile::tempdir().unwrap();
    let source = Source::Path {
        path: path.path().to_owned(),
    };
    let error = Fixture::new(source.clone(), false)
        .pin("v1")
        .await
        .unwrap_err();
    assert!(matches!(&error, PinError::TagUnknown(text) if text.contains("known are: latest")));
    assert!(Fixture::new(source, true).pin("v1").await.is_ok());
}

#[tokio::test]
async fn a_missing_folder_names_the_setting() {
    let source = Source::Path {
        path: "/nonexistent".into(),
    };
    let error = Fixture::new(source, false).pin("latest").await.unwrap_err();
    assert!(error.to_string().contains("NIXERY_PKGS_PATH"), "{error}");
}

#[tokio::test]
async fn a_channel_is_named_by_the_hash_of_its_archive_and_fetched_once() {
    let channel = Fixture::new(channel(), false);
    let latest = channel.pin("latest").await.unwrap();
    assert_eq!(channel.pin("nixos-unstable").await.unwrap(), latest);
    assert_eq!(
        latest.revision,
        "hash of https://mirror.example/nixos-unstable.tar.gz"
    );
    assert_eq!(channel.fetched(), 1);
}

#[tokio::test]
async fn a_package_set_that_left_the_store_is_fetched_again() {
    let channel = Fixture::new(channel(), false);
    channel.pin("latest").await.unwrap();
    std::fs::remove_dir(&channel.nix.store).unwrap();
    channel.pin("latest").await.unwrap();
    assert_eq!(channel.fetched(), 2);
}

#[tokio::test]
async fn a_package_set_that_needs_a_newer_nix_is_refused_with_both_versions() {
    let channel = Fixture::new(channel(), false);
    let lib = channel.nix.store.join("lib");
    std::fs::create_dir(&lib).unwrap();
    std::fs::write(lib.join("minver.nix"), "\"2.18\"\n").unwrap();
    let error = channel.pin("latest").await.unwrap_err().to_string();
    assert!(error.contains("2.18") && error.contains("2.8"), "{error}");
    std::fs::write(lib.join("minver.nix"), "\"2.8\"\n").unwrap();
    let other = Fixture::new(self::channel(), false);
    assert!(other.pin("latest").await.is_ok());
}

#[tokio::test]
async fn a_folder_is_copied_again_when_it_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let fixture = Fixture::always_due(Source::Path { path: path.clone() });
    for (text, copied) in [("one", 1), ("two", 2)] {
        std::fs::write(path.join("default.nix"), text).unwrap();
        // Until the file's clock has moved on, nobody can tell whether it changes again.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for _ in 0..3 {
            fixture.pin("latest").await.unwrap();
            assert_eq!(fixture.fetched(), copied, "{text}");
        }
    }
    // Garbage was collected.
    std::fs::remove_file(fixture.sources.finder.roots.link("latest")).unwrap();
    fixture.pin("latest").await.unwrap();
    assert_eq!(fixture.fetched(), 3);
}

#[tokio::test]
async fn a_branch_is_fetched_again_when_its_commit_is_another() {
    let repository = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| git(repository.path(), arguments);
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["commit", "--quiet", "--allow-empty", "--message=one"]);
    let url = format!("file://{}", repository.path().display());
    let fixture = Fixture::always_due(git_source(url));
    for _ in 0..3 {
        fixture.pin("main").await.unwrap();
        assert_eq!(fixture.fetched(), 1);
    }
    // The list of refs is older now.
    fixture.sources.finder.forget_refs();
    git(&["commit", "--quiet", "--allow-empty", "--message=two"]);
    fixture.pin("main").await.unwrap();
    assert_eq!(fixture.fetched(), 2);
}

pub(in crate::source) fn git(repository: &Path, arguments: &[&str]) -> String {
    let mut git = Command::new("git");
    git.arg("-C").arg(repository);
    git.args(["-c", "user.name=n", "-c", "user.email=e"]);
    let output = git.args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn branches_and_tags_of_a_repository_are_found_and_unknown_ones_cost_nothing() {
    let repository = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| git(repository.path(), arguments);
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["commit", "--quiet", "--allow-empty", "--message=one"]);
    let first = git(&["rev-parse", "HEAD"]);
    git(&["tag", "--annotate", "--message=v1", "v1"]);
    git(&["commit", "--quiet", "--allow-empty", "--message=two"]);
    git(&["update-ref", "refs/pull/1/head", "HEAD"]);
    let second = git(&["rev-parse", "HEAD"]);
    let url = format!("file://{}", repository.path().display());

    let fixture = Fixture::new(git_source(url), false);
    for (tag, commit) in [("latest", &second), ("main", &second), ("v1", &first)] {
        assert_eq!(&fixture.pin(tag).await.unwrap().revision, commit, "{tag}");
    }
    assert_eq!(fixture.fetched(), 3);
    // Without the repository, only the list can tell.
    std::fs::remove_dir_all(repository.path()).unwrap();
    for number in 0..100 {
        let unknown = fixture.pin(&format!("unknown-{number}")).await;
        assert!(
            matches!(unknown, Err(PinError::TagUnknown(_))),
            "{unknown:?}"
        );
    }
    assert_eq!(fixture.pin("v1").await.unwrap().revision, first);
    assert_eq!(fixture.fetched(), 3);
}

#[tokio::test]
async fn only_the_commits_of_the_latest_requests_stay_pinned() {
    let repository = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| git(repository.path(), arguments);
    git(&["init", "--quiet", "--initial-branch=main"]);
    for number in 0..MAX_COMMITS + 1 {
        let message = format!("--message={number}");
        git(&["commit", "--quiet", "--allow-empty", &message]);
    }
    let commits = git(&["rev-list", "main"]);
    let commits: Vec<_> = commits.lines().collect();
    let url = format!("file://{}", repository.path().display());
    let fixture = Fixture::new(git_source(url), false);
    fixture.pin("main").await.unwrap();
    let (last, first) = commits.split_last().unwrap();
    // The first is requested again and stays; the second is evicted.
    for commit in first.iter().chain([&commits[0], last]) {
        assert_eq!(&fixture.pin(commit).await.unwrap().revision, commit);
    }
    let fetched = fixture.fetched();
    assert_eq!(fetched, commits.len() + 1);
    // The name, and all but the second.
    assert_eq!(fixture.sources.names.memo.fresh().len(), 1);
    assert_eq!(fixture.sources.commits.memo.fresh().len(), MAX_COMMITS);
    for wanted in commits.iter().skip(2).chain(&[commits[0], "main"]) {
        fixture.pin(wanted).await.unwrap();
        assert!(fixture.has_link(wanted), "{wanted}");
    }
    assert_eq!(fixture.fetched(), fetched);
    // Its link is removed with the next pin, so the store still has it.
    fixture.pin(commits[1]).await.unwrap();
    assert_eq!(fixture.fetched(), fetched);
    // One per pinned commit, one of the name, and one of the pin evicted last.
    assert_eq!(fixture.links(), MAX_COMMITS + 2);
}

#[tokio::test]
async fn many_tags_keep_no_more_pins_than_the_bound_and_the_default_branch_stays() {
    let repository = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| git(repository.path(), arguments);
    git(&["init", "--quiet", "--initial-branch=main"]);
    let tags: Vec<_> = (0..5 * MAX_REFS)
        .map(|number| format!("v{number}"))
        .collect();
    for tag in &tags {
        git(&["commit", "--quiet", "--allow-empty", "--message", tag]);
        git(&["tag", tag]);
    }
    let url = format!("file://{}", repository.path().display());
    let fixture = Fixture::new(git_source(url), false);
    fixture.pin("latest").await.unwrap();
    let mut pinned = 0;
    for tag in &tags {
        match fixture.pin(tag).await {
            Ok(_) => pinned += 1,
            Err(error) => assert!(matches!(error, PinError::TooMany), "{error}"),
        }
        // The default branch, and the pin that is evicted now.
        assert!(fixture.links() <= MAX_REFS + 2);
    }
    assert_eq!(pinned, 2 * MAX_REFS);
    assert_eq!(fixture.sources.names.memo.fresh().len(), MAX_REFS + 1);
    let fetched = fixture.fetched();
    let kept = &tags[pinned - MAX_REFS..pinned];
    for tag in kept.iter().map(String::as_str).chain(["latest"]) {
        fixture.pin(tag).await.unwrap();
        assert!(fixture.has_link(tag), "{tag}");
    }
    assert_eq!(fixture.fetched(), fetched);

    // After a restart, tags with links are not new.
    let source = fixture.sources.source().clone();
    let again = Fixture::open(source, false, LONG, fixture.folder);
    for tag in kept.iter().chain(&tags[pinned..2 * pinned]) {
        assert!(again.pin(tag).await.is_ok(), "{tag}");
    }
    let error = again.pin(&tags[2 * pinned]).await.unwrap_err();
    assert!(matches!(error, PinError::TooMany), "{error}");
    // Nor can they be cycled: an evicted tag is new, also while its link is there.
    let mut answered = 0;
    for tag in &tags[pinned..2 * pinned] {
        answered += usize::from(again.pin(tag).await.is_ok());
    }
    assert!(answered <= MAX_REFS, "{answered}");
}

#[test]
fn a_rate_limit_frees_what_is_an_hour_old_or_released() {
    let (limit, start) = (RateLimit::new(2), Instant::now());
    let acquire = |minutes| limit.try_acquire(start + minutes * Duration::from_secs(60));
    assert!(acquire(0) && acquire(30) && !acquire(59));
    assert!(acquire(60) && !acquire(60));
    limit.release();
    assert!(acquire(61) && !acquire(89) && acquire(90));
}

#[tokio::test]
async fn names_do_not_wait_behind_commits() {
    let repository = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| git(repository.path(), arguments);
    git(&["init", "--quiet", "--initial-branch=main"]);
    for number in 0..4 {
        let message = format!("--message={number}");
        git(&["commit", "--quiet", "--allow-empty", &message]);
    }
    git(&["tag", "v1"]);
    let commits = git(&["rev-list", "main"]);
    let url = format!("file://{}", repository.path().display());
    let fixture = Fixture::new(git_source(url), false);
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    *fixture.nix.gate.lock().unwrap() = Some(Arc::clone(&open));
    let ask = |tag: &str| {
        let (sources, tag) = (fixture.sources.clone(), Tag::parse(tag).unwrap());
        tokio::spawn(async move { sources.wait_for(&tag).await })
    };
    let begun = async |number| {
        while fixture.fetched() < number {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let mut asked: Vec<_> = commits.lines().map(ask).collect();
    begun(1).await;
    asked.extend(["main", "v1"].map(ask));
    tokio::time::timeout(LONG, begun(3)).await.unwrap();
    open.add_permits(6);
    for pinned in asked {
        pinned.await.unwrap().unwrap();
    }
    assert_eq!(fixture.fetched(), 6);
}

#[tokio::test]
async fn a_short_wait_ends_while_the_package_set_is_being_fetched() {
    let fixture = Fixture::new(channel(), false);
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    *fixture.nix.gate.lock().unwrap() = Some(Arc::clone(&open));
    let latest = Tag::latest();
    let pinned = fixture.sources.pin(&latest, Duration::ZERO).await.unwrap();
    assert!(matches!(pinned, Known::Pending(_)), "{pinned:?}");
    let current = fixture.sources.current(Duration::ZERO).await;
    assert!(matches!(current, Err(PinError::Preparing)), "{current:?}");
    open.add_permits(1);
    let pin = fixture.pin("latest").await.unwrap();
    assert_eq!(fixture.sources.current(LONG).await.unwrap(), [pin]);
    assert_eq!(fixture.fetched(), 1);
}

#[test]
fn nixpkgs_says_which_nix_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(required_nix(folder.path()), None);
    std::fs::create_dir(folder.path().join("lib")).unwrap();
    let text = "# The minimum version that is \"supported\".\n\"2.18\"\n";
    std::fs::write(folder.path().join("lib/minver.nix"), text).unwrap();
    assert_eq!(
        required_nix(folder.path()),
        Some(Version {
            major: 2,
            minor: 18
        })
    );
}
