//! The settings of the service, from environment variables, and the defaults of its cache.

use std::env::{self, VarError};
use std::time::Duration;

use anyhow::{Context, bail};
use cache_runtime::http::{AdminConfig, ClientIpSource, SessionCookie};
use cache_runtime::{Config, TtlPolicy};

/// The defaults of the cache. Variables such as `CACHE_POLICY_QUERIES_TTL` and `CACHE_SESSION_IDLE` override them.
pub fn cache_defaults() -> Config {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let policy = |ttl| TtlPolicy::default().ttl(ttl);
    Config::default()
        .client_name("requirements-service")
        // Another service with the same Redis has other keys and other sessions.
        .prefix("requirements_")
        // Every write evicts or replaces its entries. A TTL only limits how long an entry that nobody reads takes memory.
        .policy("requirements", policy(minutes(60)))
        // These change most often.
        .policy("features", policy(minutes(15)))
        // The verdict about a document changes only with its schema.
        .policy("validations", policy(minutes(120)))
        // Clients choose the text of a search, so its entries are many and rarely read again.
        .policy("queries", policy(minutes(5)))
        // These are small, and only their user changes them.
        .policy("preferences", policy(minutes(24 * 60)))
        // 30 minutes after the last use. A user who works is not logged out; an abandoned browser is.
        .session_idle(minutes(30))
        // A stolen cookie that is kept in use does not last longer than a working day.
        .session_absolute(minutes(12 * 60))
}

/// The settings of the service itself. The cache reads its own variables, `REDIS_…` and `CACHE_…`.
#[derive(Debug)]
pub struct Settings {
    /// `BIND`: the address to listen on.
    pub bind: String,
    /// `DATABASE_URL`: `postgres:…` or `sqlite:…`. Without it the database is temporary.
    pub database_url: Option<String>,
    /// `DEMO_DATA`: `1` adds users and requirements to an empty database, `0` does not. A temporary database has them by default.
    pub demo_data: bool,
    /// `TRUSTED_PROXIES`: networks whose `X-Forwarded-For` names the client.
    pub client_ip: ClientIpSource,
    /// `INSECURE_COOKIE`: `1` for a cookie that clients also send over plain HTTP. Without it, only over TLS.
    pub cookie: SessionCookie,
    /// `ADMIN_TOKEN`: what operators need for `/admin/cache/`. Without it, only this machine may use it.
    pub admin: AdminConfig,
}

impl Settings {
    pub fn from_env() -> anyhow::Result<Self> {
        let database_url = variable("DATABASE_URL")?;
        let client_ip = match variable("TRUSTED_PROXIES")? {
            Some(text) => ClientIpSource::trusted_proxies(text.split(',').map(str::trim))
                .with_context(|| {
                    format!("TRUSTED_PROXIES is `{text}`: it must be networks separated by commas, such as `10.0.0.0/8,192.0.2.1`")
                })?,
            None => ClientIpSource::peer(),
        };
        let cookie = match switch("INSECURE_COOKIE", false)? {
            true => SessionCookie::insecure(),
            false => SessionCookie::default(),
        };
        let mut admin = AdminConfig::default();
        if let Some(token) = variable("ADMIN_TOKEN")? {
            admin = admin
                .write_token(&token)
                .context("ADMIN_TOKEN is invalid")?;
        }
        Ok(Self {
            // Only this machine by default.
            bind: variable("BIND")?.unwrap_or_else(|| "127.0.0.1:8081".to_owned()),
            demo_data: switch("DEMO_DATA", database_url.is_none())?,
            database_url,
            client_ip,
            cookie,
            admin,
        })
    }
}

fn switch(name: &str, default: bool) -> anyhow::Result<bool> {
    match variable(name)?.as_deref() {
        Some("1") => Ok(true),
        Some("0") => Ok(false),
        None => Ok(default),
        Some(text) => bail!("{name} is `{text}`: it must be `1` or `0`"),
    }
}

/// An empty variable counts as unset.
fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => Ok(Some(text)),
        Ok(_) | Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => bail!("{name} is not UTF-8"),
    }
}
