//! Of where the filter is, and for whom.

use super::*;

#[test]
fn a_filter_that_is_on_for_other_services_is_an_error() {
    // The path that Envoy answers itself is no service.
    makes(
        &[
            (Severity::Error, Check::OtherServices),
            (Severity::Warning, Check::OtherServices),
        ],
        &ingress().manager("/http_filters/1", json!({"disabled": null})),
        &ingress(),
    );
    // Beside another registry, the filter judges all names; another host is something else.
    let other = json!({"name": "app", "domains": ["app.corp"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "other_registry"}}]});
    let beside = Example::new("beside-registry");
    let changed = beside.clone().push("/route_config/virtual_hosts", 0, other);
    let found = made_by(&changed, &beside);
    assert!(
        found.contains(&(Severity::Error, "other-services")),
        "{}",
        changed.report()
    );
    let changed = beside.clone().settings(json!({"name_prefix": null}));
    makes(
        &[(Severity::Error, Check::OtherServices)],
        &changed,
        &beside,
    );
}

#[test]
fn a_registry_without_its_filter_is_an_error() {
    let no_override = json!({"typed_per_filter_config": null});
    makes(
        &[
            (Severity::Error, Check::NeverEnabled),
            (Severity::Error, Check::RouteWithoutFilter),
        ],
        &ingress().manager(REGISTRY, no_override),
        &ingress(),
    );
    let bare = json!({"name": "bare", "domains": ["bare.corp"],
        "routes": [{"match": {"prefix": "/v2/"}, "route": {"cluster": "nixgate_builder",
            "timeout": "0s", "idle_timeout": "28s"}}]});
    error(
        Check::RouteWithoutFilter,
        &ingress().push("/route_config/virtual_hosts", 0, bare),
    );
    let none = json!({"name": "other", "config_discovery": null, "disabled": null,
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"}});
    let changed = ingress().manager("/http_filters/1", none);
    let found = made_by(&changed, &ingress());
    for check in ["no-filter", "route-without-filter"] {
        assert!(
            found.contains(&(Severity::Error, check)),
            "{}",
            changed.report()
        );
    }
}

#[test]
fn the_filter_is_last_before_the_router() {
    let filter = |name: &str| json!({"name": name, "typed_config": {"@type": format!("type.googleapis.com/x.v3.{name}")}});
    error(
        Check::NotLast,
        &ingress().push("/http_filters", 2, filter("ExtAuthz")),
    );
    warning(
        Check::NotLast,
        &ingress().push("/http_filters", 2, filter("Lua")),
    );
    // In front of it is their place.
    makes(
        &[],
        &ingress().push("/http_filters", 0, filter("ExtAuthz")),
        &ingress(),
    );
    // One that is off on the registry's routes is nobody's.
    let mut off = filter("Lua");
    off["disabled"] = true.into();
    makes(&[], &ingress().push("/http_filters", 2, off), &ingress());
    warning(
        Check::Compressor,
        &ingress().push("/http_filters", 0, filter("Compressor")),
    );
}

#[test]
fn what_belongs_to_the_registry_alone_reaches_no_other_service() {
    let jwt = |rule: Value| {
        json!({"name": "jwt", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"nixgate": {"remote_jwks": {"http_uri": {"cluster": "nixgate_builder"}}},
                "other": {"remote_jwks": {"http_uri": {"cluster": "app"}}}},
            "rules": [rule],
        }})
    };
    let rule =
        |provider: &str| json!({"match": {"prefix": "/"}, "requires": {"provider_name": provider}});
    error(
        Check::JwtElsewhere,
        &ingress().push("/http_filters", 0, jwt(rule("nixgate"))),
    );
    makes(
        &[],
        &ingress().push("/http_filters", 0, jwt(rule("other"))),
        &ingress(),
    );
    let mut bound = rule("nixgate");
    bound["match"]["headers"] =
        json!([{"name": ":authority", "string_match": {"exact": "registry.corp"}}]);
    makes(
        &[],
        &ingress().push("/http_filters", 0, jwt(bound)),
        &ingress(),
    );

    let limit = json!({"name": "limit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "token_bucket": {"max_tokens": 1}}});
    warning(
        Check::LimitElsewhere,
        &ingress().push("/http_filters", 0, limit),
    );
}
