//! Envoy's own answers on the registry's routes, and on those of others.

use super::super::chains::{Chain, Scene};
use super::super::finding::{At, Check, Findings};
use super::super::node::Node;

/// What binds a mapper to some requests: only the registry's route has it, or only its filter says so.
const BINDING: [&str; 8] = [
    "xds.virtual_host_name",
    "xds.virtual_host_metadata",
    "xds.route_name",
    "xds.route_metadata",
    "xds.cluster_name",
    "wasm.nixgate",
    "wasm_fail_stream",
    "request.host",
];

pub(super) fn check(scene: &Scene<'_>, found: &mut Findings) {
    for chain in &scene.chains {
        if scene.filter_of(chain).is_some() {
            replies(scene, chain, found);
        }
    }
}

fn replies(scene: &Scene<'_>, chain: &Chain<'_>, found: &mut Findings) {
    let config = chain.manager.get("local_reply_config");
    let mappers = config
        .as_ref()
        .map(|one| one.items("mappers"))
        .unwrap_or_default();
    let is_shared = scene.is_shared(chain);
    for mapper in mappers.iter().filter(|_| is_shared) {
        if mapper.get("filter").is_some_and(|filter| is_bound(&filter)) {
            continue;
        }
        let at = || At(chain.label(), &mapper.path);
        if has_registrys_form(mapper) {
            found.add(
                scene.harm(chain),
                Check::ReplyNotBound,
                at(),
                "a mapper of local_reply_config gives answers of other services a registry's form",
                "bind its filter to the registry, in an and_filter: by a metadata_filter, as \
                 envoy/existing-ingress/envoy.yaml does, or a CEL expression such as \
                 \"xds.virtual_host_name == 'nixgate'\"",
            );
        } else if changes(mapper) && !is_for_flags(mapper) {
            found.warning(
                Check::ReplyRewrites,
                at(),
                "a mapper of local_reply_config changes answers of the registry too",
                "add to its filter, in an and_filter, a CEL expression that leaves the registry out, \
                 such as \"xds.virtual_host_name != 'nixgate'\"",
            );
        }
    }
    let format = config.as_ref().and_then(|one| one.get("body_format"));
    if let Some(format) = format {
        let source = format.get("text_format_source");
        let source = source.as_ref().and_then(|one| one.text("inline_string"));
        let text = source.or_else(|| format.text("text_format"));
        if text != Some("%LOCAL_REPLY_BODY%") {
            found.error(
                Check::ReplyRewrites,
                At(chain.label(), &format.path),
                "local_reply_config.body_format changes every answer of the filter, manifests too",
                "remove body_format, and give its format to mappers that leave the registry out",
            );
        }
    }
    if !mappers.iter().any(has_registrys_form) {
        let path = config.as_ref().map_or(&chain.manager.path, |one| &one.path);
        found.warning(
            Check::ReplyFormat,
            At(chain.label(), path),
            "Envoy's own errors do not have a registry's form",
            "add the mappers of envoy/existing-ingress/envoy.yaml to local_reply_config",
        );
    }
}

/// Whether a filter of a mapper holds only for requests that are somebody's.
fn is_bound(filter: &Node<'_>) -> bool {
    if let Some(all) = filter.get("and_filter") {
        return all.items("filters").iter().any(is_bound);
    }
    if let Some(any) = filter.get("or_filter") {
        let filters = any.items("filters");
        return !filters.is_empty() && filters.iter().all(is_bound);
    }
    if let Some(header) = filter
        .get("header_filter")
        .and_then(|one| one.get("header"))
    {
        return header.name().eq_ignore_ascii_case(":authority");
    }
    if let Some(metadata) = filter.get("metadata_filter") {
        // By default it holds for requests without the metadata too.
        return metadata.flag("match_if_key_not_found") == Some(false);
    }
    let extension = filter.get("extension_filter").and_then(|one| one.typed());
    let expression = extension.as_ref().and_then(|one| one.text("expression"));
    expression.is_some_and(|expression| BINDING.iter().any(|name| expression.contains(name)))
}

/// The filter's answers have no flags of Envoy, so a mapper for flags leaves them alone.
fn is_for_flags(mapper: &Node<'_>) -> bool {
    let filter = mapper.get("filter");
    let all = filter.as_ref().and_then(|one| one.get("and_filter"));
    let all = all.map(|one| one.items("filters")).unwrap_or_default();
    let mut filters = filter.into_iter().chain(all);
    filters.any(|one| one.get("response_flag_filter").is_some())
}

fn changes(mapper: &Node<'_>) -> bool {
    let keys = ["status_code", "body", "body_format_override"];
    keys.iter().any(|key| mapper.get(key).is_some())
}

fn has_registrys_form(mapper: &Node<'_>) -> bool {
    let format = mapper.get("body_format_override");
    let json = format.as_ref().and_then(|one| one.get("json_format"));
    let is_json = json.is_some_and(|one| {
        one.items("errors")
            .iter()
            .any(|error| error.get("code").is_some())
    });
    let is_text = |node: Node<'_>| {
        node.any_text(&mut |text| text.contains("\"errors\"") && text.contains("\"code\""))
    };
    is_json || format.is_some_and(is_text) || mapper.get("body").is_some_and(is_text)
}
