//! `GET /builds`, `GET /builds/<id>` and `GET /builds/<id>/log`: how far builds are, for people.
//!
//! The log is a stream of server-sent events, one a line, each with its number as its `id`. A browser
//! that lost the connection says which it had last (`Last-Event-ID`), and gets those after it, as far
//! as they are still kept. When the build has ended, an event `end` says how, and the stream ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use nixgate_core::distribution::{Error, ErrorKind};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::App;
use super::answer::{self, Body};
use crate::telemetry::build_log::{BuildLog, Snapshot};
use crate::telemetry::redact::redact_value;

/// Below it are builds, by their ids.
const PATH: &str = "/builds";
/// Between two lines, so that whoever is between doesn't take the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a path below [`PATH`] asks for; none when it is elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    All,
    One(&'a str),
    Log(&'a str),
}

impl<'a> Wanted<'a> {
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix(PATH)?;
        if rest.is_empty() {
            return Some(Self::All);
        }
        let rest = rest.strip_prefix('/')?;
        Some(match rest.split_once('/') {
            None => Self::One(rest),
            Some((id, "log")) => Self::Log(id),
            Some(_) => return None,
        })
    }
}

impl App {
    pub(super) fn build_page(
        &self,
        wanted: &Wanted<'_>,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Error> {
        let find = |id: &str| {
            self.engine.logs.get(id).ok_or_else(|| {
                let message = "no build of this id is known: builds are forgotten some time after \
                               they ended, and when the builder is started anew; /builds has those \
                               that are known";
                Error::new(ErrorKind::RouteUnknown, message)
            })
        };
        Ok(match wanted {
            Wanted::All => {
                let builds = self.engine.logs.all();
                let builds: Vec<_> = builds.into_iter().map(page).collect();
                fresh(&json!({ "builds": builds }))
            }
            Wanted::One(id) => fresh(&page(find(id)?.snapshot())),
            Wanted::Log(id) => {
                let last = headers.get(LAST_EVENT_ID);
                let last = last.and_then(|last| last.to_str().ok()?.parse().ok());
                let log = find(id)?;
                // More than there is was seen of an earlier build of the same image.
                let last = last.filter(|last| *last <= log.snapshot().lines);
                let body = StreamBody::new(events(log, last.unwrap_or(0)));
                let headers = [
                    (CONTENT_TYPE, "text/event-stream".to_owned()),
                    (CACHE_CONTROL, "no-store".to_owned()),
                ];
                let body = body.map_err(|never| match never {}).boxed_unsync();
                answer::with_headers(StatusCode::OK, headers, body)
            }
        })
    }
}

fn fresh(page: &Value) -> Response<Body> {
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    answer::with_headers(StatusCode::OK, headers, answer::whole(page.to_string()))
}

fn page(snapshot: Snapshot) -> Value {
    let mut page = json!(snapshot);
    if let Some(error) = &snapshot.error {
        page["error"] = answer::for_clients(error).message.into();
    }
    // Names of derivations and phases are what a build says.
    redact_value(page)
}

struct Follower {
    log: Arc<BuildLog>,
    changes: watch::Receiver<()>,
    last: u64,
    ended: bool,
}

fn events(log: Arc<BuildLog>, last: u64) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let changes = log.changes();
    let follower = Follower {
        log,
        changes,
        last,
        ended: false,
    };
    stream::unfold(follower, |mut follower| async {
        let text = follower.next().await?;
        Some((Ok(Frame::data(Bytes::from(text))), follower))
    })
}

impl Follower {
    /// The next events, as text; none after the end.
    async fn next(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        loop {
            // Before the lines are read, so that what comes meanwhile is a change.
            self.changes.mark_unchanged();
            let (lines, ended) = self.log.lines_after(self.last);
            let mut text: String = lines
                .iter()
                .map(|(number, line)| format!("id: {number}\ndata: {line}\n\n"))
                .collect();
            self.last = lines.last().map_or(self.last, |(number, _)| *number);
            if ended {
                let page = page(self.log.snapshot());
                text.push_str(&format!("event: end\ndata: {page}\n\n"));
                self.ended = true;
            }
            if !text.is_empty() {
                return Some(text);
            }
            match tokio::time::timeout(KEEP_ALIVE, self.changes.changed()).await {
                Ok(Ok(())) => {}
                // The log itself is held here, so its sender is there.
                Ok(Err(_)) => return None,
                Err(_) => return Some(": still there\n\n".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::build_log::BuildLogs;

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/builds", Some(Wanted::All)),
            ("/builds/a", Some(Wanted::One("a"))),
            ("/builds/a/log", Some(Wanted::Log("a"))),
            ("/builds/a/b", None),
            ("/builds/a/log/b", None),
            ("/buildsa", None),
            ("/v2/builds", None),
        ] {
            assert_eq!(Wanted::parse(path), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn a_follower_gets_each_line_once_and_the_end() {
        let logs = BuildLogs::default();
        let build = logs.begin("id", None, &[], "");
        build.line("one\ntwo");
        let mut follower = Follower {
            log: logs.get("id").unwrap(),
            changes: logs.get("id").unwrap().changes(),
            last: 1,
            ended: false,
        };
        let next = follower.next().await;
        assert_eq!(next.as_deref(), Some("id: 2\ndata: two\n\n"));
        let (next, ()) = tokio::join!(follower.next(), async { build.line("three") });
        assert_eq!(next.as_deref(), Some("id: 3\ndata: three\n\n"));
        build.end(Some(Error::new(ErrorKind::BuilderUnready, "at /srv")));
        let end = follower.next().await.unwrap();
        assert!(end.starts_with("event: end\ndata: {"), "{end}");
        assert!(end.contains("failed") && !end.contains("/srv"), "{end}");
        assert_eq!(follower.next().await, None);
    }
}
