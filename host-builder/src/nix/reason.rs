//! Why an evaluation failed, in the package set's own words, cut to what helps who asked for a package.
//!
//! ```text
//!   error:                                                        traces come first
//!     … while evaluating the attribute 'outPath'
//!   error: Refusing to evaluate package 'unrar-7' in /nix/store/…/package.nix:58 because it has an unfree
//!   license (‘unfreeRedistributable’)                             ◄── this, without the place
//!   a) To temporarily allow unfree packages, …                    advice for the command line
//! ```

use super::output::without_log;
use crate::closure::STORE_DIR;

/// Characters of a hash in a store path.
const HASH: usize = 32;
/// Vulnerabilities of an insecure package that are told.
const MOST_ISSUES: usize = 5;
/// How a call of `abort` is reported.
const ABORTED: &str = "evaluation aborted with the following error message:";

/// Nix's reason for a failed evaluation: the first paragraph of its last error. A trace comes before it;
/// positions, snippets of code and advice come after it.
pub(crate) fn reason(stderr: &str) -> Option<String> {
    const ERROR: &str = "error:";
    let stderr = without_log(stderr);
    let lines: Vec<_> = stderr.lines().map(str::trim).collect();
    let start = lines.iter().rposition(|line| line.starts_with(ERROR))?;
    let first = lines[start].strip_prefix(ERROR)?.trim();
    // Its text is in quotes.
    let aborted = first.strip_prefix(ABORTED);
    let first = aborted.map_or(first, |text| text.trim().trim_start_matches('\''));
    let rest = lines[start + 1..].iter().copied();
    let mut text = String::new();
    // nixpkgs begins some texts with an empty line.
    for line in std::iter::once(first)
        .chain(rest)
        .skip_while(|line| line.is_empty())
        .take_while(|line| !ends(line))
    {
        let space = if text.is_empty() { "" } else { " " };
        text.push_str(space);
        text.push_str(line);
    }
    if aborted.is_some() {
        text = text.trim_end_matches('\'').to_owned();
    }
    let mut text = without_place(&text);
    if text.ends_with("is marked as insecure") {
        let issues = lines[start..].iter();
        let issues = issues.skip_while(|line| !line.starts_with("Known issues:"));
        let issues = issues.skip(1).map_while(|line| line.strip_prefix("- "));
        let issues: Vec<_> = issues.take(MOST_ISSUES).collect();
        if !issues.is_empty() {
            text = format!("{text}: {}", issues.join("; "));
        }
    }
    let text = without_store_paths(&text);
    (!text.is_empty()).then(|| match disabled_feature(&text) {
        Some(feature) => format!(
            "it needs Nix's experimental feature {feature}. The registry's administrator enables it by \
             NIXGATE_NIX_OPTIONS='extra-experimental-features={feature}', with nix-daemon also in its \
             nix.conf"
        ),
        None => text,
    })
}

/// The experimental feature whose absence an error is about. Nix advises a flag of its own programs, which
/// nobody here can give.
fn disabled_feature(error: &str) -> Option<&str> {
    let (_, rest) = error.split_once("experimental Nix feature '")?;
    let (feature, rest) = rest.split_once('\'')?;
    let is_name = feature
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    (is_name && rest.starts_with(" is disabled")).then_some(feature)
}

/// Whether a line is no part of the reason any more.
fn ends(line: &str) -> bool {
    line.is_empty()
        // Advice: for a command line, or the first way of several.
        || line.starts_with("(use '--show-trace'")
        || line.starts_with("a) ")
        || line.starts_with("package.meta.platforms")
        // A position, and the code there.
        || line.starts_with("at /")
        || line.starts_with("at \u{ab}")
}

/// Leaves out where the package set has a package that it refuses: `… in <file>:<line> because …`.
fn without_place(text: &str) -> String {
    let place = text.find(" in /").and_then(|at| {
        let because = text[at..].find(" because ")?;
        Some((at, at + because))
    });
    match place {
        Some((from, to)) if !text[from + 4..to].contains(char::is_whitespace) => {
            format!("{}{}", &text[..from], &text[to..])
        }
        _ => text.to_owned(),
    }
}

/// Leaves only the names of store paths.
fn without_store_paths(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(STORE_DIR) {
        kept.push_str(&rest[..at]);
        let path = rest[at + STORE_DIR.len()..].trim_start_matches('/');
        let hash = path.get(..HASH);
        let is_hash =
            hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        rest = match is_hash {
            true => path[HASH..].trim_start_matches('-'),
            false => path,
        };
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stderr: &str, expected: &str) {
        assert_eq!(reason(stderr).as_deref(), Some(expected), "{stderr}");
    }

    #[test]
    fn refusals_of_nixpkgs_are_told_without_place_and_advice() {
        let head = "error:\n       … in the condition of the assert statement\n\n       error: Refusing to \
                    evaluate package";
        let place = "in /nix/store/00000000000000000000000000000000-set/pkgs/by-name/un/unrar/package.nix:3";
        check(
            &format!(
                "{head} 'unrar-7.2.6' {place} because it has an unfree license (‘unfree’)\n       a) To \
                 temporarily allow unfree packages, you can use\n\n         $ export NIXPKGS_ALLOW_UNFREE=1"
            ),
            "Refusing to evaluate package 'unrar-7.2.6' because it has an unfree license (‘unfree’)",
        );
        check(
            &format!(
                "{head} 'openssl-1.1.1w' {place} because it is marked as insecure\n\n       Known issues:\n\
                         - OpenSSL 1.1 is at its end\n        - CVE-1\n\n       You can install it anyway"
            ),
            "Refusing to evaluate package 'openssl-1.1.1w' because it is marked as insecure: OpenSSL 1.1 is \
             at its end; CVE-1",
        );
        check(
            &format!(
                "{head} 'mac-1' {place} because it is not available on the requested hostPlatform:\n  \
                 hostPlatform.system = \"x86_64-linux\"\n  package.meta.platforms = [\n"
            ),
            "Refusing to evaluate package 'mac-1' because it is not available on the requested \
             hostPlatform: hostPlatform.system = \"x86_64-linux\"",
        );
    }

    #[test]
    fn removed_and_renamed_names_are_told_as_they_are() {
        for text in [
            "'python2' has been removed as it has reached its end of life upstream",
            "'hello-world' has been renamed to/replaced by 'hello'",
        ] {
            // Nix 2.8, and one of today's.
            check(
                &format!("error: {text}\n(use '--show-trace' to show detailed)"),
                text,
            );
            check(
                &format!("error:\n … while calling 'throw'\n\n       error: {text}\n"),
                text,
            );
        }
    }

    #[test]
    fn what_the_set_aborts_with_is_told_without_nix_s_words() {
        check(
            "error: evaluation aborted with the following error message: '\n         This version of Nixpkgs \
             requires an implementation of Nix with the following features:\n         - `builtins.nixVersion` \
             reports at least 2.18\n\n         You are evaluating with Nix 2.8.0, please upgrade:\n'",
            "This version of Nixpkgs requires an implementation of Nix with the following features: - \
             `builtins.nixVersion` reports at least 2.18",
        );
        check(
            "error: evaluation aborted with the following error message: 'no more'",
            "no more",
        );
    }

    #[test]
    fn code_and_store_paths_are_left_out() {
        check(
            "error: attribute 'missing' missing\n       at /nix/store/00000000000000000000000000000000-s/x.nix:3:1:\n  \
             2| {\n",
            "attribute 'missing' missing",
        );
        check(
            "error: cannot build '/nix/store/00000000000000000000000000000000-git.drv' during evaluation",
            "cannot build 'git.drv' during evaluation",
        );
        assert_eq!(reason("error:\n\n"), None);
        assert_eq!(reason("no error"), None);
    }
}
