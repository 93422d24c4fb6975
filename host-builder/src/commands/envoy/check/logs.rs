//! Access logs of the listeners that pulls come through.

use super::super::chains::{Chain, Scene};
use super::super::finding::{At, Check, Findings};
use super::super::node::Node;

/// Which requests a log has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Registry,
    Others,
    All,
}

pub(super) fn check(scene: &Scene<'_>, found: &mut Findings) {
    for chain in scene.registry_chains() {
        let names = names(scene, chain);
        let logs = chain.manager.items("access_log");
        let mut has_facts = false;
        for log in &logs {
            let scope = scope(log, &names);
            if scope == Scope::Others {
                continue;
            }
            has_facts |= log.any_text(&mut |text| text.contains("wasm.nixgate.outcome:"));
            if has_query(log) {
                let what = match scope {
                    Scope::Registry => "the registry's log has the queries of requests",
                    Scope::All | Scope::Others => {
                        "a log for all services has the registry's requests with their queries"
                    }
                };
                found.warning(
                    Check::LogWithQuery,
                    At(chain.label(), &log.path),
                    what,
                    "log %PATH(NQ)% instead, or leave the registry out of this log by a filter \
                     (envoy/existing-ingress/envoy.yaml has one)",
                );
            }
        }
        if scene.filter_of(chain).is_some() && !has_facts {
            found.warning(
                Check::LogWithoutFacts,
                At(chain.label(), &chain.manager.path),
                "no access log has what the filter says of a request",
                "add the access log of envoy/existing-ingress/envoy.yaml",
            );
        }
        if let Some(tracing) = chain.manager.get("tracing") {
            found.warning(
                Check::Tracing,
                At(chain.label(), &tracing.path),
                "requests of the registry may be traced",
                "set the route's tracing to { overall_sampling: { numerator: 0 } }, or protect the \
                 traces as the tokens",
            );
        }
    }
}

/// By what a filter of a log can tell the registry's requests.
fn names<'a>(scene: &Scene<'a>, chain: &Chain<'a>) -> Vec<String> {
    let hosts = chain.hosts.iter().filter(|host| scene.has_registry(host));
    let names = hosts.map(|host| format!("'{}'", host.node.name()));
    ["wasm.nixgate".to_owned()]
        .into_iter()
        .chain(names)
        .collect()
}

fn scope(log: &Node<'_>, names: &[String]) -> Scope {
    let mut scope = Scope::All;
    let Some(filter) = log.get("filter") else {
        return scope;
    };
    filter.each_object(&mut |node| {
        if let Some(metadata) = node.get("metadata_filter") {
            scope = metadata_scope(&metadata).unwrap_or(scope);
        }
        let Some(expression) = node.text("expression") else {
            return;
        };
        let expression = expression.replace('"', "'");
        if names.iter().any(|name| expression.contains(name)) {
            let is_without = expression.trim_start().starts_with('!') || expression.contains("!=");
            scope = if is_without {
                Scope::Others
            } else {
                Scope::Registry
            };
        }
    });
    scope
}

/// What a filter for the mark of the registry's requests lets through; none when it is for another mark.
fn metadata_scope(filter: &Node<'_>) -> Option<Scope> {
    let matcher = filter.get("matcher")?;
    matcher
        .text("filter")
        .filter(|name| name.contains("nixgate"))?;
    let wanted = matcher
        .get("value")
        .and_then(|value| value.flag("bool_match"));
    // Other requests have no mark.
    let others = filter.flag("match_if_key_not_found").unwrap_or(true);
    Some(match (wanted == Some(true), others) {
        (true, true) => Scope::All,
        (true, false) => Scope::Registry,
        (false, _) => Scope::Others,
    })
}

/// Whether the lines of a log have the queries of requests.
fn has_query(log: &Node<'_>) -> bool {
    let Some(config) = log.typed() else {
        return false;
    };
    match log.kind() {
        "HttpGrpcAccessLogConfig" => true,
        "StdoutAccessLog" | "StderrAccessLog" | "FileAccessLog" => {
            let formats = ["log_format", "format", "json_format", "typed_json_format"];
            let mut formats = formats.iter().filter_map(|key| config.get(key)).peekable();
            // Envoy's own format has the whole path.
            formats.peek().is_none() || formats.any(|one| one.any_text(&mut writes_query))
        }
        _ => config.any_text(&mut writes_query),
    }
}

fn writes_query(format: &str) -> bool {
    let format = format.to_ascii_uppercase();
    let mut paths = format.match_indices("%PATH");
    let with_query = paths.any(|(at, found)| {
        let rest = format.get(at + found.len()..).unwrap_or_default();
        !rest.starts_with("(NQ")
    });
    let names = [
        "%REQ(:PATH",
        "%REQ(X-ENVOY-ORIGINAL-PATH",
        "?:PATH)",
        "REQUEST.PATH",
        "REQUEST.QUERY",
        "%QUERY_PARAM",
    ];
    with_query || names.iter().any(|name| format.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_with_queries_are_told_from_those_without() {
        for format in [
            "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
            "%req(:path)%",
            "%PATH%",
            "%PATH(WQ)%",
            "%CEL(request.path)%",
        ] {
            assert!(writes_query(format), "{format}");
        }
        for format in [
            "%PATH(NQ):1024%",
            "%REQ(:METHOD)%",
            "%CEL(request.url_path)%",
        ] {
            assert!(!writes_query(format), "{format}");
        }
    }
}
