//! What can go wrong, for callers who want to know. Annotated functions never see it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::escape::Escaped;

type Source = Box<dyn StdError + Send + Sync>;

/// A failure of the cache itself.
///
/// Its text is one clause about our own operation; the cause, where there is one, is [`source`](StdError::source) and is
/// never repeated in the text. No password, token or value is ever in it.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    text: Cow<'static, str>,
    source: Option<Source>,
}

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is wrong; the text lists every problem by its name.
    Config,
    /// A key, a pattern or a time to live that cannot be used.
    Input,
    /// Redis is known to be away: nothing was sent.
    Unavailable,
    /// A connection was refused or lost. Whether the command ran is not known.
    Connection,
    /// No answer in time. Whether the command ran is not known.
    Timeout,
    /// No answer to anybody for half of that time, so this operation gave up early. Whether the command ran is not known.
    Stalled,
    /// Redis answered with an error.
    Command,
    /// Another program keeps something at this key that is not an entry of ours, such as a list.
    Foreign,
    /// The value could not be turned into bytes.
    Encode,
    /// The value may not be stored: too large, or it contains a card number.
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

    /// All that is wrong with a configuration at once, each on a line of its own; nothing if nothing is.
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
        Self::new(ErrorKind::Unavailable, "Redis is away; nothing was sent")
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

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Why the operation failed, without the error's own text, which may name a key.
    pub(crate) fn cause(&self) -> String {
        self.source().map_or_else(
            || {
                let cause = match self.kind() {
                    ErrorKind::Unavailable => "no connection is open",
                    ErrorKind::Connection => "the connection was lost",
                    ErrorKind::Timeout | ErrorKind::Stalled => "there was no answer in time",
                    _ => "the answer was of the wrong kind",
                };
                cause.to_owned()
            },
            ToString::to_string,
        )
    }

    /// Whether the same operation may succeed later without a change.
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

/// Another cache or rate limiter is installed already, and stays.
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
            "another {what} is installed already and stays; in tests wrap the calls in `{argument}.run(async {{ … }})`, and in \
             a service install one {what} and give functions that need another one `{argument} = …`"
        )
    }
}

impl StdError for AlreadyInstalled {}

/// So that a `main` that returns an [`Error`] can use `?`.
impl From<AlreadyInstalled> for Error {
    fn from(error: AlreadyInstalled) -> Self {
        Self::new(ErrorKind::Config, error.to_string())
    }
}

/// An error's text with those of its causes, for a log line. What was said already is not said again.
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

/// As a `main` that returns one prints it: the text as it is meant to be read, and what caused it.
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
