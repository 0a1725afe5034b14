//! The service's own environment variables. The cache reads its own.

use std::env::{self, VarError};
use std::time::Duration;

use anyhow::{Context, bail};

/// What the environment says, and else the defaults.
#[derive(Debug)]
pub struct Settings {
    /// `BIND`: where to listen.
    pub bind: String,
    /// `DATABASE_URL`: a file, as `sqlite:events.db`. Without it everything is in memory and gone at the end.
    pub database_url: Option<String>,
    /// `SLOW_DB_MS`: what every read of the database takes longer.
    pub slow_db: Duration,
}

impl Settings {
    pub fn from_env() -> anyhow::Result<Self> {
        let slow_db = match variable("SLOW_DB_MS")? {
            Some(text) => text.parse().with_context(|| {
                format!("SLOW_DB_MS is `{text}`: it must be whole milliseconds")
            })?,
            None => 0,
        };
        Ok(Self {
            // Only this machine, until somebody decides otherwise.
            bind: variable("BIND")?.unwrap_or_else(|| "127.0.0.1:8080".to_owned()),
            database_url: variable("DATABASE_URL")?,
            slow_db: Duration::from_millis(slow_db),
        })
    }
}

/// An empty variable is as good as none.
fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => Ok(Some(text)),
        Ok(_) | Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => bail!("{name} is not UTF-8"),
    }
}
