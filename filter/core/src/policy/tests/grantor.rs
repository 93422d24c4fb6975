//! The rule that lets a caller in.

use super::*;

#[test]
fn one_of_the_rules_that_let_a_caller_in_is_its_grantor() {
    let team = |name: &str| json!({"jwt_claim": {"path": ["g"], "type": "list", "glob": name}});
    let mut rules = json!([
        {"name": "everybody", "allow": ["@shell", "git"], "images": ["corp/*"]},
        {"name": "web", "subject": team("web"), "allow": ["git", "htop", "nano"],
         "images": ["corp/web"]},
        {"name": "data", "subject": team("data"), "allow": ["g*", "htop"], "max_packages": 2},
        {"name": "trial", "subject": team("trial"), "mode": "audit", "deny": ["curl"]},
        {"name": "soon", "mode": "audit", "deny": ["htop"]},
        {"name": "no", "subject": team("web"), "deny": ["vim"]},
    ]);
    let grantor = |policy: &Policy, name: &str, groups_of: &[&str]| {
        let repository = Repository::parse(name).unwrap();
        let opaque = OpaqueNamespaces::new(["corp".to_owned()]).unwrap();
        let image = ImageName::of(&repository, &opaque).unwrap();
        let tag = Tag::latest();
        let request = Request {
            image: &image,
            written: image.written(&repository),
            tag: Some(&tag),
        };
        let grantor = policy.grantor(&request, &groups(groups_of));
        grantor.map(str::to_owned)
    };
    let denying = policy("deny", rules.clone());
    for (name, groups_of, expected) in [
        // What everybody has names nobody; another rule does, of whatever package.
        ("git", &["web"][..], Some("web")),
        ("shell/git", &["data"], Some("data")),
        ("shell", &["data"], None),
        ("git", &["staff"], None),
        // The one that is written first, in whatever order they are found.
        ("htop", &["data", "web"], Some("web")),
        ("gdb/htop", &["data", "web"], Some("web")),
        // Not one whose limits don't hold.
        ("git/htop/nano", &["data", "web"], Some("web")),
        ("gdb/git/nano", &["data"], None),
        // An audited rule lets in what no rule allows.
        ("vim", &["trial"], Some("trial")),
        ("curl", &["trial"], Some("trial")),
        ("git", &["trial"], None),
        ("corp/web", &["web"], Some("web")),
        ("corp/git", &["web"], None),
        // Nothing had to be granted.
        ("cacert", &["web"], None),
    ] {
        let found = grantor(&denying, name, groups_of);
        assert_eq!(found.as_deref(), expected, "{name} for {groups_of:?}");
    }
    assert_eq!(
        grantor(&policy("allow", rules.clone()), "git", &["web"]),
        None
    );
    rules[1]["mode"] = json!("audit");
    let audited = grantor(&policy("deny", rules), "git", &["web"]);
    assert_eq!(audited.as_deref(), Some("web"));
}
