//! Events: the public lists and pages. [`changes`] has what changes them.

use std::str::FromStr;

use cache_runtime::cacheable;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::db::Db;
use crate::error::Result;
use crate::page::Page;

pub mod changes;

#[derive(Clone, Debug)]
pub struct Events {
    db: Db,
}

impl Events {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    // Without `none_ttl`: a client can guess the id of the next event, and a stored `None` would hide the event when it is
    // created.
    #[cacheable(key = "event:<id>", ttl = 1800)]
    pub async fn find(&self, id: i64) -> Result<Option<Event>> {
        let event = sqlx::query_as("SELECT * FROM events WHERE id = ?").bind(id);
        Ok(event.fetch_optional(self.db.read().await).await?)
    }

    // A client chooses the page. Without `unless`, each page beyond the last would leave an entry.
    #[cacheable(
        key = "events:published:page:<page>",
        tag = "events",
        ttl = 300,
        unless = |found| found.is_beyond_the_last(),
    )]
    pub async fn published(&self, page: Page) -> Result<EventPage> {
        let db = self.db.read().await;
        let total = sqlx::query_scalar("SELECT count(*) FROM events WHERE published")
            .fetch_one(db)
            .await?;
        let events = sqlx::query_as(
            "SELECT * FROM events WHERE published ORDER BY starts_at, id LIMIT ? OFFSET ?",
        )
        .bind(Page::SIZE)
        .bind(page.offset())
        .fetch_all(db)
        .await?;
        Ok(EventPage::new(page, total, events))
    }

    #[cacheable(
        key = "events:trending:page:<page>",
        tag = "events",
        ttl = 600,
        unless = |found| found.is_beyond_the_last(),
    )]
    pub async fn trending(&self, page: Page) -> Result<EventPage> {
        let db = self.db.read().await;
        let total = sqlx::query_scalar("SELECT count(*) FROM events WHERE published")
            .fetch_one(db)
            .await?;
        let events = sqlx::query_as(
            "SELECT * FROM events WHERE published ORDER BY sold DESC, id LIMIT ? OFFSET ?",
        )
        .bind(Page::SIZE)
        .bind(page.offset())
        .fetch_all(db)
        .await?;
        Ok(EventPage::new(page, total, events))
    }

    // A client also chooses the location. Only locations with events are stored. The same holds for states below.
    #[cacheable(
        key = "events:location:<location>:page:<page>",
        tag = "events",
        ttl = 300,
        unless = |found| found.events.is_empty(),
    )]
    pub async fn near(&self, location: &str, page: Page) -> Result<EventPage> {
        let db = self.db.read().await;
        let total =
            sqlx::query_scalar("SELECT count(*) FROM events WHERE location = ? AND published")
                .bind(location)
                .fetch_one(db)
                .await?;
        let events = sqlx::query_as(
            "SELECT * FROM events WHERE location = ? AND published ORDER BY starts_at, id LIMIT ? OFFSET ?",
        )
        .bind(location)
        .bind(Page::SIZE)
        .bind(page.offset())
        .fetch_all(db)
        .await?;
        Ok(EventPage::new(page, total, events))
    }

    /// Returns the published events in a state, of one type or of all.
    #[cacheable(
        key = "event:list:state:<state>:type:<types.name()>:page:<page>",
        tag = "events",
        ttl = 300,
        unless = |found| found.events.is_empty(),
    )]
    pub async fn in_state(&self, state: &str, types: Types, page: Page) -> Result<EventPage> {
        let db = self.db.read().await;
        let total = sqlx::query_scalar(
            "SELECT count(*) FROM events WHERE state = ?1 AND published AND ?2 IN ('all', type)",
        )
        .bind(state)
        .bind(types.name())
        .fetch_one(db)
        .await?;
        let events = sqlx::query_as(
            "SELECT * FROM events WHERE state = ?1 AND published AND ?2 IN ('all', type)
             ORDER BY starts_at, id LIMIT ?3 OFFSET ?4",
        )
        .bind(state)
        .bind(types.name())
        .bind(Page::SIZE)
        .bind(page.offset())
        .fetch_all(db)
        .await?;
        Ok(EventPage::new(page, total, events))
    }

    /// Returns the published events of a user. `None` means that the user does not exist.
    #[cacheable(
        key = "events:organizer:<user_id>:page:<page>",
        tag = "organizer:<user_id>",
        ttl = 600,
        unless = |found| found.as_ref().is_some_and(EventPage::is_beyond_the_last),
    )]
    pub async fn organized_by(&self, user_id: i64, page: Page) -> Result<Option<EventPage>> {
        self.of_organizer(user_id, page, Drafts::Hidden).await
    }

    /// Returns all events of a user, including drafts, which only that user may see.
    #[cacheable(
        key = "events:organizer:<user_id>:all:page:<page>",
        tag = "organizer:<user_id>",
        ttl = 600,
        unless = |found| found.as_ref().is_some_and(EventPage::is_beyond_the_last),
    )]
    pub async fn all_organized_by(&self, user_id: i64, page: Page) -> Result<Option<EventPage>> {
        self.of_organizer(user_id, page, Drafts::Shown).await
    }

    async fn of_organizer(
        &self,
        user_id: i64,
        page: Page,
        drafts: Drafts,
    ) -> Result<Option<EventPage>> {
        let db = self.db.read().await;
        let shows_drafts = drafts == Drafts::Shown;
        let total = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM events WHERE organizer_id = users.id AND (published OR ?2))
             FROM users WHERE id = ?1",
        )
        .bind(user_id)
        .bind(shows_drafts)
        .fetch_optional(db)
        .await?;
        let Some(total) = total else { return Ok(None) };
        let events = sqlx::query_as(
            "SELECT * FROM events WHERE organizer_id = ? AND (published OR ?) ORDER BY id LIMIT ? OFFSET ?",
        )
        .bind(user_id)
        .bind(shows_drafts)
        .bind(Page::SIZE)
        .bind(page.offset())
        .fetch_all(db)
        .await?;
        Ok(Some(EventPage::new(page, total, events)))
    }

    #[cacheable(key = "analytics:<event_id>", ttl = 1800)]
    pub async fn analytics(&self, event_id: i64) -> Result<Option<Analytics>> {
        let analytics = sqlx::query_as(
            "SELECT organizer_id, published,
                    events.id AS event_id, sold AS tickets_sold, count(DISTINCT user_id) AS buyers,
                    coalesce(sum(quantity * tickets.price_cents), 0) AS revenue_cents,
                    sold * 1.0 / capacity AS sold_share
             FROM events LEFT JOIN tickets ON tickets.event_id = events.id
             WHERE events.id = ?
             GROUP BY events.id",
        )
        .bind(event_id);
        Ok(analytics.fetch_optional(self.db.read().await).await?)
    }
}

/// Whether a list contains events that are not published yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drafts {
    Shown,
    Hidden,
}

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Event {
    pub id: i64,
    pub organizer_id: i64,
    pub title: String,
    pub description: String,
    pub location: String,
    /// The part of a country, such as a state of Nigeria.
    pub state: String,
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub kind: EventType,
    /// Seconds since 1970.
    pub starts_at: i64,
    pub price_cents: i64,
    pub capacity: i64,
    pub tickets_left: i64,
    pub published: bool,
}

impl Event {
    /// Returns whether this user may see the event. Only its organiser sees a draft.
    pub fn is_for(&self, user_id: Option<i64>) -> bool {
        self.published || user_id == Some(self.organizer_id)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum EventType {
    Concert,
    Meetup,
    Workshop,
    Reading,
    Exhibition,
    Festival,
    Conference,
}

impl EventType {
    const ALL: [Self; 7] = [
        Self::Concert,
        Self::Meetup,
        Self::Workshop,
        Self::Reading,
        Self::Exhibition,
        Self::Festival,
        Self::Conference,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Concert => "concert",
            Self::Meetup => "meetup",
            Self::Workshop => "workshop",
            Self::Reading => "reading",
            Self::Exhibition => "exhibition",
            Self::Festival => "festival",
            Self::Conference => "conference",
        }
    }
}

impl FromStr for EventType {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.name() == text).ok_or(())
    }
}

/// The types of the events in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Types {
    All,
    Only(EventType),
}

impl Types {
    /// The name in keys and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Only(kind) => kind.name(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventPage {
    pub page: u32,
    pub pages: i64,
    pub total: i64,
    pub events: Vec<Event>,
}

impl EventPage {
    fn new(page: Page, total: i64, events: Vec<Event>) -> Self {
        let pages = (total + i64::from(Page::SIZE) - 1) / i64::from(Page::SIZE);
        Self {
            page: page.number(),
            pages,
            total,
            events,
        }
    }

    /// The first page exists even if it is empty.
    fn is_beyond_the_last(&self) -> bool {
        i64::from(self.page) > self.pages.max(1)
    }
}

/// The figures of an event, and the user who may see them.
#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Analytics {
    pub organizer_id: i64,
    pub published: bool,
    #[sqlx(flatten)]
    pub figures: Figures,
}

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Figures {
    pub event_id: i64,
    pub tickets_sold: i64,
    pub buyers: i64,
    pub revenue_cents: i64,
    /// The share of sold places, from 0 to 1.
    pub sold_share: f64,
}
