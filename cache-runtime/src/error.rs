//! Errors of the cache, for callers that want to see them. Annotated functions never return them.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::escape::Escaped;

type Source = Box<dyn StdError + Send + Sync>;

/// A failure of the cache itself.
///
/// - The text is one clause about the operation of the cache.
/// - The cause, if there is one, is [`source`](StdError::source). The text never repeats it.
/// - The text never contains a password, a token or a value.
///
/// ```
/// use cache_runtime::{Cache, ErrorKind};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// let error = cache.try_get::<i32>("stock of 7").await.unwrap_err();
///
/// assert_eq!(error.kind(), ErrorKind::Input);
/// assert!(!error.is_transient()); // the same call would fail again
/// # }
/// ```
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    text: Cow<'static, str>,
    source: Option<Source>,
}

/// The kind of an [`Error`].
///
/// ```
/// use cache_runtime::{Cache, ErrorKind};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_runtime::Error> {
/// let cache = Cache::memory();
/// match cache.try_set("stock:7", &12, 60).await {
///     Ok(()) => println!("stored"),
///     Err(error) if error.is_transient() => println!("not stored this time: {error}"),
///     Err(error) if error.kind() == ErrorKind::Refused => println!("never stored: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is invalid. The text lists every problem by the name of its option.
    Config,
    /// A key, a pattern or a TTL is invalid.
    Input,
    /// Redis is known to be unavailable, so nothing was sent.
    Unavailable,
    /// A connection was refused or lost. It is unknown whether the command ran.
    Connection,
    /// Redis did not answer in time. It is unknown whether the command ran.
    Timeout,
    /// Redis did not answer any operation for half of `command_timeout`, so this operation gave up early. It is unknown whether
    /// the command ran.
    Stalled,
    /// Redis answered with an error.
    Command,
    /// The key holds a value of another program that is not a cache entry, such as a list.
    Foreign,
    /// The value could not be serialized.
    Encode,
    /// The value may not be stored: it is too large, or it contains a card number.
    Refused,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        Self {
            inner: Box::new(Inner {
                kind,
                text,
                source: None,
            }),
        }
    }

    /// Returns one error with all problems of a configuration, each on its own line, or `Ok` if there are none.
    pub(crate) fn refuse_any(
        what: &str,
        problems: impl IntoIterator<Item = impl fmt::Display>,
    ) -> Result<(), Self> {
        let lines: String = problems
            .into_iter()
            .map(|problem| format!("\n  {problem}"))
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        Err(Self::new(ErrorKind::Config, format!("{what}:{lines}")))
    }

    pub(crate) fn away() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "Redis is unavailable; nothing was sent",
        )
    }

    pub(crate) fn timeout(bound: Duration) -> Self {
        Self::new(
            ErrorKind::Timeout,
            format!("Redis did not answer within {bound:?}"),
        )
    }

    pub(crate) fn because(mut self, source: impl Into<Source>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Returns the kind of this error.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Returns why the operation failed, without the error's own text, which may contain a key.
    pub(crate) fn cause(&self) -> String {
        self.source().map_or_else(
            || {
                let cause = match self.kind() {
                    ErrorKind::Unavailable => "no connection is open",
                    ErrorKind::Connection => "the connection was lost",
                    ErrorKind::Timeout | ErrorKind::Stalled => "no reply arrived in time",
                    _ => "the reply had the wrong type",
                };
                cause.to_owned()
            },
            ToString::to_string,
        )
    }

    /// Returns whether the same operation may succeed later without a change.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Unavailable
                | ErrorKind::Connection
                | ErrorKind::Timeout
                | ErrorKind::Stalled
        )
    }
}

/// The error of `install` if another cache or rate limiter is already installed. The installed one does not change.
///
/// ```
/// use cache_runtime::{Cache, Error};
///
/// fn start() -> Result<(), Error> {
///     Cache::memory().install()?; // converts into an `Error`
///     Ok(())
/// }
///
/// assert!(start().is_ok());
/// let second = Cache::memory().install();
/// println!("{}", second.unwrap_err()); // and the first cache stays installed
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlreadyInstalled {
    what: &'static str,
    argument: &'static str,
}

impl AlreadyInstalled {
    pub(crate) fn cache() -> Self {
        Self {
            what: "cache",
            argument: "cache",
        }
    }

    pub(crate) fn limiter() -> Self {
        Self {
            what: "rate limiter",
            argument: "limiter",
        }
    }
}

impl fmt::Display for AlreadyInstalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, argument } = self;
        write!(
            f,
            "another {what} is already installed and stays installed; in tests, wrap the calls in `{argument}.run(async {{ … \
             }})`; in a service, install one {what} and use `{argument} = …` on functions that need another"
        )
    }
}

impl StdError for AlreadyInstalled {}

/// Lets a `main` that returns an [`Error`] use `?`.
impl From<AlreadyInstalled> for Error {
    fn from(error: AlreadyInstalled) -> Self {
        Self::new(ErrorKind::Config, error.to_string())
    }
}

/// Returns the text of an error and of its causes, for a log line. A text that is already included is not repeated.
pub(crate) fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    // Causes are the words of Redis or of another crate, which may repeat what somebody sent.
    Escaped(text).to_string()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.inner.text))
    }
}

/// Prints the text and its causes in readable form, because a `main` that returns an error prints it with `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_causes(self))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}
