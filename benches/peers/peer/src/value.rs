//! The value that every peer caches.

use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// An event of a ticketing service, with as many tags as its size needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    id: u64,
    /// When the body read the row, in nanoseconds since the Unix epoch. It is the version of the row: all processes have the same clock.
    pub read_at: u64,
    title: String,
    location: String,
    organizer_id: u64,
    tickets_left: u32,
    tags: Vec<String>,
}

impl Event {
    /// Returns an event of about `bytes` of JSON.
    pub fn of_size(id: u64, read_at: u64, bytes: usize) -> Self {
        /// The length of an event with 2 tags.
        const LEAST: usize = 200;
        const TAG: &str = "chamber music for strings, winds and piano";
        let mut tags = vec!["music".to_owned(), "evening".to_owned()];
        let more = bytes.saturating_sub(LEAST) / (TAG.len() + r#""","#.len());
        tags.extend(vec![TAG.to_owned(); more]);
        Self {
            id,
            read_at,
            title: "An evening with the string quartet of the district".to_owned(),
            location: "Concert hall, north wing".to_owned(),
            organizer_id: id % 200,
            tickets_left: 250,
            tags,
        }
    }

    /// Returns whether this is what the body would have returned for `id` at the time of its reading.
    pub fn is_of(&self, id: u64, bytes: usize) -> bool {
        *self == Self::of_size(id, self.read_at, bytes)
    }
}

/// What a caller gets: a value of its own, or the one that the process keeps.
#[derive(Debug)]
pub enum Held {
    /// Decoded or cloned for this caller.
    Own(Event),
    /// Shared with the cache.
    Shared(Arc<Event>),
}

impl From<Event> for Held {
    fn from(event: Event) -> Self {
        Self::Own(event)
    }
}

impl From<Arc<Event>> for Held {
    fn from(event: Arc<Event>) -> Self {
        Self::Shared(event)
    }
}

impl Deref for Held {
    type Target = Event;

    fn deref(&self) -> &Event {
        match self {
            Self::Own(event) => event,
            Self::Shared(event) => event,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_long_as_asked_for() {
        for bytes in [200, 2_000, 20_000] {
            let event = Event::of_size(7, 1_900_000_000_000_000_000, bytes);
            let long = serde_json::to_vec(&event).expect("JSON").len();
            assert!(long.abs_diff(bytes) <= bytes / 5, "{long} for {bytes}");
        }
    }
}
