//! Everything that is measured, started and filled.

use std::fs;
use std::path::PathBuf;
use std::{env, thread};

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode, Uri};
use nixgate_core::policy::Policy;
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::builder::{self, Builder};
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::docker_registry::DockerRegistry;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::ingress::{self, Ingress};
use nixgate_tests::live::nginx::Nginx;
use nixgate_tests::live::s3::S3;
use nixgate_tests::live::{install, scratch};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::comparison::Pair;
use crate::peers::{self, Peer};
use crate::policies;

/// What is pulled, but for the large blob.
const IMAGE: &str = "app/tools";
const ACCEPT: (&str, &str) = ("accept", "application/vnd.oci.image.manifest.v1+json");

/// Rules of a large company, and of a very large one.
const RULES: usize = 200;
const MANY_RULES: usize = 1000;

/// The servers, and where on them the same things are.
pub(crate) struct Scene {
    /// With S3 behind it.
    envoy: Envoy,
    /// With files behind it.
    filing_envoy: Envoy,
    /// Without a policy, with one, and with a very large one; all know who asks.
    judging: [Envoy; 3],
    /// With services of others, without nixgate and with it.
    ingresses: [Ingress; 2],
    peers: Peer,
    registry: DockerRegistry,
    pub(crate) digest: String,
    config: String,
    manifest_bytes: usize,
    large: String,
    workers: u16,
    _nginx: Nginx,
    _app: Nginx,
    _builders: [Builder; 2],
    _s3: S3,
    // Last: it is removed when nothing writes to it any more.
    _state: TempDir,
}

impl Scene {
    /// Starts it all and builds the images.
    pub(crate) fn set() -> Result<Self> {
        let state = scratch::folder("bench-")?;
        let folder = |name: &str| -> Result<PathBuf> {
            let folder = state.path().join(name);
            fs::create_dir(&folder)?;
            Ok(folder)
        };
        let processors = thread::available_parallelism()?.get();
        let settings = envoy::Settings {
            workers: u16::try_from(processors)?,
            ..envoy::Settings::default()
        };
        let package_set = folder("set")?;
        fs::write(package_set.join("default.nix"), include_str!("set.nix"))?;

        let s3 = S3::start(&folder("objects")?)?;
        let start = |name: &str, s3: Option<&S3>| -> Result<(Builder, Envoy, PathBuf)> {
            let state = folder(name)?;
            let builder = builder::Settings {
                package_set: package_set.clone(),
                state: state.clone(),
                environment: Vec::new(),
            };
            let builder = s3.map_or_else(|| builder.clone(), |s3| s3.settings(builder.clone()));
            let builder = Builder::start(&builder)?;
            let envoy = Envoy::start(settings.clone(), builder.port(), &state)?;
            Ok((builder, envoy, state))
        };
        let (builder, envoy, _) = start("redirecting", Some(&s3))?;
        let (filing_builder, filing_envoy, filing_state) = start("filing", None)?;

        let judging = |rules: usize| -> Result<Envoy> {
            let state = folder(&format!("rules-{rules}"))?;
            let config = EnvoyConfig::standalone().http_filter(caller());
            let config = match rules {
                0 => config,
                _ => {
                    let policy = policies::policy(rules, "ours", &packages());
                    config.settings(json!({"policy": policy}))
                }
            };
            let settings = envoy::Settings {
                config,
                ..settings.clone()
            };
            Envoy::start(settings, builder.port(), &state)
        };
        let judging = [judging(0)?, judging(RULES)?, judging(MANY_RULES)?];

        let site = folder("site")?;
        fs::write(site.join("index.html"), "the application\n")?;
        let app = Nginx::start(&site, &folder("app")?)?;
        let ingress = |builder: Option<u16>| {
            let settings = ingress::Settings {
                version: install::ENVOY_VERSIONS[0],
                workers: settings.workers,
                app: app.port(),
                builder,
                refused: false,
                trace: false,
            };
            Ingress::start(settings, state.path())
        };
        let ingresses = [ingress(None)?, ingress(Some(builder.port()))?];

        let manifest_path = format!("/v2/{IMAGE}/manifests/latest");
        let manifest = get(envoy.port(), &manifest_path)?;
        let config = digest_of(&manifest, |manifest| &manifest["config"])?;
        let config = format!("/v2/{IMAGE}/blobs/{config}");
        let redirect = get(envoy.port(), &config)?;
        let location: Uri = redirect.header("location").parse()?;

        let large = get(filing_envoy.port(), "/v2/large/manifests/latest")?;
        let layer = digest_of(&large, largest_layer)?;
        let large = format!("/v2/large/blobs/{layer}");
        let nginx = Nginx::start(&filing_state.join("storage/layers"), state.path())?;

        let body = state.path().join("manifest.json");
        fs::write(&body, &manifest.body)?;
        let storage_port = location.port_u16().context("S3 has a port of its own")?;
        let words = [
            ("MANIFEST_PATH", manifest_path.as_str()),
            ("MANIFEST_FILE", &body.display().to_string()),
            ("MANIFEST_TYPE", manifest.header("content-type")),
            ("MANIFEST_DIGEST", manifest.header("docker-content-digest")),
            ("BLOB_PATH", &config),
            ("STORAGE_HOST", location.host().unwrap_or_default()),
            ("STORAGE_PORT", &storage_port.to_string()),
            (
                "STORAGE_PATH",
                location.path_and_query().map_or("", |path| path.as_str()),
            ),
            ("NGINX_PORT", &nginx.port().to_string()),
        ];
        let peers = peers::envoy(&words, settings.workers, state.path())?;
        let registry = DockerRegistry::start(&folder("registry")?)?;
        let copied = folder("copied")?;
        skopeo::copy(&format!("127.0.0.1:{}/{IMAGE}", envoy.port()), &copied)?;
        skopeo::push(&copied, &format!("127.0.0.1:{}/image", registry.port()))?;
        Ok(Self {
            envoy,
            filing_envoy,
            judging,
            ingresses,
            peers,
            registry,
            digest: manifest.header("docker-content-digest").to_owned(),
            config,
            manifest_bytes: manifest.body.len(),
            large,
            workers: settings.workers,
            _nginx: nginx,
            _app: app,
            _builders: [builder, filing_builder],
            _s3: s3,
            _state: state,
        })
    }

    /// What it runs on, in words.
    pub(crate) fn machine(&self) -> String {
        format!(
            "A manifest of {} bytes; {} processors ({}), Envoy {} with {} workers",
            self.manifest_bytes,
            self.workers,
            env::consts::ARCH,
            install::ENVOY_VERSIONS[0],
            self.workers
        )
    }

    pub(crate) fn manifest_beside_direct_response(&self) -> Result<Pair> {
        let path = format!("/v2/{IMAGE}/manifests/latest");
        same_body((self.envoy.port(), &path), (self.peers.port, &path))
    }

    pub(crate) fn blob_beside_redirect(&self) -> Result<Pair> {
        let ours = get(self.envoy.port(), &self.config)?;
        let theirs = get(self.peers.port, &self.config)?;
        for answer in [&ours, &theirs] {
            ensure!(
                answer.status == StatusCode::TEMPORARY_REDIRECT,
                "the blob was not redirected: {}",
                answer.status
            );
        }
        // The signature may be of another second.
        let length = |answer: &Response| answer.header("location").len();
        ensure!(
            length(&ours) == length(&theirs),
            "the redirects differ: {} and {}",
            ours.header("location"),
            theirs.header("location")
        );
        Ok(pair(
            (self.envoy.port(), &self.config),
            (self.peers.port, &self.config),
        ))
    }

    /// `reference` is a tag or a digest.
    pub(crate) fn manifest_beside_registry(&self, reference: &str) -> Result<Pair> {
        let ours = format!("/v2/{IMAGE}/manifests/{reference}");
        let theirs = format!("/v2/image/manifests/{reference}");
        same_body((self.envoy.port(), &ours), (self.registry.port(), &theirs))
    }

    pub(crate) fn stream_beside_nginx(&self) -> Result<Pair> {
        // In storage the file is called by its digest, and in nginx's root it is at the top.
        let (_, digest) = self.large.rsplit_once(':').context("a digest")?;
        let theirs = format!("/{digest}");
        same_body(
            (self.filing_envoy.port(), &self.large),
            (self.peers.port, &theirs),
        )
    }
}

/// What a request costs that is judged by a policy, each time anew.
pub(crate) struct Judging<'a> {
    /// Without a policy, and with the largest.
    pub(crate) envoys: [&'a Envoy; 2],
    pub(crate) urls: [String; 2],
    pub(crate) policy: Policy,
}

impl Scene {
    /// The same warm manifest, by an edge with a policy and by one with none.
    pub(crate) fn policy_beside_none(&self) -> Result<Pair> {
        let path = format!("/v2/{IMAGE}/manifests/latest");
        let [plain, judging, _] = &self.judging;
        same_body((judging.port(), &path), (plain.port(), &path))
    }

    /// A service of somebody else, behind an Envoy with nixgate and without.
    pub(crate) fn other_route(&self, host: &'static str, path: &str) -> Result<Pair> {
        let [before, with] = &self.ingresses;
        let header = host.strip_prefix("Host: ").context("a header")?;
        let answers = [before, with].map(|one| one.ask(Method::GET, header, path));
        for answer in answers {
            let answer = answer?;
            ensure!(
                answer.status == StatusCode::OK,
                "{host}{path}: {}",
                answer.text()
            );
        }
        let mut pair = pair((with.port(), path), (before.port(), path));
        pair.header = Some(host);
        Ok(pair)
    }

    pub(crate) fn judging(&self) -> Result<Judging<'_>> {
        let path = format!("/v2/{IMAGE}/manifests/latest");
        let [plain, _, judging] = &self.judging;
        let Pair { ours, theirs, .. } = same_body((judging.port(), &path), (plain.port(), &path))?;
        let policy = policies::policy(MANY_RULES, "ours", &packages()).to_string();
        Ok(Judging {
            envoys: [plain, judging],
            urls: [theirs, ours],
            policy: Policy::parse(policy.as_bytes())?,
        })
    }
}

/// Who asks, on all Envoys whose policies are compared: what `jwt_authn` would leave behind.
fn caller() -> Value {
    let payload = json!({"sub": "alice", "groups": ["staff", "data", "ours"]});
    json!({
        "name": "envoy.filters.http.set_metadata",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config",
            "metadata": [{
                "metadata_namespace": "envoy.filters.http.jwt_authn",
                "value": {"jwt_payload": payload},
            }],
        },
    })
}

fn packages() -> Vec<&'static str> {
    IMAGE.split('/').collect()
}

type Place<'a> = (u16, &'a str);

fn pair((port, path): Place<'_>, (their_port, their_path): Place<'_>) -> Pair {
    let url = |port: u16, path: &str| format!("http://127.0.0.1:{port}{path}");
    Pair {
        ours: url(port, path),
        theirs: url(their_port, their_path),
        header: None,
    }
}

fn same_body(ours: Place<'_>, theirs: Place<'_>) -> Result<Pair> {
    let answers = [get(ours.0, ours.1)?, get(theirs.0, theirs.1)?];
    for answer in &answers {
        ensure!(
            answer.status == StatusCode::OK,
            "{} or {} answers {}: {}",
            ours.1,
            theirs.1,
            answer.status,
            answer.text()
        );
    }
    let [ours_answer, their_answer] = answers;
    ensure!(
        ours_answer.body == their_answer.body,
        "{} and {} are not the same",
        ours.1,
        theirs.1
    );
    Ok(pair(ours, theirs))
}

fn get(port: u16, path: &str) -> Result<Response> {
    request(Method::GET, port, path, &[ACCEPT])
}

fn digest_of(answer: &Response, part: impl Fn(&Value) -> &Value) -> Result<String> {
    let manifest: Value = serde_json::from_slice(&answer.body)
        .with_context(|| format!("not a manifest: {}", answer.text()))?;
    let digest = part(&manifest)["digest"].as_str();
    Ok(digest.context("a descriptor has a digest")?.to_owned())
}

fn largest_layer(manifest: &Value) -> &Value {
    let layers = manifest["layers"].as_array();
    let largest =
        layers.and_then(|layers| layers.iter().max_by_key(|layer| layer["size"].as_u64()));
    largest.unwrap_or(&Value::Null)
}
