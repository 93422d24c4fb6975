//! The exact bytes of the documents.

use expect_test::{Expect, expect};

use super::*;

fn layer(digit: &str, size: u64, contents: &[&str]) -> LayerSpec {
    let packed = Packed {
        diff_id: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
        digest: format!("sha256:{}", digit.repeat(64))
            .replace("sha256:1", "sha256:f")
            .parse()
            .unwrap(),
        size,
    };
    LayerSpec {
        packed,
        contents: contents.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn spec() -> ImageSpec {
    ImageSpec {
        system: System::X86_64Linux,
        layers: vec![
            layer("1", 31_415_926, &["glibc-2.39", "bash-5.2"]),
            layer("2", 271, &["links of 2 packages"]),
        ],
        execution: Execution {
            cmd: vec!["bash".to_owned()],
            ..Execution::default()
        },
        labels: map(&[("org.nixgate.packages", "bash/git")]),
        annotations: map(&[("org.opencontainers.image.revision", "0123abc")]),
    }
}

fn check(document: &Document, expected: &Expect) {
    expected.assert_eq(std::str::from_utf8(&document.bytes).unwrap());
    assert_eq!(document.digest, Digest::of(&document.bytes));
}

#[test]
fn a_full_image() {
    let image = Image::new(&spec());
    check(
        &image.config,
        &expect![[
            r#"{"created":"1970-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin:/sbin:/usr/bin","SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt","NIX_SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt"],"Cmd":["bash"],"Labels":{"org.nixgate.packages":"bash/git"}},"rootfs":{"type":"layers","diff_ids":["sha256:1111111111111111111111111111111111111111111111111111111111111111","sha256:2222222222222222222222222222222222222222222222222222222222222222"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"nixgate: glibc-2.39 bash-5.2"},{"created":"1970-01-01T00:00:00Z","created_by":"nixgate: links of 2 packages"}]}"#
        ]],
    );
    check(
        &image.docker_manifest,
        &expect![[
            r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"sha256:e5cb16a74267dd20f7abad4baa52cdc7d28288b6a91adee1db69e81e52e1b159","size":628},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"sha256:f111111111111111111111111111111111111111111111111111111111111111","size":31415926},{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"sha256:2222222222222222222222222222222222222222222222222222222222222222","size":271}]}"#
        ]],
    );
    check(
        &image.oci_manifest,
        &expect![[
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e5cb16a74267dd20f7abad4baa52cdc7d28288b6a91adee1db69e81e52e1b159","size":628},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:f111111111111111111111111111111111111111111111111111111111111111","size":31415926},{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:2222222222222222222222222222222222222222222222222222222222222222","size":271}],"annotations":{"org.opencontainers.image.revision":"0123abc"}}"#
        ]],
    );
}

#[test]
fn empty_fields_are_left_out() {
    let image = Image::new(&ImageSpec {
        system: System::Aarch64Linux,
        layers: Vec::new(),
        execution: Execution::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    });
    check(
        &image.config,
        &expect![[
            r#"{"created":"1970-01-01T00:00:00Z","architecture":"arm64","os":"linux","config":{"Env":["PATH=/bin:/sbin:/usr/bin","SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt","NIX_SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt"]},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#
        ]],
    );
    check(
        &image.oci_manifest,
        &expect![[
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:cbacd3343680c9475746c62a6b24d015d3618bf026dbc2247506849c6cf853ef","size":264},"layers":[]}"#
        ]],
    );
}

#[test]
fn a_container_runs_as_specified() {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let image = Image::new(&ImageSpec {
        layers: Vec::new(),
        execution: Execution {
            cmd: words(&["--verbose"]),
            entrypoint: words(&["server", "--port=80"]),
            env: map(&[("LANG", "C.UTF-8"), ("PATH", "/opt/bin:/bin"), ("A", "")]),
            user: Some("1000:1000".to_owned()),
            working_dir: Some("/work".to_owned()),
            exposed_ports: ["80/tcp".to_owned(), "53/udp".to_owned()].into(),
        },
        ..spec()
    });
    check(
        &image.config,
        &expect![[
            r#"{"created":"1970-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"User":"1000:1000","ExposedPorts":{"53/udp":{},"80/tcp":{}},"Env":["PATH=/opt/bin:/bin","SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt","NIX_SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt","A=","LANG=C.UTF-8"],"Entrypoint":["server","--port=80"],"Cmd":["--verbose"],"WorkingDir":"/work","Labels":{"org.nixgate.packages":"bash/git"}},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#
        ]],
    );
}

#[test]
fn annotations_change_only_the_manifest_that_can_hold_them() {
    let plain = Image::new(&ImageSpec {
        annotations: BTreeMap::new(),
        ..spec()
    });
    let annotated = Image::new(&spec());
    assert_eq!(plain.config, annotated.config);
    assert_eq!(plain.docker_manifest, annotated.docker_manifest);
    assert_ne!(plain.oci_manifest, annotated.oci_manifest);
}
