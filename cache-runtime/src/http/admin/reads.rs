//! What a client can look at.

use std::collections::BTreeMap;

use ::http::StatusCode;
use serde_json::{Map, Value, json};

use super::Asked;
use super::problem::Problem;
use super::routes::Action;
use super::view::{data, view_for};
use crate::catalog::Attribute;
use crate::metrics::SiteStats;

/// The name of Spring's default cache manager. Clients of the actuator may send it.
pub(super) const MANAGER: &str = "cacheManager";

/// The most clients in one response.
const MAX_CLIENTS: usize = 100;

impl Asked<'_> {
    pub(super) async fn look(&self, action: Action) -> Result<Value, Problem> {
        let cache = &self.shared.cache;
        match action {
            Action::Keys => {
                let parameters = self.parameters(&["pattern", "cursor"])?;
                let pattern = parameters.get("pattern").filter(|text| !text.is_empty());
                let cursor = parameters.get("cursor").filter(|text| !text.is_empty());
                let _place = self.shared.walks.begin()?;
                let page = cache.key_page(pattern.unwrap_or("*"), cursor).await?;
                Ok(data(page))
            }
            Action::Entry => {
                let parameters = self.parameters(&["key"])?;
                let key = parameters.required("key", "event:1")?;
                let shows = self.shared.config.shows_values;
                match cache.entry_at(key, shows).await? {
                    Some(entry) => Ok(data(entry)),
                    None => Err(Problem::new(
                        StatusCode::NOT_FOUND,
                        "no entry has this key; `api/keys` lists the keys, which are written without the prefix",
                    )),
                }
            }
            Action::TopClients => {
                let parameters = self.parameters(&["policy", "count"])?;
                let policy = parameters.required("policy", "api")?;
                let count = parameters.number("count", 20, MAX_CLIENTS)?;
                let top = self.limiter()?.top_limited(policy, count).await?;
                let clients = top
                    .into_iter()
                    .map(|(client, rejected)| json!({ "client": client, "rejected": rejected }));
                Ok(json!({ "policy": policy, "clients": clients.collect::<Vec<_>>() }))
            }
            Action::OneCache => {
                let (name, mut cache) = self.named_cache()?;
                cache["name"] = name.into();
                cache["cacheManager"] = MANAGER.into();
                Ok(cache)
            }
            Action::Sessions => {
                let parameters = self.parameters(&["user"])?;
                self.sessions_of(parameters.required("user", "42")?).await
            }
            other => {
                // These have no parameters.
                self.parameters(&[])?;
                self.look_at_all(other).await
            }
        }
    }

    async fn look_at_all(&self, action: Action) -> Result<Value, Problem> {
        let cache = &self.shared.cache;
        Ok(match action {
            Action::Status => {
                let mut status = data(self.shared.health().await);
                let config = cache.config();
                let more = json!({
                    "role": self.who.role.name(),
                    "environment": config.environment.name(),
                    "prefix": config.prefix,
                    "process": std::process::id(),
                    "version": env!("CARGO_PKG_VERSION"),
                    "uptime_seconds": cache.stats().uptime_seconds,
                });
                if let (Value::Object(status), Value::Object(more)) = (&mut status, more) {
                    status.extend(more);
                }
                status
            }
            Action::Stats => data(cache.stats()),
            Action::View => view_for(self.shared, self.who.role).await,
            Action::Catalog => data(&self.shared.catalog),
            Action::Usage => self.shared.walks.census(self.usage()).await?,
            Action::Switches => json!({ "off": cache.patterns_off() }),
            Action::Jobs => {
                let jobs = self.shared.config.jobs.iter();
                json!({ "jobs": jobs.map(|job| job.report()).collect::<Vec<_>>() })
            }
            Action::Caches => {
                let caches: Map<_, _> = self
                    .caches()
                    .into_iter()
                    .map(|(name, cache)| (name.to_owned(), cache))
                    .collect();
                json!({ "cacheManagers": { MANAGER: { "caches": caches } } })
            }
            // The routes of these have other handlers.
            _ => Value::Null,
        })
    }

    async fn usage(&self) -> Result<Value, Problem> {
        let cache = &self.shared.cache;
        let mut usage = data(cache.census(&self.shared.catalog).await?);
        let stats = cache.stats();
        usage["memory"] = data(stats.memory);
        usage["redis"] = data(stats.redis);
        Ok(usage)
    }

    /// Returns the caches as Spring Boot's actuator lists them, by their templates, with the numbers that it leaves out.
    fn caches(&self) -> BTreeMap<&'static str, Value> {
        let cache = &self.shared.cache;
        let stats = cache.stats();
        let is_used = cache.is_used();
        let functions = self.shared.catalog.functions.iter();
        let mut stores: Vec<_> = functions
            .filter(|function| function.stores.is_some())
            .collect();
        // Of functions with the same key, one that reads is shown.
        stores.sort_by_key(|function| function.attribute == Attribute::Cacheable);
        stores
            .into_iter()
            .filter_map(|function| {
                let same = |site: &&SiteStats| {
                    (site.name, site.template) == (function.name, function.template)
                };
                let counts = stats.sites.iter().find(same).map(|site| &site.counts);
                if counts.is_none() && !is_used {
                    return None;
                }
                let cache = json!({
                    "target": function.name,
                    "gets": counts.map_or(0, |counts| counts.gets),
                    "hits": counts.map_or(0, |counts| counts.hits),
                    "misses": counts.map_or(0, |counts| counts.misses),
                    "hitRate": counts.and_then(|counts| counts.hit_rate),
                    "puts": counts.map_or(0, |counts| counts.fills + counts.puts_stored),
                });
                Some((function.template, cache))
            })
            .collect()
    }

    /// Returns the cache that the path names, and how it is listed.
    pub(super) fn named_cache(&self) -> Result<(&'static str, Value), Problem> {
        let parameters = self.parameters(&[MANAGER])?;
        if parameters.get(MANAGER).is_some_and(|name| name != MANAGER) {
            let text = "no cache manager has this name; use `cacheManager`, or leave it out";
            return Err(Problem::new(StatusCode::NOT_FOUND, text));
        }
        self.caches().remove_entry(self.name.as_str()).ok_or_else(|| {
            let text = "no function has this key; `actuator/caches` lists the keys as they are written in attributes";
            Problem::new(StatusCode::NOT_FOUND, text)
        })
    }

    pub(super) fn limiter(&self) -> Result<&crate::limit::RateLimiter, Problem> {
        self.shared.config.limiter.as_ref().ok_or_else(|| {
            let text = "the admin service has no limiter; add one with `AdminConfig::limiter`";
            Problem::new(StatusCode::NOT_FOUND, text)
        })
    }

    #[cfg(feature = "sessions")]
    pub(super) fn sessions(&self) -> Result<&dyn super::sessions::UserSessions, Problem> {
        self.shared
            .config
            .sessions
            .as_deref()
            .ok_or_else(no_sessions)
    }

    #[cfg(feature = "sessions")]
    async fn sessions_of(&self, user: &str) -> Result<Value, Problem> {
        let sessions = self.sessions()?.list(user).await;
        let sessions = sessions.map_err(|error| unavailable(&error))?;
        Ok(json!({ "user": user, "sessions": sessions }))
    }

    #[cfg(not(feature = "sessions"))]
    async fn sessions_of(&self, _: &str) -> Result<Value, Problem> {
        Err(no_sessions())
    }
}

pub(super) fn no_sessions() -> Problem {
    let text = "the admin service has no sessions; add their store with `AdminConfig::sessions`";
    Problem::new(StatusCode::NOT_FOUND, text)
}

#[cfg(feature = "sessions")]
pub(super) fn unavailable(error: &crate::session::SessionError) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}
