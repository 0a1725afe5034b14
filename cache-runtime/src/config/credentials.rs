//! Users and passwords that a function provides.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::Secret;

/// The error of a function that provides credentials.
type Failure = Box<dyn StdError + Send + Sync>;

/// The future of such a function.
pub(crate) type Providing = Pin<Box<dyn Future<Output = Result<Login, Failure>> + Send>>;

/// Who logs in to Redis.
///
/// See [`Credentials`] for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Secret,
}

impl Login {
    /// A user with a password.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self {
            username: Some(username.into()),
            password: password.into(),
        }
    }
}

/// The user of the configuration, or the default user without one.
impl<T: Into<Secret>> From<T> for Login {
    fn from(password: T) -> Self {
        Self {
            username: None,
            password: password.into(),
        }
    }
}

/// A function that provides the user and the password each time that a connection opens, such as a token that is valid for some
/// minutes.
///
/// ```
/// use cache_runtime::{Config, Credentials, Login};
///
/// # async fn token() -> Result<String, std::io::Error> { Ok("t".to_owned()) }
/// let config = Config::default().credentials(Credentials::new(|| async {
///     Ok::<_, std::io::Error>(Login::new("app", token().await?))
/// }));
/// # drop(config);
/// ```
///
/// - The function runs in a task of its own. No caller of the cache waits for it.
/// - It has [`connect_timeout`](crate::Config::connect_timeout) to return. An error, a panic and a timeout mean that the connection
///   is not opened. It is tried again after a pause, and [`Health::fallback_reason`](crate::Health::fallback_reason) has the reason
///   if no other connection is open.
/// - Open connections stay open when a token expires. They are opened again with a new one when the server closes them.
#[derive(Clone)]
pub struct Credentials(Arc<dyn Fn() -> Providing + Send + Sync>);

impl Credentials {
    /// Asks `provide` for each connection.
    pub fn new<F, P, L, E>(provide: F) -> Self
    where
        F: Fn() -> P + Send + Sync + 'static,
        P: Future<Output = Result<L, E>> + Send + 'static,
        L: Into<Login>,
        E: Into<Failure>,
    {
        Self(Arc::new(move || {
            let providing = provide();
            Box::pin(async move { providing.await.map(Into::into).map_err(Into::into) })
        }))
    }

    pub(crate) fn provide(&self) -> Providing {
        (self.0)()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}
