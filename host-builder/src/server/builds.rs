//! `GET /builds`, `GET /builds/<id>` and `GET /builds/<id>/log`: the progress of builds, for people.
//!
//! The log is a stream of server-sent events, one for each line, with the line's number as its `id`. A
//! browser that reconnects sends the last number (`Last-Event-ID`), and gets the lines after it that are
//! still kept. When the build ends, an event `end` describes it, and the stream ends.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::any;
use futures::stream::{self, Stream, StreamExt};
use http::HeaderMap;
use http::header::HeaderName;
use nixgate_core::distribution::{Error, ErrorKind};
use serde_json::{Value, json};

use super::App;
use super::error::{HttpError, public};
use super::headers::{JSON, no_store, texts};
use crate::telemetry::build_log::{BuildLog, Snapshot};
use crate::telemetry::redact::redact_value;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/builds", any(all))
        .route("/builds/{id}", any(one))
        .route("/builds/{id}/log", any(log))
}

/// The id of a build, unless the path is not UTF-8.
type Id = Result<Path<String>, PathRejection>;

async fn all(State(app): State<Arc<App>>) -> impl IntoResponse {
    let builds: Vec<_> = app.engine.logs.all().into_iter().map(page).collect();
    ([no_store()], JSON, json!({ "builds": builds }).to_string())
}

async fn one(State(app): State<Arc<App>>, id: Id) -> Result<impl IntoResponse, HttpError> {
    let build = find(&app, id)?;
    let snapshot = build.snapshot();
    let contents = snapshot.contents.clone();
    let mut page = page(snapshot);
    if let Some(contents) = contents {
        page["contents"] = redact_value(json!(*contents));
    }
    Ok(([no_store()], JSON, page.to_string()))
}

async fn log(
    State(app): State<Arc<App>>,
    id: Id,
    headers: HeaderMap,
) -> Result<impl IntoResponse, HttpError> {
    let build = find(&app, id)?;
    let last = texts(&headers, LAST_EVENT_ID).next();
    let last = last.and_then(|last| last.parse().ok());
    // A greater number belongs to an earlier build of the same image.
    let last = last.filter(|last| *last <= build.snapshot().lines);
    let events = events(build, last.unwrap_or(0));
    // Every 15 s, so that proxies keep an idle connection.
    let keep_alive = KeepAlive::default().text("still there");
    Ok(([no_store()], Sse::new(events).keep_alive(keep_alive)))
}

fn find(app: &App, id: Id) -> Result<Arc<BuildLog>, Error> {
    let build = id.ok().and_then(|Path(id)| app.engine.logs.get(&id));
    build.ok_or_else(|| {
        let message = "no build has this id: the builder forgets builds some time after they end, and \
                       when it restarts. /builds lists those that it knows";
        Error::new(ErrorKind::RouteUnknown, message)
    })
}

fn page(snapshot: Snapshot) -> Value {
    let mut page = json!(snapshot);
    if let Some(error) = &snapshot.error {
        page["error"] = public(error).message.into();
    }
    // A build chooses the names of its derivations and phases.
    redact_value(page)
}

/// The lines after the one with the number `last`, and the end of the build.
fn events(build: Arc<BuildLog>, last: u64) -> impl Stream<Item = Result<Event, Infallible>> {
    let start = Some((build.changes(), build, last));
    let batches = stream::unfold(start, |state| async {
        let (mut changes, build, last) = state?;
        loop {
            // Before the lines are read, so that a line that comes meanwhile is a change.
            changes.mark_unchanged();
            let (lines, ended) = build.lines_after(last);
            let last = lines.last().map_or(last, |(number, _)| *number);
            let mut events: Vec<_> = lines
                .iter()
                .map(|(number, line)| {
                    // Browsers ignore an event without data.
                    let data = if line.is_empty() { " " } else { line };
                    Event::default().id(number.to_string()).data(data)
                })
                .collect();
            if ended {
                let page = page(build.snapshot()).to_string();
                events.push(Event::default().event("end").data(page));
            }
            if !events.is_empty() {
                let next = (!ended).then_some((changes, build, last));
                return Some((stream::iter(events.into_iter().map(Ok)), next));
            }
            // The sender lives as long as `build`.
            changes.changed().await.ok()?;
        }
    });
    batches.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::build_log::BuildLogs;

    #[tokio::test]
    async fn a_follower_gets_each_line_once_and_the_end() {
        let logs = BuildLogs::default();
        let build = logs.begin("id", None, &[], "");
        build.line("one\ntwo\n\nthree");
        let response = Sse::new(events(logs.get("id").unwrap(), 1)).into_response();
        let mut body = response.into_body().into_data_stream();
        let mut next = async || body.next().await.map(|event| event.unwrap());
        assert_eq!(next().await.unwrap(), "id: 2\ndata: two\n\n");
        assert_eq!(next().await.unwrap(), "id: 3\ndata:  \n\n");
        assert_eq!(next().await.unwrap(), "id: 4\ndata: three\n\n");
        let (event, ()) = tokio::join!(next(), async { build.line("four") });
        assert_eq!(event.unwrap(), "id: 5\ndata: four\n\n");
        build.end(Some(Error::new(ErrorKind::BuilderUnready, "at /srv")));
        let end = next().await.unwrap();
        let end = str::from_utf8(&end).unwrap();
        assert!(end.starts_with("event: end\ndata: {"), "{end}");
        assert!(end.contains("failed") && !end.contains("/srv"), "{end}");
        assert_eq!(next().await, None);
    }
}
