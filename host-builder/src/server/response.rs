//! Responses with headers whose values are made at run time.

use axum::body::Body;
use axum::response::Response;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::error::HttpError;

/// # Errors
/// As [`set_header`].
pub(super) fn response(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
    body: impl Into<Body>,
) -> Result<Response, HttpError> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    for (name, value) in headers {
        set_header(response.headers_mut(), name, value)?;
    }
    Ok(response)
}

/// # Errors
/// When HTTP doesn't allow the value. The error leaves the value out, because it may be a signed URL.
pub(super) fn set_header(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: String,
) -> Result<(), HttpError> {
    let value = HeaderValue::try_from(value).map_err(|_| {
        HttpError::internal(format!(
            "HTTP does not allow the value of the response header {name}: report this defect"
        ))
    })?;
    headers.insert(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::header::LOCATION;

    use super::*;

    #[test]
    fn a_value_that_no_header_can_have_is_an_error_without_the_value() {
        let url = "https://host/?signature=abc\r\nx: y".to_owned();
        let error = response(StatusCode::OK, [(LOCATION, url)], "").unwrap_err();
        let text = error.error.to_string();
        assert_eq!(error.error.status(), 500);
        assert!(text.contains("location") && !text.contains("abc"), "{text}");
    }
}
