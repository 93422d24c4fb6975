use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

/// Where secrets stand in what programs print; `{}` is the secret.
const PLACES: &[&str] = &[
    "fatal: unable to access 'https://user:{}@git.corp/packages.git/': 403",
    "fetching https://{}@git.corp/packages.git",
    "https://oauth2:{}@git.corp:8443/x?ref=main#a@b",
    "unable to download 'https://git.corp/x.tar.gz?private_token={}': 404",
    "GET /x?ref=main&access_token={}&page=2",
    "https://s3.corp/b/k?X-Amz-Algorithm=AWS4&X-Amz-Credential={}&X-Amz-Signature=0",
    "https://s3.corp/b/k?X-Amz-Date=0&X-Amz-Security-Token={}",
    "https://s3.corp/b/k?X-Amz-SignedHeaders=host&X-Amz-Signature={}",
    "https://blob.corp/c/k?sv=2022&sig={}&se=1",
    "https://gs.corp/b/k?X-Goog-Signature={}",
    "https://cb.corp/?code={}",
    "<a href=\"/x?a=b&amp;private_token={}\">",
    "> Authorization: Basic {}",
    "authorization: Bearer {}",
    "=> Send header: Authorization: token {}",
    "\"Authorization\": \"Bearer {}\"",
    "Proxy-Authorization: Basic {}",
    "Cookie: session={}; other=1",
    "set-cookie: id={}; HttpOnly",
    "PRIVATE-TOKEN: {}",
    "X-Amz-Security-Token:{}",
    "nixgate-token: {}",
    "WWW sent Bearer {}0123456789abcdef and no more",
    "[\"--option\", \"access-tokens\", \"git.corp={} github.com=x\"]",
    "access-tokens = github.com={}",
    "warning: AWS_SECRET_ACCESS_KEY={} is set",
    "GITLAB_TOKEN='{}' curl",
    "password={}, and nothing else",
    "curl --token {} https://git.corp",
    "[\"--password\", \"{}\", \"x\"]",
    "curl -u user:{} https://git.corp",
    "curl --user user:{} https://git.corp",
    "{\"access_token\":\"{}\",\"expires_in\":900}",
    "{\"user\": \"a\", \"password\": \"{}\"}",
    "machine git.corp login alice password {}",
    "machine git.corp\n  login alice\n  password {}\n",
    "default login x password \"{}\"",
    "<StringToSign>AWS4\n{}</StringToSign>",
    "<AWSAccessKeyId>{}</AWSAccessKeyId>",
    "token ghp_{}0123456789abcdefghij was refused",
    "glpat-{}0123456789abcdef",
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.{}",
    "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\nafter",
    "-----BEGIN PRIVATE KEY-----\n{}",
];

/// What secrets are told by, in pieces.
const WORDS: &[&str] = &[
    "token",
    "Secret",
    "passw",
    "ord",
    "password",
    "passphrase",
    "signature",
    "credential",
    "api",
    "access",
    "key",
    "KEY",
    "id",
    "jwt",
    "sig",
    "auth",
    "orization",
    "cookie",
    "private",
    "PRIVATE KEY-----",
    "-----BEGIN ",
    "proxy-",
    "x-",
    "bearer",
    "Basic",
    "access-tokens",
    "--",
    "-u",
    "--user",
    "machine",
    "login",
    "default",
    "<StringToSign>",
    "gh",
    "p_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "AKIA",
    "eyJ",
    "$2b$12$",
    "https",
    "://",
    "@",
    "=",
    ":",
    "?",
    "&",
    ";",
    ".",
    "-",
    "_",
    "/",
    "\"",
    "'",
    ",",
    " ",
    "\n",
    "\u{a0}",
    "é",
    "a",
    "b1",
    "0123456789abcdef",
    "ABCDEFGHIJKLMNOPQRST",
];

proptest! {
    #[test]
    fn a_secret_goes_wherever_its_surroundings_tell_it(
        secret in "[A-Za-z0-9]{6,40}",
        place in proptest::sample::select(PLACES),
        before in "[ -~\n]{0,20}[\n ]",
        after in "[\n ][ -~\n]{0,20}",
    ) {
        prop_assume!(!place.contains(&secret) && !before.contains(&secret) && !after.contains(&secret));
        prop_assume!(!"redacted".contains(&secret));
        let text = format!("{before}{}{after}", place.replace("{}", &secret));
        let redacted = redact(&text);
        prop_assert!(!redacted.contains(&secret), "{redacted}");
        prop_assert_eq!(redact(&redacted), redacted);
    }

    #[test]
    fn a_secret_of_the_settings_goes_wherever_it_stands_and_however_it_is_written(
        secret in "known-[ -~]{6,20}[a-z0-9]",
        before in "[ -~]{0,20}",
        after in "[ -~]{0,20}",
    ) {
        keep_secret(&secret);
        let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        for written in [secret.clone(), encoded, format!("{secret:?}")] {
            let redacted = redact(&format!("{before}{written}{after}"));
            prop_assert!(!redacted.contains(&written), "{redacted}");
        }
    }

    #[test]
    fn the_signs_of_a_secret_miss_none(
        places in proptest::collection::vec(proptest::sample::select(PLACES), 1..4),
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..24),
        separator in "[ ,;\n]?",
        secret in "[A-Za-z0-9é]{1,24}",
        // Letters that are others in capitals: of `k` and `s` there are two.
        odd in any::<bool>(),
    ) {
        let joined = words.concat();
        let mut text = format!("{joined}{separator}{}", places.concat().replace("{}", &secret));
        if odd {
            text = text.to_uppercase().replace('K', "\u{212a}").replace('S', "ſ");
        }
        for text in [joined, text] {
            prop_assert_eq!(patterns::without(&text), patterns::without_signs(&text));
        }
    }

    #[test]
    fn each_pattern_has_its_sign(
        matches in patterns::without_borders()
            .iter()
            .map(|pattern| proptest::string::string_regex(pattern).unwrap())
            .collect::<Vec<_>>(),
    ) {
        for one in matches {
            let text = format!(" {one} ");
            prop_assert_eq!(patterns::without(&text), patterns::without_signs(&text));
        }
    }

    #[test]
    fn no_text_is_too_odd(text in ".{0,200}") {
        redact(&text);
    }
}

#[test]
fn other_text_stays() {
    for text in [
        "https://host/path?ref=main&page=2",
        "nobody@example.org ://",
        "no token is set. Set NIXGATE_TOKEN to the value that Envoy has, or pass --allow-direct",
        "a wrong password",
        "warning: ignoring the client-specified setting 'access-tokens', because it is a restricted setting",
        "error: builder for '/nix/store/a-tokenizer-1.drv' failed with exit code 1",
        "pass a token; the author: nobody. basic authentication is required",
        "cannot fetch the keys of the OIDC issuer",
        "?author=alice&tokens",
        "@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"error: attribute 'password' missing\"}",
        "default login",
    ] {
        assert_eq!(redact(text), text);
    }
}

#[test]
fn the_text_around_a_secret_stays() {
    for (text, expected) in [
        (
            "unable to download 'http://user:pw@host/a@b': 404",
            "unable to download 'http://host/a@b': 404",
        ),
        (
            "two: https://a@b https://c:d@e@f?g",
            "two: https://b https://f?g",
        ),
        (
            "GET https://host/x?a=b&private_token=abc&c=d: 404",
            "GET https://host/x?a=b&private_token=[redacted]&c=d: 404",
        ),
        (
            "authorization: Bearer abc\nnext",
            "authorization: [redacted]\nnext",
        ),
        (
            "machine h login l password p machine i",
            "machine h login l password [redacted] machine i",
        ),
    ] {
        assert_eq!(redact(text), expected);
    }
}

#[test]
fn settings_say_their_secrets_in_many_ways() {
    let secret = |name: &str| format!("marked-{name}-secret");
    let variables = [
        ("GITLAB_TOKEN", secret("variable")),
        (
            "HTTPS_PROXY",
            format!("http://me:{}@proxy", secret("proxy")),
        ),
        (
            "NIX_CONFIG",
            format!("cores = 1\naccess-tokens = a=x b=PAT:{}", secret("config")),
        ),
        (
            "GIT_CONFIG_VALUE_0",
            format!("Authorization: Bearer {}", secret("header")),
        ),
    ];
    keep_environment(variables.map(|(name, value)| (name.into(), value.into())));
    keep_url(&format!("git+https://{}@host/x", secret("user")));
    keep_url(&format!(
        "https://host/x?ref=a&job_token={}",
        secret("query")
    ));
    keep_nix_option("extra-access-tokens", &format!("host={}", secret("option")));
    keep_credentials("me", &secret("netrc"));
    for name in [
        "variable", "proxy", "config", "header", "user", "query", "option", "netrc",
    ] {
        let secret = secret(name);
        assert_eq!(redact(&format!("a{secret}b")), "a[redacted]b", "{name}");
    }
    let basic = STANDARD.encode(format!("me:{}", secret("netrc")));
    assert_eq!(redact(&format!("said {basic}.")), "said [redacted].");
    // What is about secrets is none.
    let about = [
        ("NIXGATE_TOKEN_ISSUER", "about-the-issuer"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/about/the/file"),
    ];
    keep_environment(about.map(|(name, value)| (name.into(), value.into())));
    for (_, value) in about {
        assert_eq!(redact(value), value);
    }
}
