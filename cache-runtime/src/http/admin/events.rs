//! The view as server-sent events. One task computes it for all pages, while at least one is open.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::access::AdminRole;
use super::problem::Problem;
use super::view::view;
use super::{Answer, Asked, Shared};
use crate::http::body::{ResponseBody, boxed};
use crate::singleton::{Running, Singleton};

/// Pages that are open at a time.
pub(super) const MAX_STREAMS: usize = 16;

/// The time between two events.
const PERIOD: Duration = Duration::from_secs(1);

/// The number of events of one stream. The browser then opens the next stream. A longer stream would delay the end of the service,
/// and would outlive a login.
const EVENTS: usize = 8;

/// A stream without an event for so long ends. The browser then opens the next stream, which starts the task again if it is gone.
const LATE: Duration = Duration::from_secs(5);

/// The view, once per second, for all pages.
#[derive(Debug)]
pub(super) struct Feed {
    streams: Arc<Semaphore>,
    task: Singleton,
    /// [`None`] while no page is open.
    last: watch::Sender<Option<Event>>,
}

/// One view as it is sent.
#[derive(Clone, Debug)]
struct Event {
    for_readers: Bytes,
    for_writers: Bytes,
}

impl Event {
    fn of(mut view: Value) -> Self {
        let mut text = |role: AdminRole| {
            view["role"] = role.name().into();
            // JSON has no line breaks of its own.
            Bytes::from(format!("retry: 1000\ndata: {view}\n\n"))
        };
        Self {
            for_readers: text(AdminRole::Read),
            for_writers: text(AdminRole::Write),
        }
    }

    fn text(&self, role: AdminRole) -> Bytes {
        match role {
            AdminRole::Read => self.for_readers.clone(),
            AdminRole::Write => self.for_writers.clone(),
        }
    }
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            task: Singleton::default(),
            last: watch::Sender::new(None),
        }
    }
}

/// Starts the task that computes the views, unless it runs.
fn ensure(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    shared.feed.task.start(|running| run(weak, running));
}

async fn run(shared: Weak<Shared>, running: Running) {
    loop {
        let next = Instant::now() + PERIOD;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let last = &shared.feed.last;
        if last.receiver_count() == 0 {
            last.send_replace(None);
            drop(running);
            // A page that was opened just now saw the task running.
            if last.receiver_count() > 0 {
                ensure(&shared);
            }
            return;
        }
        last.send_replace(Some(Event::of(view(&shared).await)));
        drop(shared);
        sleep_until(next).await;
    }
}

pub(super) fn stream(asked: &Asked<'_>) -> Result<Answer, Problem> {
    asked.parameters(&[])?;
    let shared = asked.shared;
    let Ok(place) = Arc::clone(&shared.feed.streams).try_acquire_owned() else {
        let text = "too many pages are open; close one of them";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let mut views = shared.feed.last.subscribe();
    // The first event is the last view, also if another page has shown it.
    views.mark_changed();
    ensure(shared);
    let role = asked.who.role;
    let events = stream::unfold(
        (place, views, 0),
        move |(place, mut views, sent)| async move {
            if sent == EVENTS {
                return None;
            }
            let text = timeout(LATE, next(&mut views, role)).await.ok()??;
            let frame = Frame::data(text);
            Some((Ok::<_, Infallible>(frame), (place, views, sent + 1)))
        },
    );
    let mut response = Response::new(ResponseBody::own(boxed(StreamBody::new(events))));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    // Proxies such as nginx would collect the events.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Returns the next view, or [`None`] if the service is gone.
async fn next(views: &mut watch::Receiver<Option<Event>>, role: AdminRole) -> Option<Bytes> {
    loop {
        views.changed().await.ok()?;
        if let Some(event) = &*views.borrow_and_update() {
            return Some(event.text(role));
        }
    }
}

#[cfg(test)]
pub(super) fn is_idle(feed: &Feed) -> bool {
    feed.last.borrow().is_none()
}
