//! `GET /v2/<name>/referrers/<digest>`, for clients that ask a builder without an edge. The edge answers
//! this itself.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use nixgate_core::distribution::{INDEX_MEDIA_TYPE, Repository, no_referrers};

use super::App;
use super::error::HttpError;

impl App {
    pub(super) fn referrers(&self, repository: &Repository) -> Result<Response, HttpError> {
        self.image_name(repository)?;
        Ok(([(CONTENT_TYPE, INDEX_MEDIA_TYPE)], no_referrers()).into_response())
    }
}
