//! Credentials in URLs are nobody's business: not that of a client who reads why a build failed,
//! nor of whoever reads the log.

/// The text without the `user:password@` of its URLs (RFC 3986, 3.2.1).
pub fn redact(text: &str) -> String {
    const BEFORE: &str = "://";
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEFORE) {
        let (head, tail) = rest.split_at(at + BEFORE.len());
        redacted.push_str(head);
        let authority = tail
            .find(|c: char| c.is_whitespace() || "/?#'\"".contains(c))
            .unwrap_or(tail.len());
        rest = match tail[..authority].rfind('@') {
            Some(end) => &tail[end + 1..],
            None => tail,
        };
    }
    redacted + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_credentials_and_all_else_stays() {
        for (text, expected) in [
            (
                "unable to download 'http://user:pw@host/a@b': 404",
                "unable to download 'http://host/a@b': 404",
            ),
            (
                "two: https://a@b https://c:d@e@f?g",
                "two: https://b https://f?g",
            ),
            ("https://host/path", "https://host/path"),
            ("nobody@example.org ://", "nobody@example.org ://"),
        ] {
            assert_eq!(redact(text), expected);
        }
    }
}
