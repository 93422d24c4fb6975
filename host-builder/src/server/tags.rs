//! `GET /v2/<name>/tags/list`

use http::Response;
use nixgate_core::distribution::{Error, Repository};
use serde_json::json;

use super::App;
use super::answer::{self, Body};

impl App {
    /// The tags that can be asked for. Whether the packages or the recipe exist is another question,
    /// which the manifest answers: here it would be told to those whom a policy hides it from.
    pub(super) fn tags(&self, repository: &Repository) -> Result<Response<Body>, Error> {
        self.name(repository)?;
        let body =
            json!({ "name": repository.as_str(), "tags": self.engine.sources.source().tags() });
        let mut response = answer::json(200, body.to_string().into_bytes());
        let (name, value) = answer::max_age(300);
        if let Ok(value) = value.try_into() {
            response.headers_mut().insert(name, value);
        }
        Ok(response)
    }
}
