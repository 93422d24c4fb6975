//! Credentials as clients send them: Basic (RFC 7617) with GET, a form (RFC 6749, 4.3) with POST.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// A user's name and password. There is no `Debug`, so that no log can show them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

impl Credentials {
    /// Parses an `Authorization` header; none when it is not Basic, or not UTF-8.
    pub(crate) fn from_basic(header: &[u8]) -> Option<Self> {
        let header = std::str::from_utf8(header).ok()?;
        let (scheme, encoded) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        // A name has no colon; a password may.
        let (user, password) = decoded.split_once(':')?;
        Some(Self {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// Parses a form with the `grant_type` `password`; none for other forms.
    pub(crate) fn from_form(form: &[u8]) -> Option<Self> {
        let field = |wanted: &str| {
            let mut fields = form_urlencoded::parse(form);
            fields.find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
        };
        let (user, password) = field("username").zip(field("password"))?;
        (field("grant_type")? == "password").then_some(Self { user, password })
    }
}

/// Whether a text has the shape of a JSON Web Token, valid or not: three parts of base64url, separated by
/// dots. The first is JSON, and `{"` is `eyJ`; the last is empty in an unsigned token, which must be refused
/// as a token.
pub(super) fn has_jwt_shape(text: &str) -> bool {
    let of_base64url = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.starts_with("eyJ") && text.matches('.').count() == 2 && text.chars().all(of_base64url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(text: &str) -> Option<(String, String)> {
        let found = Credentials::from_basic(text.as_bytes())?;
        Some((found.user, found.password))
    }

    #[test]
    fn basic_credentials_are_parsed_by_the_rfc() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        let aladdin = "QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(
            basic(&format!("Basic {aladdin}")),
            pair("Aladdin", "open sesame")
        );
        assert_eq!(
            basic(&format!("bAsIc  {aladdin}")),
            pair("Aladdin", "open sesame")
        );
        let encoded = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        assert_eq!(basic(&encoded("a:b:c")), pair("a", "b:c"));
        assert_eq!(basic(&encoded("a:")), pair("a", ""));
        for wrong in ["", "Basic", "Basic %", "Bearer QTpC", &encoded("no colon")] {
            assert_eq!(basic(wrong), None, "{wrong}");
        }
        assert!(Credentials::from_basic(b"Basic \xff").is_none());
        let latin1 = format!("Basic {}", BASE64_STANDARD.encode(b"a:\xfc"));
        assert_eq!(basic(&latin1), None);
    }

    #[test]
    fn only_forms_with_a_password_are_parsed() {
        let form = |text: &str| Credentials::from_form(text.as_bytes());
        let found = form("grant_type=password&username=a%2Bb&password=p+%26q&scope=x").unwrap();
        assert_eq!((&*found.user, &*found.password), ("a+b", "p &q"));
        for other in [
            "",
            "username=a&password=b",
            "grant_type=refresh_token&refresh_token=r",
            "grant_type=password&username=a",
        ] {
            assert!(form(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_password_with_the_shape_of_a_token_is_recognised() {
        for (password, expected) in [
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", true),
            ("eyJh.eyJz.c2ln", true),
            ("eyJh.eyJz", false),
            ("eyJh.ey z.c2ln", false),
            ("secret", false),
        ] {
            assert_eq!(has_jwt_shape(password), expected, "{password}");
        }
    }
}
