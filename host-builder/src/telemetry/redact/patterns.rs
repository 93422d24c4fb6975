//! Secrets that are recognised by their surroundings.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Regex, RegexSet};

/// A kind of secret, and its replacement. A name counts if any word in it says secret: `private_token`,
/// `X-Amz-Security-Token`, `AWS_SECRET_ACCESS_KEY`.
struct Pattern {
    /// A cheaper pattern, which matches within each match of `whole`. Without `\b` and `\w`, which are
    /// slow on text that is not ASCII.
    sign: &'static str,
    whole: &'static str,
    replacement: &'static str,
}

const PATTERNS: [Pattern; 15] = [
    // A private key, even without its end.
    Pattern {
        sign: r"PRIVATE KEY-----",
        whole: r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
        replacement: "[redacted]",
    },
    // `user:password@` of a URL (RFC 3986, 3.2.1).
    Pattern {
        sign: r"://",
        whole: r#"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'"]*@"#,
        replacement: "$1",
    },
    // Fields of a query or a form: forges, presigned URLs of S3, Google and Azure, OAuth.
    Pattern {
        sign: r"(?i)(?:token|secret|passw|signature|credential|api[_-]?key|access[_-]?key|jwt)[^\s=]*=|[?&;](?:key|sig|code|auth|pwd|sas)=",
        whole: r#"(?i)([?&;](?:[\w.-]*(?:token|secret|passw|signature|credential|api[_-]?key|access[_-]?key|jwt)[\w.-]*|key|sig|code|auth|pwd|sas)=)[^\s&#'"<>;]+"#,
        replacement: "${1}[redacted]",
    },
    // Headers, as curl, git and HTTP libraries print them; their whole value.
    Pattern {
        sign: r"(?i)authorization|cookie|(?:private|job|deploy|nixgate)-token|x-[a-z0-9-]*(?:token|secret|key|signature|auth)",
        whole: r#"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie2?|(?:private|job|deploy|nixgate)-token|x-[a-z0-9-]*(?:token|secret|key|signature|auth)[a-z0-9-]*)(["']?\s*:\s*["']?)[^\r\n"']+"#,
        replacement: "$1$2[redacted]",
    },
    // Credentials without the header's name.
    Pattern {
        sign: r"(?i)(?:bearer|basic)\s",
        whole: r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/_~.=-]{16,}",
        replacement: "$1 [redacted]",
    },
    // Nix's `access-tokens = host=token host=token`, as a setting and as an argument.
    Pattern {
        sign: r"(?i)access-tokens",
        whole: r#"(?i)(access-tokens["'\s,=:]+)(?:[\w.-]+(?:/[\w./-]*)?=[^\s"';,]+\s*)+"#,
        replacement: "${1}[redacted]",
    },
    // A variable, or a setting.
    Pattern {
        sign: r"(?i)(?:token|secret|passwd|password|passphrase|api[_-]?key|access[_-]?key|access[_-]?key[_-]?id|private[_-]?key)=",
        whole: r#"(?i)\b([\w.-]*(?:token|secret|passwd|password|passphrase|api[_-]?key|access[_-]?key|access[_-]?key[_-]?id|private[_-]?key)=)(?:"[^"]*"|'[^']*'|[^\s"'&,;)]+)"#,
        replacement: "${1}[redacted]",
    },
    // A flag of a command, also in a list of arguments.
    Pattern {
        sign: r#"(?i)(?:token|secret|password|passphrase)["',=\s]"#,
        whole: r#"(?i)(--[\w-]*(?:token|secret|password|passphrase)["',=\s]+)[^\s"',<]+"#,
        replacement: "${1}[redacted]",
    },
    Pattern {
        sign: r#"\s-u|-user["',=\s]"#,
        whole: r#"(\s-u["',\s]*|--(?:proxy-)?user["',=\s]+)[^\s"',:]+:[^\s"']+"#,
        replacement: "${1}[redacted]",
    },
    // A field of JSON.
    Pattern {
        sign: r#"(?i)(?:token|secret|passw|passphrase|private_?key|api_?key|access_?key|credential)[^"\s]*"\s*:"#,
        whole: r#"(?i)("[\w.-]*(?:token|secret|passw|passphrase|private_?key|api_?key|access_?key|credential)[\w.-]*"\s*:\s*")(?:[^"\\]|\\.)*"#,
        replacement: "${1}[redacted]",
    },
    // A netrc file.
    Pattern {
        sign: r"(?i)password\s",
        whole: r#"(?i)\b((?:machine\s+\S+|default|login\s+\S+|account\s+\S+)\s+password\s+)(?:"(?:[^"\\]|\\.)*"|\S+)"#,
        replacement: "${1}[redacted]",
    },
    // S3's answer to a wrong signature, which quotes the text to sign.
    Pattern {
        sign: r"(?i)<(?:AWSAccessKeyId|SignatureProvided|StringToSign|CanonicalRequest)",
        whole: r"(?i)(<(?:AWSAccessKeyId|SignatureProvided|StringToSign|StringToSignBytes|CanonicalRequest|CanonicalRequestBytes)>)[^<]*",
        replacement: "${1}[redacted]",
    },
    // Tokens of forges and clouds, which have distinctive prefixes.
    Pattern {
        sign: r"gh[pousr]_|github_pat_|gl[a-z]{2,5}-[^\s./:]{16}|xox[abeprs]-|A[KS]IA[0-9A-Z]",
        whole: r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|gl[a-z]{2,5}-[\w-]{16,}|xox[abeprs]-[\w-]{10,}|A[KS]IA[0-9A-Z]{16})",
        replacement: "[redacted]",
    },
    // A JSON Web Token.
    Pattern {
        sign: r"eyJ",
        whole: r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)+",
        replacement: "[redacted]",
    },
    // A bcrypt hash.
    Pattern {
        sign: r"\$2[abxy]\$",
        whole: r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}",
        replacement: "[redacted]",
    },
];

/// A `RegexSet` of the whole patterns does about 1 MB/s: its automaton is too large, and gives up at the
/// first `é` because of `\b`. The signs do 150 MB/s of a compiler's output, since few lines have one.
static SIGNS: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(PATTERNS.map(|pattern| pattern.sign))
        .expect("the signs are right: a test compiles them")
});

static WHOLE: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let compiled = PATTERNS.iter().map(|pattern| Regex::new(pattern.whole));
    let each: Result<_, _> = compiled.collect();
    each.expect("the patterns are right: a test compiles them")
});

/// The text without these secrets.
pub(super) fn without(text: &str) -> Cow<'_, str> {
    without_these(text, SIGNS.matches(text))
}

/// Tries every pattern, whatever the signs match.
#[cfg(test)]
pub(super) fn without_signs(text: &str) -> Cow<'_, str> {
    without_these(text, 0..PATTERNS.len())
}

/// All patterns without word boundaries, from which no text can be generated.
#[cfg(test)]
pub(super) fn without_borders() -> Vec<String> {
    let patterns = PATTERNS.iter();
    let patterns = patterns.map(|one| one.whole.replace(r"\b", "").replace(r"|\z", ""));
    patterns.collect()
}

fn without_these(text: &str, these: impl IntoIterator<Item = usize>) -> Cow<'_, str> {
    let mut rest = Cow::Borrowed(text);
    for one in these {
        let whole = &WHOLE[one];
        let is_there = matches!(rest, Cow::Borrowed(_)) || whole.is_match(text);
        if is_there && let Cow::Owned(changed) = whole.replace_all(&rest, PATTERNS[one].replacement)
        {
            rest = Cow::Owned(changed);
        }
    }
    rest
}
