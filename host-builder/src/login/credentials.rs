//! Credentials as clients send them: Basic (RFC 7617) with GET, a form (RFC 6749, 4.3) with POST.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What somebody says to be, and the proof. There is no `Debug`, so that no log can show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// Reads the value of an `Authorization` header; none when it is not Basic, or not text.
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

    /// Reads `username` and `password` of a form whose `grant_type` is `password`; none when it is
    /// another form.
    pub(crate) fn from_form(form: &[u8]) -> Option<Self> {
        let field = |wanted: &str| {
            let mut fields = form_urlencoded::parse(form);
            fields.find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
        };
        let (user, password) = field("username").zip(field("password"))?;
        (field("grant_type")? == "password").then_some(Self { user, password })
    }

    /// The name.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// The password.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// The password, which alone says who it is when it is a token.
    pub(crate) fn into_password(self) -> String {
        self.password
    }

    /// Whether the password is written as a JSON Web Token is. It may be one that is refused.
    pub(crate) fn password_is_token(&self) -> bool {
        jsonwebtoken_shape(&self.password)
    }
}

/// Three parts of base64url with dots between. The first is JSON, and `{"` is `eyJ`; the last is
/// empty in a token without signature, which is to be refused as the token that it is.
fn jsonwebtoken_shape(text: &str) -> bool {
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
    fn basic_is_read_as_the_rfc_has_it() {
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
    fn forms_are_read_when_they_bring_a_password() {
        let form = |text: &str| Credentials::from_form(text.as_bytes());
        let found = form("grant_type=password&username=a%2Bb&password=p+%26q&scope=x").unwrap();
        assert_eq!((found.user(), found.password()), ("a+b", "p &q"));
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
    fn a_password_that_looks_like_a_token_is_taken_for_one() {
        for (password, expected) in [
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", true),
            ("eyJh.eyJz.c2ln", true),
            ("eyJh.eyJz", false),
            ("eyJh.ey z.c2ln", false),
            ("secret", false),
        ] {
            assert_eq!(jsonwebtoken_shape(password), expected, "{password}");
        }
    }
}
