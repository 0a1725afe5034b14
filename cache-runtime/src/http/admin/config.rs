//! What the admin service offers, and to whom.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::access::{Access, Token};
use super::jobs::{BoxError, Job};
#[cfg(feature = "sessions")]
use super::sessions::UserSessions;
use crate::error::{Error, ErrorKind};
use crate::limit::RateLimiter;
#[cfg(feature = "sessions")]
use crate::session::SessionStore;
use crate::warm::Summary;

/// The most jobs. They come from source code, so there are few.
const MAX_JOBS: usize = 64;

/// What [`admin`](super::admin()) offers, and to whom. The default is for this machine only.
///
/// ```
/// use cache_runtime::http::AdminConfig;
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// let config = AdminConfig::default()
///     .read_token("a-token-for-dashboards")?
///     .write_token("a-token-for-operators")?;
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct AdminConfig {
    pub(super) access: Access,
    pub(super) shows_values: bool,
    pub(super) limiter: Option<RateLimiter>,
    #[cfg(feature = "sessions")]
    pub(super) sessions: Option<Arc<dyn UserSessions>>,
    pub(super) jobs: Vec<Arc<Job>>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            // Safe without a decision: nobody else can reach it.
            access: Access::Loopback,
            // Values belong to users, and debugging a cache rarely needs them.
            shows_values: false,
            limiter: None,
            #[cfg(feature = "sessions")]
            sessions: None,
            jobs: Vec::new(),
        }
    }
}

impl AdminConfig {
    /// Sets the token with which clients may read: `Authorization: Bearer <token>`, or the login of the page. With a token, requests
    /// from this machine need one, too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a token of fewer than 16 or more than 512 printable ASCII characters, if it is the write token, and
    /// after [`users_from_layer`](Self::users_from_layer).
    pub fn read_token(self, token: &str) -> Result<Self, Error> {
        let token = Token::new(token)?;
        let (_, write) = self.tokens()?;
        self.with_tokens(Some(token), write)
    }

    /// Sets the token with which clients may read and write.
    ///
    /// # Errors
    ///
    /// The same as [`read_token`](Self::read_token).
    pub fn write_token(self, token: &str) -> Result<Self, Error> {
        let token = Token::new(token)?;
        let (read, _) = self.tokens()?;
        self.with_tokens(read, Some(token))
    }

    fn tokens(&self) -> Result<(Option<Token>, Option<Token>), Error> {
        match &self.access {
            Access::Loopback => Ok((None, None)),
            Access::Tokens { read, write } => Ok((read.clone(), write.clone())),
            Access::Layer => Err(Error::new(ErrorKind::Config, TWO_WAYS)),
        }
    }

    fn with_tokens(self, read: Option<Token>, write: Option<Token>) -> Result<Self, Error> {
        if let (Some(read), Some(write)) = (&read, &write)
            && read.is(write)
        {
            let text = "the read token and the write token of the admin service are equal; use two tokens, or only a write token";
            return Err(Error::new(ErrorKind::Config, text));
        }
        let access = Access::Tokens { read, write };
        Ok(Self { access, ..self })
    }

    /// A layer of your own decides who may use the service: it inserts an [`AdminUser`](super::AdminUser) into the extensions of each
    /// request. A request without one is refused.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if a token is set.
    pub fn users_from_layer(self) -> Result<Self, Error> {
        match self.access {
            Access::Tokens { .. } => Err(Error::new(ErrorKind::Config, TWO_WAYS)),
            Access::Loopback | Access::Layer => Ok(Self {
                access: Access::Layer,
                ..self
            }),
        }
    }

    /// Shows the values of entries. Without it only keys, ages and sizes are shown.
    pub fn show_values(self) -> Self {
        Self {
            shows_values: true,
            ..self
        }
    }

    /// Shows which clients this limiter rejects most, and resets them.
    pub fn limiter(self, limiter: &RateLimiter) -> Self {
        Self {
            limiter: Some(limiter.clone()),
            ..self
        }
    }

    /// Lists the sessions of a user and ends them. The data of the application is not shown.
    #[cfg(feature = "sessions")]
    pub fn sessions<E>(self, store: &SessionStore<E>) -> Self
    where
        E: serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        Self {
            sessions: Some(Arc::new(store.clone())),
            ..self
        }
    }

    /// Registers a job that warms the cache, so that a person can start it. Of each name one run is under way at a time. A job after
    /// the first 64, and one of a known name, replaces nothing and is not registered.
    ///
    /// ```
    /// use cache_runtime::{Cache, cacheable, http::AdminConfig};
    ///
    /// #[cacheable(key = "page:<page>", ttl = "5m", cache = cache)]
    /// async fn page(cache: &Cache, page: u32) -> Result<String, std::io::Error> {
    ///     Ok(format!("the events of page {page}"))
    /// }
    ///
    /// # let cache = Cache::memory();
    /// let config = AdminConfig::default().job("pages", move || {
    ///     let cache = cache.clone();
    ///     async move { Ok::<_, std::io::Error>(cache.warm(1..=3, |number| page(&cache, number)).run().await) }
    /// });
    /// # let _ = config;
    /// ```
    pub fn job<F, J, E>(mut self, name: &str, job: F) -> Self
    where
        F: Fn() -> J + Send + Sync + 'static,
        J: Future<Output = Result<Summary, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let is_known = self.jobs.iter().any(|job| job.name == name);
        if is_known || self.jobs.len() >= MAX_JOBS {
            tracing::warn!(
                name,
                "this job of the admin service is not registered: its name is taken, or there are 64 jobs"
            );
        } else {
            self.jobs.push(Arc::new(Job::new(name, job)));
        }
        self
    }
}

const TWO_WAYS: &str =
    "the admin service has tokens or users from a layer, not both; remove one of them";

impl fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminConfig")
            .field("access", &self.access)
            .field("shows_values", &self.shows_values)
            .finish_non_exhaustive()
    }
}
