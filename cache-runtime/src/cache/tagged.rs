//! Methods of [`Cache`] that store values under tags, and that evict by tag.

use std::future::Future;

use super::{Cache, Evicted};
use crate::error::Error;
use crate::site::{CacheValue, Ttl};
use crate::tag::Tag;
use crate::target::Target;

/// Methods of [`Cache`] that store values under tags. [`Cache::tagged`] returns it.
///
/// ```
/// use std::io;
///
/// use cache_runtime::Cache;
///
/// async fn titles() -> Result<Vec<String>, io::Error> {
///     Ok(vec!["a concert".to_owned()]) // or ask a database
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), io::Error> {
/// let cache = Cache::memory();
/// let organizer = cache.tagged(&["organizer:7"]);
/// organizer.get_or_load("organizer:7:titles", 60, titles()).await?;
///
/// cache.delete_tagged("organizer:7").await; // when one of their events changes
/// assert!(!cache.exists("organizer:7:titles").await);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "it does nothing until one of its methods is called"]
pub struct TaggedCache<'a> {
    cache: &'a Cache,
    tags: &'a [&'a str],
}

impl Cache {
    /// Returns a handle whose methods store values under these tags. One step evicts everything that has a tag:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = cache_runtime::Cache::memory();
    /// cache.tagged(&["events", "organizer:7"]).set("event:42", &"a concert".to_owned(), 60).await;
    ///
    /// cache.delete_tagged("organizer:7").await;
    ///
    /// assert_eq!(cache.get::<String>("event:42").await, None);
    /// # }
    /// ```
    ///
    /// Tags are used as they are, like keys. To escape values as attributes do, write them with [`tag!`](macro@crate::tag). A tag is
    /// invalid if it is empty, or contains white space or a control character.
    pub fn tagged<'a>(&'a self, tags: &'a [&'a str]) -> TaggedCache<'a> {
        TaggedCache { cache: self, tags }
    }

    /// Evicts every entry that has this tag, in one step, however many there are. Their number is not known, so
    /// [`Evicted::Applied`] has 0 keys. The entries stay in Redis until they expire or are replaced, but they are not served.
    ///
    /// If the tag is invalid, this logs a warning, evicts nothing, and returns [`Evicted::Refused`]. Use
    /// [`try_delete_tagged`](Self::try_delete_tagged) to get the error.
    pub async fn delete_tagged(&self, tag: &str) -> Evicted {
        let evicted = self.try_delete_tagged(tag).await;
        evicted.unwrap_or_else(self.refuse())
    }

    /// Returns an error if the tag is invalid.
    #[cfg(feature = "admin")]
    pub(crate) fn check_tag(&self, tag: &str) -> Result<(), Error> {
        Tag::parse(self.prefix(), tag).map(drop)
    }

    /// The same as [`delete_tagged`](Self::delete_tagged), but returns an error if the tag is invalid.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) if the tag is invalid. An unavailable Redis is not an error: the eviction is then
    /// [`Evicted::Journaled`].
    pub async fn try_delete_tagged(&self, tag: &str) -> Result<Evicted, Error> {
        let tag = Tag::parse(self.prefix(), tag)?;
        Ok(self.remove(&[Target::Tag(tag)]).await)
    }
}

impl TaggedCache<'_> {
    /// The same as [`Cache::set`], under the tags. Returns whether the value is stored. An error is logged.
    pub async fn set<T: CacheValue>(&self, key: &str, value: &T, ttl: impl Into<Ttl>) -> bool {
        self.try_set(key, value, ttl)
            .await
            .map(|()| true)
            .unwrap_or_else(self.cache.forgive("set"))
    }

    /// The same as [`Cache::try_set`], under the tags.
    ///
    /// # Errors
    ///
    /// - The errors of [`Cache::try_set`].
    /// - [`ErrorKind::Input`](crate::ErrorKind::Input) if a tag is invalid.
    /// - [`ErrorKind::Refused`](crate::ErrorKind::Refused) if a tag is being evicted with `fence`, or if Redis does not return its stamp.
    pub async fn try_set<T: CacheValue>(
        &self,
        key: &str,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<(), Error> {
        self.try_set_many(&[(key, value)], ttl).await
    }

    /// The same as [`Cache::set_many`], under the tags. Returns whether the values are stored. An error is logged.
    pub async fn set_many<T: CacheValue>(&self, pairs: &[(&str, &T)], ttl: impl Into<Ttl>) -> bool {
        self.try_set_many(pairs, ttl)
            .await
            .map(|()| true)
            .unwrap_or_else(self.cache.forgive("set"))
    }

    /// The same as [`Cache::try_set_many`], under the tags.
    ///
    /// # Errors
    ///
    /// The errors of [`try_set`](Self::try_set), for the first pair that fails.
    pub async fn try_set_many<T: CacheValue>(
        &self,
        pairs: &[(&str, &T)],
        ttl: impl Into<Ttl>,
    ) -> Result<(), Error> {
        self.cache.store(&self.parsed()?, pairs, ttl.into()).await
    }

    /// The same as [`Cache::get_or_load`], under the tags. An entry that does not have all of these tags is a miss.
    ///
    /// If a tag is invalid, this logs a warning, runs `load`, and stores nothing.
    pub async fn get_or_load<T: CacheValue, E>(
        &self,
        key: &str,
        ttl: impl Into<Ttl>,
        load: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.parsed() {
            Ok(tags) => self.cache.load_under(tags, key, ttl.into(), load).await,
            Err(error) => {
                self.cache.log_failure("get_or_load", &error);
                load.await
            }
        }
    }

    fn parsed(&self) -> Result<Vec<Tag>, Error> {
        let tags = self.tags.iter();
        tags.map(|tag| Tag::parse(self.cache.prefix(), tag))
            .collect()
    }
}
