//! `GET /v2/<name>/referrers/<digest>`. The edge answers by itself; this is for those who ask a
//! builder directly.

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use nixgate_core::distribution::{Error, INDEX_MEDIA_TYPE, Repository, no_referrers};

use super::App;
use super::answer::{self, Body};

impl App {
    pub(super) fn referrers(&self, repository: &Repository) -> Result<Response<Body>, Error> {
        self.name(repository)?;
        Ok(answer::with_headers(
            StatusCode::OK,
            [(CONTENT_TYPE, INDEX_MEDIA_TYPE.to_owned())],
            answer::whole(no_referrers()),
        ))
    }
}
