//! The keys that exist: listed, or as a stream.

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use super::Cache;
use super::handle::HANDLE;
use crate::entry;
use crate::error::{Error, ErrorKind};
use crate::key::Pattern;
use crate::store::guard::{On, Op};
use crate::store::{Cursor, Scanned};

/// The keys that match a pattern, page by page. [`Cache::scan_keys`] creates it.
///
/// It is a [`Stream`] of the crate `futures`. [`next`](Self::next) works without that crate. See
/// [`Cache::scan_keys`] for an example.
#[must_use = "a stream does nothing unless it is polled"]
pub struct KeyStream {
    keys: BoxStream<'static, Result<String, Error>>,
}

/// Where a scan of the keyspace is.
struct Position {
    cursor: Cursor,
    /// The server that the cursor belongs to. Another server would skip keys.
    term: u64,
}

impl Cache {
    /// Returns the keys of entries that match, without the prefix and in no order. It scans the whole keyspace. For more keys than you
    /// want in memory, use [`scan_keys`](Self::scan_keys).
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.set("stock:7", &12, 60).await;
    /// cache.set("visitors", &3, 60).await;
    ///
    /// assert_eq!(cache.keys("stock:*").await, ["stock:7"]);
    /// # }
    /// ```
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        self.try_keys(pattern)
            .await
            .unwrap_or_else(self.forgive("keys"))
    }

    /// The same as [`keys`](Self::keys), but returns an error if Redis does not answer.
    ///
    /// # Errors
    ///
    /// The pattern is invalid, or Redis is unavailable, is too slow, refuses the scan or was restarted during it.
    pub async fn try_keys(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let keys: HashSet<String> = self.scan_keys(pattern).try_collect().await?;
        Ok(keys.into_iter().collect())
    }

    /// Returns the same keys as [`keys`](Self::keys), as a stream that holds one page of about 250 keys. In memory mode the page holds all
    /// keys.
    ///
    /// - The next page is requested when the last key of the previous page was taken, so Redis works no faster than the caller.
    ///   Each page has twice `command_timeout_max`.
    /// - A key that is stored or removed during the scan may be missing or present. A key may appear twice.
    /// - The first error is the last item. The errors are those of [`try_keys`](Self::try_keys).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cache_runtime::Error> {
    /// # let cache = cache_runtime::Cache::memory();
    /// cache.set("event:1", &"A quartet".to_owned(), 60).await;
    ///
    /// let mut keys = cache.scan_keys("event:*");
    /// while let Some(key) = keys.next().await {
    ///     println!("{}", key?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn scan_keys(&self, pattern: &str) -> KeyStream {
        let pattern = match Pattern::parse(self.prefix(), pattern) {
            Ok(pattern) => [pattern],
            Err(error) => {
                let keys = stream::once(async { Err(error) }).boxed();
                return KeyStream { keys };
            }
        };
        let start = Position {
            cursor: Cursor::default(),
            term: self.inner.guard.store().term(),
        };
        let state = (self.clone(), pattern, Some(start));
        let pages = stream::try_unfold(state, |(cache, pattern, position)| async {
            let Some(position) = position else {
                return Ok::<_, Error>(None);
            };
            let (keys, next) = cache.page(&pattern, position).await?;
            Ok(Some((keys, (cache, pattern, next))))
        });
        let keys = pages.map_ok(|keys| stream::iter(keys).map(Ok));
        KeyStream {
            keys: keys.try_flatten().boxed(),
        }
    }

    async fn page(
        &self,
        pattern: &[Pattern; 1],
        Position { cursor, term }: Position,
    ) -> Result<(Vec<String>, Option<Position>), Error> {
        let metrics = self.inner.metrics.site(&HANDLE.metrics);
        let op = || Op::new("keys", &HANDLE, &metrics, On::Pattern(&pattern[0]));
        let Scanned { names, next, .. } = self
            .inner
            .run(op(), |store| store.scan(pattern, cursor))
            .await?;
        let heads = self
            .inner
            .run(op(), |store| store.peek(&names, entry::HEADER))
            .await?;
        if self.inner.guard.store().term() != term {
            let text = "Redis was restarted or replaced during the scan of its keys; start again";
            return Err(Error::new(ErrorKind::Connection, text));
        }
        let mut keys = Vec::new();
        for (key, head) in names.iter().zip(heads) {
            let name = key.as_str().strip_prefix(self.prefix());
            if let (Some(name), Some(head)) = (name, head)
                && entry::is_value(&head, key)
                && !self.inner.is_hidden(key)
            {
                keys.push(name.to_owned());
            }
        }
        let next = next.map(|cursor| Position { cursor, term });
        Ok((keys, next))
    }
}

impl KeyStream {
    /// Returns the next key, or [`None`] at the end.
    pub async fn next(&mut self) -> Option<Result<String, Error>> {
        self.keys.next().await
    }
}

impl Stream for KeyStream {
    type Item = Result<String, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().keys.poll_next_unpin(cx)
    }
}

impl fmt::Debug for KeyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStream").finish_non_exhaustive()
    }
}
