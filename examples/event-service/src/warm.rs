//! Warming: reads popular entries in advance, so that they are cached.

use std::time::Duration;

use anyhow::Context;
use cache_runtime::Cache;
use cache_runtime::warm::{self, Progress, Schedule, Summary};
use indicatif::{ProgressBar, ProgressStyle};

use crate::db::Db;
use crate::error::Error;
use crate::events::{Events, Types};
use crate::page::Page;
use crate::referrals::Referrals;

/// The number of locations whose lists are warmed, beginning with the most events. The same for states.
const PLACES: u32 = 10;

/// A call of an annotated method that is warmed.
#[derive(Clone, Debug)]
enum Item {
    Event(i64),
    Near(String),
    InState(String),
    Published,
    Trending,
    Leaderboard,
}

/// Warms every published event, the first page of each public list, and the leaderboard.
pub async fn run(
    db: &Db,
    cache: &Cache,
    progress: impl FnMut(&Progress),
) -> anyhow::Result<Summary> {
    let items = items(db).await.context("cannot list the items to warm")?;
    let (events, referrals) = (Events::new(db.clone()), Referrals::new(db.clone()));
    let load = async |item| {
        match item {
            Item::Event(id) => events.find(id).await.map(drop),
            Item::Near(location) => events.near(&location, Page::default()).await.map(drop),
            Item::InState(state) => events
                .in_state(&state, Types::All, Page::default())
                .await
                .map(drop),
            Item::Published => events.published(Page::default()).await.map(drop),
            Item::Trending => events.trending(Page::default()).await.map(drop),
            Item::Leaderboard => referrals.top_referrers().await.map(drop),
        }
        .map_err(told)
    };
    Ok(cache.warm(items, load).on_progress(progress).run().await)
}

/// Warms every `period`, on one instance of the service at a time.
pub fn every(period: Duration, db: &Db, cache: &Cache) -> Schedule {
    let parts = (db.clone(), cache.clone());
    warm::every(period, cache, "service", move || {
        let (db, cache) = parts.clone();
        async move {
            match run(&db, &cache, |_| {}).await {
                Ok(summary) if summary.failed == 0 => tracing::info!("warmed: {summary}"),
                Ok(summary) => {
                    let first = summary.errors.first().map(ToString::to_string);
                    tracing::warn!(first, "warmed: {summary}");
                }
                Err(error) => tracing::warn!("not warmed: {error:#}"),
            }
        }
    })
}

/// Returns the lists first, because they take longest and are read most.
async fn items(db: &Db) -> Result<Vec<Item>, sqlx::Error> {
    let db = db.read().await;
    let locations: Vec<String> = sqlx::query_scalar(
        "SELECT location FROM events WHERE published GROUP BY location ORDER BY count(*) DESC, location LIMIT ?",
    )
    .bind(PLACES)
    .fetch_all(db)
    .await?;
    let states: Vec<String> = sqlx::query_scalar(
        "SELECT state FROM events WHERE published GROUP BY state ORDER BY count(*) DESC, state LIMIT ?",
    )
    .bind(PLACES)
    .fetch_all(db)
    .await?;
    let events: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM events WHERE published ORDER BY starts_at, id")
            .fetch_all(db)
            .await?;
    let mut items = vec![Item::Published, Item::Trending, Item::Leaderboard];
    items.extend(locations.into_iter().map(Item::Near));
    items.extend(states.into_iter().map(Item::InState));
    items.extend(events.into_iter().map(Item::Event));
    Ok(items)
}

fn told(error: Error) -> String {
    match error {
        Error::Refused { detail, .. } => detail,
        Error::Busy { detail, .. } => detail.to_owned(),
        Error::Limited(limited) => limited.to_string(),
        Error::Session(error) => error.to_string(),
        Error::Database(error) => error.to_string(),
        Error::Internal(error) => error.to_string(),
    }
}

/// Shows progress on standard error: a bar on a terminal, otherwise a line for every 10 %.
pub fn shown() -> impl FnMut(&Progress) {
    let bar = ProgressBar::no_length().with_style(style());
    let mut tenths = 0;
    move |progress| {
        let total = progress.total.unwrap_or(progress.done);
        if !bar.is_hidden() {
            bar.set_length(total as u64);
            bar.set_position(progress.done as u64);
            bar.set_message(format!(
                "{} loaded, {} fresh, {} failed",
                progress.loaded, progress.fresh, progress.failed
            ));
            if progress.done == total {
                bar.finish();
                // The next output begins on a new line.
                eprintln!();
            }
            return;
        }
        let reached = progress.done * 10 / total.max(1);
        if reached > tenths {
            tenths = reached;
            eprintln!("{} of {total} done", progress.done);
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
