//! Of the filter's own file and module.

use super::*;

#[test]
fn the_filters_file_has_one_resource_with_its_name_and_good_settings() {
    let mut two = ingress();
    let resources = two.at(1, "/resources").as_array_mut().unwrap();
    resources.push(resources[0].clone());
    error(Check::Resources, &two);
    let renamed = ingress().filter("/resources/0", json!({"name": "other"}));
    let found = made_by(&renamed, &ingress());
    assert!(
        found.contains(&(Severity::Error, "not-delivered")),
        "{}",
        renamed.report()
    );

    for (patch, part) in [
        (json!({"hold_second": 20}), "unknown field `hold_second`"),
        (json!({"hold_seconds": 60}), "hold_seconds is 60"),
        (json!({"policy": {"revision": "1"}}), "missing field"),
    ] {
        let changed = ingress().settings(patch);
        let report = changed.report().to_string();
        assert!(
            report.contains("error settings: filter nixgate: "),
            "{report}"
        );
        assert!(report.contains(part), "{report}");
    }
    let none = ingress().filter(PLUGIN, json!({"configuration": null}));
    assert!(made_by(&none, &ingress()).contains(&(Severity::Error, "settings")));
    let cluster = ingress().settings(json!({"builder": {"cluster": "other"}}));
    let found = made_by(&cluster, &ingress());
    assert!(
        found.contains(&(Severity::Error, "builder-cluster")),
        "{}",
        cluster.report()
    );
}

#[test]
fn settings_may_be_bytes_and_no_mapping() {
    let mapping = json!({"builder": {"cluster": "nixgate_builder", "token_env": "NIXGATE_TOKEN"},
        "hold_seconds": 60});
    let changed = ingress().filter(
        &format!("{PLUGIN}/configuration"),
        json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": mapping}),
    );
    assert!(
        changed
            .report()
            .to_string()
            .contains("a Struct that the filter can't read")
    );
    let bytes = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        mapping.to_string(),
    );
    let changed = ingress().filter(
        &format!("{PLUGIN}/configuration"),
        json!({"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": bytes}),
    );
    assert!(changed.report().to_string().contains("hold_seconds is 60"));
}

#[test]
fn the_filters_vm_has_its_token_its_module_and_its_own_memory() {
    let vm = |patch: Value| ingress().filter(&format!("{PLUGIN}/vm_config"), patch);
    let plugin = |patch: Value| ingress().filter(PLUGIN, patch);
    let unlisted = vm(json!({"environment_variables": {"host_env_keys": ["OTHER"]}}));
    error(Check::TokenVariable, &unlisted);
    let written = json!({"environment_variables": {"key_values": {"NIXGATE_TOKEN": "a"}}});
    warning(Check::TokenInText, &vm(written));
    warning(Check::VmId, &vm(json!({"vm_id": null})));
    let other = json!({"name": "other", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {"vm_config": {"vm_id": "nixgate", "code": {"local": {"filename": "other.wasm"}}}}}});
    error(
        Check::VmId,
        &ingress().push("/http_filters", 0, other.clone()),
    );
    let mut own = other;
    own["typed_config"]["config"]["vm_config"]["vm_id"] = "other".into();
    makes(&[], &ingress().push("/http_filters", 0, own), &ingress());
    error(
        Check::FailurePolicy,
        &plugin(json!({"failure_policy": "FAIL_OPEN"})),
    );
    error(Check::FailurePolicy, &plugin(json!({"fail_open": true})));
    warning(
        Check::FailurePolicy,
        &plugin(json!({"failure_policy": null})),
    );
    warning(Check::ReloadConfig, &plugin(json!({"reload_config": null})));
    let slow = json!({"reload_config": {"backoff": {"base_interval": "1s"}}});
    warning(Check::ReloadConfig, &plugin(slow));

    let module = |module: Module| {
        let mut example = ingress();
        example.modules.insert(MODULE.to_owned(), module);
        example
    };
    error(
        Check::Module,
        &module(Module::Unreadable("gone".to_owned())),
    );
    error(Check::Module, &module(Module::NotWasm));
    warning(Check::ModuleVersion, &module(Module::Version(None)));
    let old = Some("1.2.2+0123456789ab".to_owned());
    warning(Check::ModuleVersion, &module(Module::Version(old)));
    let remote = json!({"code": {"local": null, "remote": {"sha256": "a"}}});
    makes(&[(Severity::Note, Check::Module)], &vm(remote), &ingress());
    let default =
        json!({"config_discovery": {"default_config": {"@type": "type.googleapis.com/x.v3.Cors"}}});
    warning(
        Check::DefaultConfig,
        &ingress().manager("/http_filters/1", default),
    );
}

#[test]
fn a_modules_version_is_found_among_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let folders = Folders {
        directory: folder.path().to_owned(),
        maps: Vec::new(),
    };
    let version = |content: &[u8]| {
        std::fs::write(folder.path().join("a.wasm"), content).unwrap();
        let plugin =
            json!({"resources": [{"vm_config": {"code": {"local": {"filename": "a.wasm"}}}}]});
        std::fs::write(folder.path().join("a.yaml"), plugin.to_string()).unwrap();
        let sources = read::files(&[folder.path().join("a.yaml")], &folders).unwrap();
        sources.modules["a.wasm"].clone()
    };
    let of = |version: &str| Module::Version(Some(version.to_owned()));
    assert_eq!(
        version(b"\0asm nixgate 0.0.7+0123456789abbuilder"),
        of("0.0.7+0123456789ab")
    );
    assert_eq!(version(b"\0asm nothing 1.2"), Module::Version(None));
    assert_eq!(version(b"text"), Module::NotWasm);
    let own = crate::telemetry::logging::VERSION;
    // What stands before it looks like a part of it.
    assert_eq!(version(format!("\0asm 7{own}abc").as_bytes()), of(own));
}

/// A running Envoy shows static listeners twice, once in its bootstrap.
#[test]
fn a_plugin_that_is_shown_twice_is_one() {
    let mut example = ingress();
    let filter = example.at(1, "/resources/0/typed_config").clone();
    let patch = json!({"config_discovery": null, "typed_config": filter});
    let code = json!({"local": null, "remote": {"sha256": "a"}});
    let mut example = example.manager("/http_filters/1", patch).manager(
        "/http_filters/1/typed_config/config/vm_config",
        json!({"code": code}),
    );
    let bootstrap = example.documents.remove(0).value;
    let listener = bootstrap["static_resources"]["listeners"][0].clone();
    let clusters = bootstrap["static_resources"]["clusters"]
        .as_array()
        .unwrap();
    let clusters: Vec<Value> = clusters.iter().map(|one| json!({"cluster": one})).collect();
    let value = json!({"configs": [
        {"@type": "x.BootstrapConfigDump", "bootstrap": bootstrap},
        {"@type": "x.ListenersConfigDump", "static_listeners": [{"listener": listener}]},
        {"@type": "x.ClustersConfigDump", "static_clusters": clusters},
    ]});
    let source = "config_dump".to_owned();
    example.documents = vec![Document { source, value }];
    let notes = [(Severity::Note, "module")];
    assert_eq!(example.found(), notes.into(), "{}", example.report());
}
