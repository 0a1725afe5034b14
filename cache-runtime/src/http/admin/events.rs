//! The view as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::sleep;

use super::problem::Problem;
use super::view::view;
use super::{Answer, Asked};
use crate::http::body::{ResponseBody, boxed};

/// Pages that are open at a time.
pub(super) const MAX_STREAMS: usize = 16;

/// The time between two events.
const PERIOD: Duration = Duration::from_secs(1);

/// The number of events of one stream. The browser then opens the next stream. A longer stream would delay the end of the service,
/// and would outlive a login.
const EVENTS: usize = 8;

pub(super) fn stream(asked: &Asked<'_>) -> Result<Answer, Problem> {
    asked.parameters(&[])?;
    let Ok(place) = Arc::clone(&asked.shared.streams).try_acquire_owned() else {
        let text = "too many pages are open; close one of them";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let shared = Arc::downgrade(asked.shared);
    let role = asked.who.role;
    let events = stream::unfold((place, 0), move |(place, sent)| {
        let shared = shared.clone();
        async move {
            if sent == EVENTS {
                return None;
            }
            if sent > 0 {
                sleep(PERIOD).await;
            }
            let shared = shared.upgrade()?;
            // JSON has no line breaks of its own.
            let text = format!("retry: 1000\ndata: {}\n\n", view(&shared, role).await);
            let frame = Frame::data(Bytes::from(text));
            Some((Ok::<_, Infallible>(frame), (place, sent + 1)))
        }
    });
    let mut response = Response::new(ResponseBody::own(boxed(StreamBody::new(events))));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    // Proxies such as nginx would collect the events.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}
