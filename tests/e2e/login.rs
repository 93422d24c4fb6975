//! Behind a login: Envoy with TLS and `jwt_authn`, the builder that gives out the tokens, and clients
//! that know nothing but user and password.

mod audit;
mod clients;
mod company;
mod endpoint;
mod guide;
mod limits;
mod rotation;
mod tokens;

use std::sync::OnceLock;

use nixgate_tests::live::gateway::{Gateway, Settings};

/// The gateway that tests share which only ask. None of them asks for so many tokens that the limit
/// on logins is met.
fn shared() -> &'static Gateway {
    static SHARED: OnceLock<Gateway> = OnceLock::new();
    let start = || Gateway::start(&Settings::default());
    SHARED.get_or_init(|| start().expect("the gateway that tests share starts"))
}
