//! The service's own environment variables, and its defaults for those that the cache reads.

use std::env::{self, VarError};
use std::time::Duration;

use anyhow::{Context, bail};
use cache_runtime::http::{AdminConfig, ClientIpSource, SessionCookie};
use cache_runtime::{Config, TtlPolicy};

use crate::devices::DeviceCookie;
use crate::server::Timeouts;

/// The settings from the environment, or their defaults.
#[derive(Debug)]
pub struct Settings {
    /// `BIND`: where to listen.
    pub bind: String,
    /// `DATABASE_URL`: a file, such as `sqlite:events.db`. Without it everything is in a temporary file and lost at the end.
    pub database_url: Option<String>,
    /// `SLOW_DB_MS`: how much longer every read of the database takes.
    pub slow_db: Duration,
    /// `WARM_EVERY`: how often the cache is warmed while the service runs. Without it, never.
    pub warm_every: Option<Duration>,
    /// `TRUSTED_PROXIES`: the networks of the proxies whose `X-Forwarded-For` counts. Without it, the peer is the client.
    pub client_ip: ClientIpSource,
    /// `TRUSTED_ORIGINS`: other origins whose pages may send requests that change data.
    pub trusted_origins: Vec<String>,
    /// `INSECURE_COOKIE`: `1` for a cookie that clients also send over plain HTTP. Without it, only over TLS.
    pub cookie: SessionCookie,
    /// The same for the cookie of devices.
    pub device_cookie: DeviceCookie,
    /// `ADMIN_TOKEN` and `ADMIN_READ_TOKEN`: what operators need for the page at `/admin/cache/`. Without them, only this machine may
    /// use that page.
    pub admin: AdminConfig,
    /// `MAX_CONNECTIONS`: the most connections at a time.
    pub max_connections: usize,
    /// `MAX_CONNECTIONS_PER_ADDRESS`: the most connections of one client. Trusted proxies may have more.
    pub max_connections_per_address: usize,
    /// `MAX_REQUESTS`: the maximum number of requests that run at the same time.
    pub max_requests: usize,
    /// `HEAD_TIMEOUT`, `BODY_TIMEOUT` and `WRITE_TIMEOUT`: how long the service waits for a client.
    pub timeouts: Timeouts,
    /// `LOGIN_WAIT`: how long a login waits for others whose passwords are being verified.
    pub login_wait: Duration,
}

impl Settings {
    pub fn from_env() -> anyhow::Result<Self> {
        let slow_db = match variable("SLOW_DB_MS")? {
            Some(text) => text.parse().with_context(|| {
                format!("SLOW_DB_MS is `{text}`: it must be whole milliseconds")
            })?,
            None => 0,
        };
        let warm_every = match variable("WARM_EVERY")? {
            Some(text) => Some(period(&text).with_context(|| {
                format!("WARM_EVERY is `{text}`: it must be at least a second, such as `300`, `90s`, `5m` or `1h`")
            })?),
            None => None,
        };
        let client_ip = match variable("TRUSTED_PROXIES")? {
            Some(text) => ClientIpSource::trusted_proxies(text.split(',').map(str::trim))
                .with_context(|| {
                    format!("TRUSTED_PROXIES is `{text}`: it must be networks separated by commas, such as `10.0.0.0/8,192.0.2.1`")
                })?,
            None => ClientIpSource::peer(),
        };
        let origins = variable("TRUSTED_ORIGINS")?.unwrap_or_default();
        let origins = origins.split(',').map(str::trim);
        let trusted_origins = origins.filter(|origin| !origin.is_empty());
        let trusted_origins = trusted_origins.map(str::to_owned).collect();
        let (cookie, device_cookie) = match variable("INSECURE_COOKIE")?.as_deref() {
            Some("1") => (SessionCookie::insecure(), DeviceCookie::Insecure),
            Some("0") | None => (SessionCookie::default(), DeviceCookie::Secure),
            Some(text) => bail!("INSECURE_COOKIE is `{text}`: it must be `1` or `0`"),
        };
        let mut admin = AdminConfig::default();
        if let Some(token) = variable("ADMIN_READ_TOKEN")? {
            admin = admin
                .read_token(&token)
                .context("ADMIN_READ_TOKEN is invalid")?;
        }
        if let Some(token) = variable("ADMIN_TOKEN")? {
            admin = admin
                .write_token(&token)
                .context("ADMIN_TOKEN is invalid")?;
        }
        Ok(Self {
            admin,
            // Only this machine by default.
            bind: variable("BIND")?.unwrap_or_else(|| "127.0.0.1:8080".to_owned()),
            database_url: variable("DATABASE_URL")?,
            slow_db: Duration::from_millis(slow_db),
            warm_every,
            client_ip,
            trusted_origins,
            cookie,
            device_cookie,
            // What a process can usually have open. The service cannot answer more at a time.
            max_connections: count("MAX_CONNECTIONS", 1024)?,
            // A browser has 6 connections, an office behind one address has some dozens.
            max_connections_per_address: count("MAX_CONNECTIONS_PER_ADDRESS", 256)?,
            // At least as many as it answers in a second. A client that waits longer has given up.
            max_requests: count("MAX_REQUESTS", 20_000)?,
            // A phone on a bad line sends 64 KiB in that time.
            timeouts: Timeouts {
                head: time("HEAD_TIMEOUT", Duration::from_secs(10))?,
                body: time("BODY_TIMEOUT", Duration::from_secs(10))?,
                write: time("WRITE_TIMEOUT", Duration::from_secs(10))?,
            },
            // Longer than people wait.
            login_wait: time("LOGIN_WAIT", Duration::from_secs(5))?,
        })
    }
}

/// Returns the configuration of the cache: the policies below, and the environment, which overrides them.
///
/// # Errors
///
/// If a variable is invalid.
pub fn cache_config() -> Result<Config, cache_runtime::Error> {
    Config::from_env_over(cache_defaults())
}

/// Returns what the environment overrides.
pub fn cache_defaults() -> Config {
    let ttl = |seconds| TtlPolicy::default().ttl(Duration::from_secs(seconds));
    Config::default()
        // Clients poll it while a payment is confirmed.
        .policy("payment-status", ttl(60))
        // They rarely change, and each change is written through.
        .policy("profiles", ttl(3600))
}

fn count(name: &str, default: usize) -> anyhow::Result<usize> {
    match variable(name)? {
        Some(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => bail!("{name} is `{text}`: it must be a whole number of at least 1"),
        },
        None => Ok(default),
    }
}

fn time(name: &str, default: Duration) -> anyhow::Result<Duration> {
    match variable(name)? {
        Some(text) => timeout(&text).with_context(|| {
            format!(
                "{name} is `{text}`: it must be from 1 ms to 1 h, such as `500ms`, `10s` or `1m`"
            )
        }),
        None => Ok(default),
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

/// A whole number of seconds, minutes or hours.
fn period(text: &str) -> Option<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let (number, seconds) = units
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .unwrap_or((text, 1));
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// A [`period`], or a whole number of milliseconds.
fn timeout(text: &str) -> Option<Duration> {
    let timeout = match text.strip_suffix("ms") {
        Some(number) => Duration::from_millis(number.parse().ok()?),
        None => period(text)?,
    };
    (!timeout.is_zero() && timeout <= Duration::from_secs(3600)).then_some(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_number_of_seconds_or_has_a_unit() {
        assert_eq!(period("300"), Some(Duration::from_secs(300)));
        assert_eq!(period("90s"), Some(Duration::from_secs(90)));
        assert_eq!(period("5m"), Some(Duration::from_secs(300)));
        assert_eq!(period("2h"), Some(Duration::from_secs(7200)));
    }

    #[test]
    fn invalid_periods_are_refused() {
        for text in [
            "0",
            "0m",
            "-5",
            "5d",
            "soon",
            "m",
            "5 m",
            "18446744073709551615h",
        ] {
            assert_eq!(period(text), None, "{text}");
        }
    }

    #[test]
    fn a_timeout_can_be_in_milliseconds() {
        assert_eq!(timeout("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("10s"), Some(Duration::from_secs(10)));
        for text in ["0ms", "0", "-1ms", "2h", "1.5s", "ms"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }
}
