//! The filter's file, its settings, its module and its VM.

use std::collections::BTreeSet;

use super::super::chains::{HttpFilter, Scene, file_of_filter};
use super::super::finding::{At, Check, Findings};
use super::super::gather::file_of;
use super::super::node::Node;
use super::super::plugin::Plugin;
use super::{Module, Sources};

/// A longer interval leaves nobody served for that time after a death.
const RELOAD_SECONDS: f64 = 0.1;

pub(super) fn check(scene: &Scene<'_>, sources: &Sources, name: &str, found: &mut Findings) {
    files(scene, sources, found);
    refusals(scene, found);
    counts(sources, found);
    deliveries(scene, sources, name, found);
    for plugin in &scene.plugins {
        resources(plugin, found);
        settings(scene, plugin, found);
        token(scene, plugin, found);
        module(scene, plugin, sources, found);
        vm(scene, plugin, found);
    }
    shared_delivery(scene, found);
}

fn files(scene: &Scene<'_>, sources: &Sources, found: &mut Findings) {
    for bad in &sources.bad_files {
        found.error(
            Check::File,
            At(format!("file {}", bad.file), &bad.place),
            bad.problem.clone(),
            "correct the path or the file. Paths are relative to the folder that Envoy is started in \
             (--directory)",
        );
    }
    for node in &scene.all.strange {
        found.error(
            Check::File,
            At("file".to_owned(), &node.path),
            "it is neither a configuration of Envoy, nor a file of resources, nor a /config_dump",
            "give envoy.yaml, the files that a discovery service has, or what /config_dump answers",
        );
    }
}

fn refusals(scene: &Scene<'_>, found: &mut Findings) {
    for refusal in &scene.all.refusals {
        found.error(
            Check::Refused,
            At(
                format!("{} {}", refusal.what, refusal.name),
                &refusal.node.path,
            ),
            format!("Envoy has refused an update: {}", refusal.details),
            "correct what Envoy names, and deliver it again",
        );
    }
}

/// Updates that Envoy only counts. `/config_dump` has a filter that it refused like one that it took.
fn counts(sources: &Sources, found: &mut Findings) {
    for (name, &refused) in sources.stats.iter().filter(|(_, count)| **count > 0) {
        let Some(subscription) = name.strip_suffix(".update_rejected") else {
            continue;
        };
        let taken = sources.stats.get(&format!("{subscription}.update_success"));
        let what = format!("Envoy has refused {refused} updates of it since its start");
        let at = At(subscription.to_owned(), name);
        let remedy =
            "read the reason in Envoy's log, correct the configuration, and deliver it again";
        if taken.is_none_or(|&taken| taken == 0) {
            found.error(
                Check::Refused,
                at,
                format!("{what}, and taken none"),
                remedy,
            );
        } else {
            let what = format!("{what}; it may have taken a later one");
            found.warning(Check::Refused, at, what, remedy);
        }
    }
}

/// The filters that chains expect to be delivered.
fn deliveries(scene: &Scene<'_>, sources: &Sources, name: &str, found: &mut Findings) {
    let is_configuration = !scene.chains.is_empty() || !scene.all.bootstraps.is_empty();
    for chain in &scene.chains {
        let lacking = chain.filters.iter().filter(|filter| {
            filter.node.get("config_discovery").is_some()
                && scene
                    .all
                    .extensions
                    .iter()
                    .all(|one| one.node.name() != filter.name)
        });
        for filter in lacking {
            let source = filter.node.at(&["config_discovery", "config_source"]);
            let is_known_bad = |file| sources.bad_files.iter().any(|bad| bad.file == file);
            if file_of_filter(filter).is_some_and(is_known_bad) {
                continue;
            }
            let place = At(
                format!("{}, filter {}", chain.label(), filter.name),
                &filter.node.path,
            );
            let is_elsewhere = source.is_none_or(|source| file_of(&source).is_none());
            if !scene.all.is_running && is_elsewhere {
                found.note(
                    Check::Unseen,
                    place,
                    "a server delivers its configuration",
                    "check the running Envoy with --admin",
                );
            } else if filter.name == name || looks_like_nixgate(filter) {
                found.error(
                    Check::NotDelivered,
                    place,
                    format!("no filter named {} is delivered", filter.name),
                    "give the resource the name of the filter, and read the reason in Envoy's log if \
                     it refused it",
                );
            }
        }
        if chain.lacks_routes {
            let place = At(chain.label(), &chain.manager.path);
            found.note(
                Check::Unseen,
                place,
                "its routes are not in what was read",
                "add the file of its routes, or check the running Envoy with --admin",
            );
        }
    }
    let is_expected = |filter: &HttpFilter<'_>| {
        let is_named = filter.name == name || looks_like_nixgate(filter);
        is_named && filter.node.get("config_discovery").is_some()
    };
    let mut filters = scene.chains.iter().flat_map(|chain| &chain.filters);
    let is_in_a_chain = filters.any(|filter| scene.plugin(filter).is_some() || is_expected(filter));
    if is_configuration && !is_in_a_chain {
        let path = scene.all.documents.first().map_or("", |one| &one.path);
        found.error(
            Check::NoFilter,
            At("Envoy".to_owned(), path),
            format!("no filter named {name}, and none with nixgate's settings, is in a chain"),
            "add the filter to http_filters, before the router; give its name with --name",
        );
    }
}

fn looks_like_nixgate(filter: &HttpFilter<'_>) -> bool {
    filter.name.contains("nixgate")
}

fn resources(plugin: &Plugin<'_>, found: &mut Findings) {
    let Some(extension) = &plugin.extension else {
        return;
    };
    if extension.resources > 1 {
        found.error(
            Check::Resources,
            At(format!("file {}", extension.source), &extension.node.path),
            format!("it has {} resources", extension.resources),
            "give each filter a file of its own",
        );
    }
}

fn settings(scene: &Scene<'_>, plugin: &Plugin<'_>, found: &mut Findings) {
    let path = &plugin.config.path;
    match &plugin.settings {
        Err(error) => found.error(
            Check::Settings,
            At(plugin.label(), path),
            error.clone(),
            "correct the settings; docs/src/settings.md lists them",
        ),
        Ok(settings) => {
            let knows_clusters = !scene.all.clusters.is_empty();
            if knows_clusters && plugin.cluster().is_none() {
                found.error(
                    Check::BuilderCluster,
                    At(plugin.label(), path),
                    format!("Envoy has no cluster {}", settings.config.cluster),
                    "add the cluster, or correct builder.cluster in the settings",
                );
            }
        }
    }
}

fn token(scene: &Scene<'_>, plugin: &Plugin<'_>, found: &mut Findings) {
    let Ok(settings) = &plugin.settings else {
        return;
    };
    let variable = &settings.token_env;
    let environment = plugin.vm().and_then(|vm| vm.get("environment_variables"));
    let path = environment
        .as_ref()
        .map_or(&plugin.config.path, |one| &one.path);
    let place = || At(plugin.label(), path);
    let listed = environment
        .as_ref()
        .and_then(|one| one.get("host_env_keys"));
    let is_listed = listed.is_some_and(|keys| keys.any_text(&mut |key| key == variable));
    let written = environment.as_ref().and_then(|one| one.get("key_values"));
    let is_written = written.is_some_and(|values| {
        let mut values = values.fields().into_iter();
        values.any(|(key, _)| key == variable)
    });
    if is_written {
        found.warning(
            Check::TokenInText,
            place(),
            format!("the token {variable} is written in the configuration"),
            "set the variable for Envoy's process, and list it in host_env_keys instead",
        );
    } else if !is_listed {
        found.error(
            Check::TokenVariable,
            place(),
            format!(
                "the variable {variable} is not in vm_config.environment_variables.host_env_keys"
            ),
            format!("add {variable} to host_env_keys, and set it for Envoy's process"),
        );
    } else if !scene.all.is_running {
        found.note(
            Check::TokenVariable,
            place(),
            format!(
                "whether Envoy's process has the variable {variable} cannot be known from here"
            ),
            "set it to the builder's NIXGATE_TOKEN when you start Envoy",
        );
    }
}

fn module(scene: &Scene<'_>, plugin: &Plugin<'_>, sources: &Sources, found: &mut Findings) {
    let path = plugin
        .vm()
        .map_or_else(|| plugin.config.path.clone(), |vm| vm.path);
    let place = || At(plugin.label(), &path);
    let remedy = "put the module of this version there: \
                  target/wasm32-wasip1/wasm/nixgate_filter.wasm after `make build`";
    let Some(file) = plugin.module() else {
        found.note(
            Check::Module,
            place(),
            "the module is not a file of this machine, so it can't be checked",
            "make sure that it is of the builder's version",
        );
        return;
    };
    match sources.modules.get(file) {
        // A running Envoy has read it, perhaps on another machine.
        Some(Module::Unreadable(why)) if scene.all.is_running => found.warning(
            Check::Module,
            place(),
            format!("the module {file} can't be read here: {why}"),
            "if this is Envoy's machine, put it back: Envoy needs it when it starts",
        ),
        Some(Module::Unreadable(why)) => {
            let what = format!("the module {file} can't be read: {why}");
            found.error(Check::Module, place(), what, remedy);
        }
        Some(Module::NotWasm) => {
            let what = format!("{file} is not a module of WebAssembly");
            found.error(Check::Module, place(), what, remedy);
        }
        Some(Module::Version(version)) if version.as_deref() != Some(sources.version) => {
            let what = match version {
                Some(version) => format!(
                    "the module {file} is version {version}, this is {}",
                    sources.version
                ),
                None => format!("the module {file} has no version of nixgate"),
            };
            found.warning(Check::ModuleVersion, place(), what, remedy);
        }
        Some(Module::Version(_)) | None => {}
    }
}

fn vm(scene: &Scene<'_>, plugin: &Plugin<'_>, found: &mut Findings) {
    let config = &plugin.config;
    let place = || At(plugin.label(), &config.path);
    let policy = config.text("failure_policy").unwrap_or_default();
    if policy == "FAIL_OPEN" || config.is_true("fail_open") {
        found.error(
            Check::FailurePolicy,
            place(),
            "requests pass without the filter when it has died (FAIL_OPEN)",
            "set failure_policy: FAIL_RELOAD",
        );
    } else if policy != "FAIL_RELOAD" {
        found.warning(
            Check::FailurePolicy,
            place(),
            "a filter that has died is not replaced",
            "set failure_policy: FAIL_RELOAD",
        );
    }
    let interval = config.at(&["reload_config", "backoff"]);
    let interval = interval.and_then(|backoff| backoff.seconds("base_interval"));
    if interval.is_none_or(|seconds| seconds > RELOAD_SECONDS) {
        found.warning(
            Check::ReloadConfig,
            place(),
            "after the filter has died, Envoy waits before it makes a new one",
            "set reload_config: { backoff: { base_interval: 0.01s } }",
        );
    }
    let vm_id = plugin.vm();
    let vm_id = vm_id
        .as_ref()
        .and_then(|vm| vm.text("vm_id"))
        .unwrap_or_default();
    if vm_id.is_empty() {
        found.warning(
            Check::VmId,
            place(),
            "it has no vm_id, as other plugins may have none",
            "set vm_config.vm_id: nixgate, and use it for nixgate only",
        );
    }
    for other in other_plugins(scene, vm_id) {
        found.error(
            Check::VmId,
            place(),
            format!("the plugin at {other} has its vm_id {vm_id:?}"),
            "give nixgate a vm_id of its own",
        );
    }
}

/// Where other plugins have this `vm_id`: filters, access loggers, services, whatever loads one.
fn other_plugins(scene: &Scene<'_>, vm_id: &str) -> BTreeSet<String> {
    let mut others = BTreeSet::new();
    for document in &scene.all.documents {
        document.each_object(&mut |node: &Node<'_>| {
            let Some(vm) = node.get("vm_config") else {
                return;
            };
            let code = vm.at(&["code", "local"]);
            let module = code.and_then(|one| one.text("filename"));
            // The dump of a running Envoy has the same plugin in more than one place.
            let is_nixgates = scene.plugins.iter().any(|plugin| {
                plugin.config.value == node.value
                    || plugin.module().is_some_and(|one| Some(one) == module)
            });
            if !is_nixgates && vm.text("vm_id").unwrap_or_default() == vm_id {
                others.insert(node.path.clone());
            }
        });
    }
    others
}

fn shared_delivery(scene: &Scene<'_>, found: &mut Findings) {
    for plugin in scene.plugins.iter().filter(|one| one.extension.is_some()) {
        let delivered = scene.chains.iter().filter(|chain| chain.is_delivered);
        let with_it: BTreeSet<&str> = delivered
            .filter(|chain| {
                let mut filters = chain.filters.iter();
                filters.any(|filter| plugin.is_at(filter.name, &filter.node))
            })
            .map(|chain| chain.listener.name())
            .collect();
        if with_it.len() > 1 {
            let names: Vec<&str> = with_it.into_iter().collect();
            found.warning(
                Check::SharedDelivery,
                At(plugin.label(), &plugin.config.path),
                format!("the listeners {} share the filter", names.join(", ")),
                "give each listener a filter with a name and a file of its own, or use one listener",
            );
        }
    }
    for chain in &scene.chains {
        for filter in &chain.filters {
            let discovery = filter.node.get("config_discovery");
            let default = discovery.and_then(|one| one.get("default_config"));
            if let (Some(default), Some(_)) = (default, scene.plugin(filter)) {
                found.warning(
                    Check::DefaultConfig,
                    At(
                        format!("{}, filter {}", chain.label(), filter.name),
                        &default.path,
                    ),
                    "the filter has a default_config",
                    "remove default_config: without it Envoy answers 500 until the filter is there",
                );
            }
        }
    }
}
