//! Secrets that are told by what is around them.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Regex, RegexSet};

/// What is looked for, and what stands there then. A name counts wherever a word of it says secret:
/// `private_token`, `X-Amz-Security-Token`, `AWS_SECRET_ACCESS_KEY`.
const PATTERNS: [(&str, &str); 15] = [
    // A private key, as far as it is there.
    (
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
        "[redacted]",
    ),
    // `user:password@` of a URL (RFC 3986, 3.2.1).
    (r#"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'"]*@"#, "$1"),
    // Fields of a query or a form: forges, presigned URLs of S3, Google and Azure, OAuth.
    (
        r#"(?i)([?&;](?:[\w.-]*(?:token|secret|passw|signature|credential|api[_-]?key|access[_-]?key|jwt)[\w.-]*|key|sig|code|auth|pwd|sas)=)[^\s&#'"<>;]+"#,
        "${1}[redacted]",
    ),
    // Headers, as curl, git and HTTP libraries print them; their whole value.
    (
        r#"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie2?|(?:private|job|deploy|nixgate)-token|x-[a-z0-9-]*(?:token|secret|key|signature|auth)[a-z0-9-]*)(["']?\s*:\s*["']?)[^\r\n"']+"#,
        "$1$2[redacted]",
    ),
    // Credentials without the header's name.
    (
        r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/_~.=-]{16,}",
        "$1 [redacted]",
    ),
    // Nix's `access-tokens = host=token host=token`, as a setting and as an argument.
    (
        r#"(?i)(access-tokens["'\s,=:]+)(?:[\w.-]+(?:/[\w./-]*)?=[^\s"';,]+\s*)+"#,
        "${1}[redacted]",
    ),
    // A variable, or a setting.
    (
        r#"(?i)\b([\w.-]*(?:token|secret|passwd|password|passphrase|api[_-]?key|access[_-]?key|access[_-]?key[_-]?id|private[_-]?key)=)(?:"[^"]*"|'[^']*'|[^\s"'&,;)]+)"#,
        "${1}[redacted]",
    ),
    // A flag of a command, also in a list of arguments.
    (
        r#"(?i)(--[\w-]*(?:token|secret|password|passphrase)["',=\s]+)[^\s"',<]+"#,
        "${1}[redacted]",
    ),
    (
        r#"(\s-u["',\s]*|--(?:proxy-)?user["',=\s]+)[^\s"',:]+:[^\s"']+"#,
        "${1}[redacted]",
    ),
    // A field of JSON.
    (
        r#"(?i)("[\w.-]*(?:token|secret|passw|passphrase|private_?key|api_?key|access_?key|credential)[\w.-]*"\s*:\s*")(?:[^"\\]|\\.)*"#,
        "${1}[redacted]",
    ),
    // A netrc file.
    (
        r#"(?i)\b((?:machine\s+\S+|default|login\s+\S+|account\s+\S+)\s+password\s+)(?:"(?:[^"\\]|\\.)*"|\S+)"#,
        "${1}[redacted]",
    ),
    // What S3 answers to a signature that is wrong: it quotes what was to be signed.
    (
        r"(?i)(<(?:AWSAccessKeyId|SignatureProvided|StringToSign|StringToSignBytes|CanonicalRequest|CanonicalRequestBytes)>)[^<]*",
        "${1}[redacted]",
    ),
    // Tokens of forges and clouds, which say what they are.
    (
        r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|gl[a-z]{2,5}-[\w-]{16,}|xox[abeprs]-[\w-]{10,}|A[KS]IA[0-9A-Z]{16})",
        "[redacted]",
    ),
    // A JSON Web Token.
    (r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)+", "[redacted]"),
    // A bcrypt hash.
    (r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}", "[redacted]"),
];

static COMPILED: LazyLock<(RegexSet, Vec<Regex>)> = LazyLock::new(|| {
    let patterns = PATTERNS.map(|(pattern, _)| pattern);
    let compiled = patterns.iter().map(|pattern| Regex::new(pattern));
    let each: Result<_, _> = compiled.collect();
    let set = RegexSet::new(patterns);
    (
        set.expect("the patterns are right: a test compiles them"),
        each.expect("the patterns are right: a test compiles them"),
    )
});

/// The text without them.
pub(super) fn without(text: &str) -> Cow<'_, str> {
    let (any, each) = &*COMPILED;
    // Most text has nothing of the kind, which one pass over it tells.
    let mut rest = Cow::Borrowed(text);
    for found in any.matches(text) {
        let (_, instead) = PATTERNS[found];
        if let Cow::Owned(changed) = each[found].replace_all(&rest, instead) {
            rest = Cow::Owned(changed);
        }
    }
    rest
}
