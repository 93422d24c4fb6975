//! What is written, and what it means.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
}

fn settings(line: &str) -> Result<Settings> {
    let words = ["nixgate"].into_iter().chain(line.split_whitespace());
    Cli::try_parse_from(words)?.serve.validate()
}

#[test]
fn errors_name_the_setting() {
    for (line, part) in [
        ("--pkgs-path /", "NIXGATE_TOKEN"),
        ("--token t", "NIXERY_CHANNEL"),
        ("--token t --channel c --pkgs-path /", "cannot be used"),
        ("--token t --pkgs-path /nonexistent", "NIXERY_PKGS_PATH"),
        ("--token t --pkgs-path / --storage-backend s3", "S3_BUCKET"),
        (
            "--token t --pkgs-path / --storage-backend gcs",
            "NIXERY_STORAGE_BACKEND is gcs",
        ),
        ("--token t --pkgs-path / --nix-option sandbox", "name=value"),
        (
            "--token t --pkgs-path / --max-layers 1",
            "NIXGATE_MAX_LAYERS",
        ),
        (
            "--token t --pkgs-path / --pin-seconds 0",
            "NIXGATE_PIN_SECONDS",
        ),
        (
            "--token t --pkgs-path / --max-builds 0",
            "NIXGATE_MAX_BUILDS",
        ),
        ("--token t --pkgs-path / --max-queue 0", "NIXGATE_MAX_QUEUE"),
        (
            "--token t --pkgs-path / --system m68k-linux",
            "NIXGATE_SYSTEM",
        ),
        (
            "--token t --pkgs-path / --nix-option sandbox=false",
            "--allow-unsandboxed",
        ),
        (
            "--token t --pkgs-path / --nix-option sandbox-fallback=true",
            "--allow-unsandboxed",
        ),
        (
            "--token t --pkgs-path / --strict --allow-unsandboxed",
            "NIXGATE_ALLOW_UNSANDBOXED",
        ),
        (
            "--token t --pkgs-path / --strict --allow-shared-build-user",
            "NIXGATE_ALLOW_SHARED_BUILD_USER",
        ),
        (
            "--pkgs-path / --strict --allow-direct",
            "NIXGATE_ALLOW_DIRECT",
        ),
        ("--token t --pkgs-path / --proxy-only", "NIXGATE_PROXY "),
        (
            "--token t --pkgs-path / --proxy-only --proxy https://p:1",
            "http://host:port",
        ),
        (
            "--token t --pkgs-path / --nix-option extra-allowed-uris=http://",
            "NIXGATE_ALLOWED_URIS",
        ),
        (
            "--token t --pkgs-path / --nix-option restrict-eval=false",
            "always restricted",
        ),
        (
            "--token t --pkgs-path / --eval-timeout 0",
            "NIXGATE_EVAL_TIMEOUT",
        ),
        (
            "--token t --pkgs-path / --eval-memory 100",
            "NIXGATE_EVAL_MEMORY",
        ),
        (
            "--token t --pkgs-path / --ca-bundle /nonexistent",
            "NIX_SSL_CERT_FILE",
        ),
        (
            "--token t --pkgs-path / --netrc /nonexistent",
            "NIXGATE_NETRC",
        ),
        ("--token t --flake nixpkgs", "NIXGATE_FLAKE"),
        ("--token t --flake /a --pkgs-path /", "cannot be used"),
        (
            "--token t --pkgs-repo u --git-refs main",
            "NIXGATE_GIT_REFS",
        ),
        ("--token t --pkgs-path / --groups g", "Set NIXGATE_HTPASSWD"),
        (
            "--token t --pkgs-path / --token-key k",
            "Set NIXGATE_HTPASSWD",
        ),
        (
            "--token t --pkgs-path / --htpasswd h --token-seconds 59",
            "NIXGATE_TOKEN_SECONDS",
        ),
        (
            "--token t --pkgs-path / --oidc-jwks k",
            "NIXGATE_OIDC_AUDIENCE",
        ),
        (
            "--token t --pkgs-path / --oidc-jwks http://a/k --oidc-issuer i --oidc-audience a",
            "NIXGATE_OIDC_JWKS",
        ),
        (
            "--token t --pkgs-path / --oidc-jwks k --oidc-issuer nixgate --oidc-audience a",
            "NIXGATE_TOKEN_ISSUER",
        ),
    ] {
        let error = format!("{:#}", settings(line).err().expect(line));
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn the_least_that_is_needed() {
    let settings = settings("--token t --pkgs-path /").unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8081");
    let settings = settings.build;
    let folder = PathBuf::from(".nixgate/builder/storage");
    assert_eq!(settings.storage, StorageSettings::Filesystem(folder));
    assert_eq!((settings.max_layers, settings.max_queue), (94, 64));
    assert_eq!(settings.layering, Layering::Dominators);
    assert_eq!(settings.max_builds, processors());
}

#[test]
fn options_that_agree_with_nixgate_are_accepted() {
    let settings = settings("--token t --pkgs-path / --nix-option sandbox=true").unwrap();
    let required = crate::nix::Sandbox::Required { shared_user: false };
    assert_eq!(settings.build.nix.sandbox, required);
}
