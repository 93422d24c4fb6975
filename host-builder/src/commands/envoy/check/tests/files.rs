//! Of files, and of what they leave out.

use super::*;

/// The ingress with its listeners in a file of their own.
fn delivered(count: usize) -> Example {
    let mut example = ingress();
    let mut listener = example.at(0, "/static_resources/listeners/0").take();
    *example.at(0, "/static_resources/listeners") = json!([]);
    listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
    let listeners: Vec<Value> = (0..count)
        .map(|index| {
            let mut one = listener.clone();
            one["name"] = format!("ingress-{index}").into();
            one
        })
        .collect();
    let source = "lds.yaml".to_owned();
    let value = json!({"resources": listeners});
    example.documents.push(Document { source, value });
    example
}

#[test]
fn delivered_listeners_are_checked_and_share_no_filter() {
    makes(&[], &delivered(1), &ingress());
    warning(Check::SharedDelivery, &delivered(2));
}

#[test]
fn files_that_are_wrong_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let folders = Folders {
        directory: root.to_owned(),
        maps: Vec::new(),
    };
    let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
    let envoy = |file: &str| {
        let manager = json!({"@type": "x.HttpConnectionManager", "http_filters": [{"name": "nixgate",
            "config_discovery": {"config_source": {"path_config_source": {"path": file}}}}]});
        let listener = json!({"filter_chains": [{"filters": [{"typed_config": manager}]}]});
        write(
            "envoy.yaml",
            &json!({"static_resources": {"listeners": [listener]}}).to_string(),
        );
        read::files(&[root.join("envoy.yaml")], &folders).unwrap()
    };
    write("broken.yaml", "a: [");
    write("list.yaml", "- a");
    for (file, part) in [
        ("missing.yaml", "No such file"),
        ("broken.yaml", "it is not YAML"),
        ("list.yaml", "it is not a mapping"),
        (".", "it is not a file"),
    ] {
        let report = check(&envoy(file), "nixgate");
        let named: Vec<_> = report
            .findings
            .iter()
            .filter(|one| one.check == "file")
            .collect();
        assert_eq!(named.len(), 1, "{file}: {report}");
        assert!(named[0].what.contains(part), "{file}: {report}");
        assert!(
            named[0]
                .path
                .contains("http_filters[0].config_discovery.config_source"),
            "{report}"
        );
        assert!(
            report
                .findings
                .iter()
                .all(|one| one.check != "not-delivered"),
            "{report}"
        );
    }
    write("strange.yaml", "a: 1");
    let sources = read::files(&[root.join("strange.yaml")], &folders).unwrap();
    assert_eq!(check(&sources, "nixgate").errors, 1);
    let error = read::files(&[root.join("missing.yaml")], &folders).unwrap_err();
    assert!(format!("{error:#}").contains("cannot read"), "{error:#}");
}

#[test]
fn what_cannot_be_seen_in_files_is_noted() {
    let ads =
        json!({"config_discovery": {"config_source": {"path_config_source": null, "ads": {}}}});
    let mut example = ingress().manager("/http_filters/1", ads);
    example.documents.truncate(1);
    let notes = [(Severity::Note, Check::Unseen)];
    makes(
        &notes,
        &example,
        &Example {
            documents: Vec::new(),
            ..ingress()
        },
    );
    let rds = json!({"route_config": null, "rds": {"route_config_name": "a", "config_source": {"ads": {}}}});
    makes(&notes, &ingress().manager("", rds), &ingress());
    let matcher = json!({"routes": null, "matcher": {"matcher_tree": {}}});
    let changed = ingress().manager("/route_config/virtual_hosts/1", matcher);
    assert!(made_by(&changed, &ingress()).contains(&(Severity::Note, "unseen")));
}

#[test]
fn what_a_running_envoy_refuses_is_an_error_or_was_one() {
    let refused = |refused: u64, taken: u64| {
        let name = |event: &str| format!("extension_config_discovery.http_filter.nixgate.{event}");
        let stats = [
            (name("update_rejected"), refused),
            (name("update_success"), taken),
        ];
        let sources = Sources {
            documents: ingress().documents,
            modules: ingress().modules,
            stats: stats.into(),
            version: VERSION,
            ..Sources::default()
        };
        let report = check(&sources, "nixgate");
        (report.errors, report.warnings)
    };
    assert_eq!(refused(0, 1), (0, 0));
    assert_eq!(refused(1, 0), (1, 0));
    assert_eq!(refused(1, 2), (0, 1));
    let dump = json!({"configs": [{"@type": "x.ListenersConfigDump", "dynamic_listeners": [
        {"name": "ingress", "error_state": {"details": "no such cluster"}}]}]});
    let source = "config_dump".to_owned();
    let sources = Sources {
        documents: vec![Document {
            source,
            value: dump,
        }],
        ..Sources::default()
    };
    let report = check(&sources, "nixgate").to_string();
    assert!(
        report.contains(
            "error refused: listener ingress: Envoy has refused an update: no such cluster"
        ),
        "{report}"
    );
}
