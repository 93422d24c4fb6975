//! `GET /v2/<name>/tags/list`

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use nixgate_core::distribution::Repository;
use serde_json::json;

use super::App;
use super::error::HttpError;
use super::headers::{JSON, max_age};

const MAX_AGE: Duration = Duration::from_secs(300);

impl App {
    /// Lists the tags that clients may pull. It does not check that the packages or the recipe exist:
    /// a policy may hide that, and the manifest answers it.
    pub(super) fn tags(&self, repository: &Repository) -> Result<Response, HttpError> {
        self.image_name(repository)?;
        let tags = self.engine.sources.source().tags();
        let body = json!({ "name": repository.as_str(), "tags": tags });
        Ok(([max_age(MAX_AGE)], JSON, body.to_string()).into_response())
    }
}
