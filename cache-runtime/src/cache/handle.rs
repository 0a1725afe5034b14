//! The cache by hand: Redis's verbs over the same entries that annotated functions use.

use std::future::Future;
use std::iter;
use std::pin::pin;
use std::time::Duration;

use tracing::{debug, warn};

use super::call::{CallContext, ValueType};
use super::function::{Bodied, Storing, Values};
use super::lookup::{Answer, Lookup, Miss};
use super::read::Refresh;
use super::removal::Eviction;
use super::{Cache, Evicted, Used, boxed, log};
use crate::entry::{self, Layers};
use crate::error::{Error, ErrorKind};
use crate::key::{Key, Pattern};
use crate::metrics::Event;
use crate::plan::ReadPlan;
use crate::site::{CacheValue, Loaded, NoRules, Site, Ttl};
use crate::store::Replaced;
use crate::store::guard::{On, Op};
use crate::tag::Tag;
use crate::target::Target;

/// Stands for all calls of the handle in the statistics.
pub(super) static HANDLE: Site = Site::new("Cache", "").reads();

impl Cache {
    /// Returns the value at `key`. It never loads. An entry that was stored from another type than `T` is found if a `T` is stored as
    /// the same JSON.
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.set("stock:7", &12, 60).await;
    ///
    /// assert_eq!(cache.get("stock:7").await, Some(12));
    /// assert_eq!(cache.get::<i32>("stock:8").await, None);
    /// # }
    /// ```
    pub async fn get<T: CacheValue>(&self, key: &str) -> Option<T> {
        self.try_get(key).await.unwrap_or_else(self.forgive("get"))
    }

    /// The same as [`get`](Self::get), but returns an error if Redis does not answer.
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// match cache.try_get::<i32>("stock:7").await {
    ///     Ok(Some(stock)) => println!("{stock} left"),
    ///     Ok(None) => println!("not cached"),
    ///     Err(error) => println!("Redis did not answer: {error}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The key is invalid, or Redis is unavailable or too slow.
    pub async fn try_get<T: CacheValue>(&self, key: &str) -> Result<Option<T>, Error> {
        let plan = self.plan(key)?;
        let call = CallContext::new(&self.inner, &plan, untyped::<T>());
        let answer = boxed(|| call.lookup()).await;
        let mut values = Values(Vec::new());
        match call.judge(answer, &mut values) {
            Lookup::Hit => Ok(values.0.pop().flatten()),
            Lookup::Miss(Miss {
                error: Some(error), ..
            }) if error.kind() != ErrorKind::Foreign => Err(error),
            Lookup::Stale(_) | Lookup::Miss(_) => Ok(None),
        }
    }

    /// Stores `value` for `ttl` (seconds, or a [`Duration`]). Returns whether it is stored. If an outage, a limit or a
    /// disabled key kept it from being stored, the old entry is removed, because the caller no longer wants it. The type
    /// must be owned, as for [`get`](Self::get): a `String`, not a `str`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// assert!(cache.set("stock:7", &12, 60).await);
    /// assert!(cache.set("stock:8", &3, Duration::from_millis(1500)).await);
    /// # }
    /// ```
    pub async fn set<T: CacheValue>(&self, key: &str, value: &T, ttl: impl Into<Ttl>) -> bool {
        self.try_set(key, value, ttl)
            .await
            .map(|()| true)
            .unwrap_or_else(self.forgive("set"))
    }

    /// The same as [`set`](Self::set), but returns an error if the value is not stored.
    ///
    /// ```
    /// use cache_runtime::{Cache, ErrorKind};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// let refused = cache.try_set("stock of 7", &12, 60).await;
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::Input); // white space in the key
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The key is invalid, the value may not be stored, or Redis is unavailable or too slow.
    pub async fn try_set<T: CacheValue>(
        &self,
        key: &str,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<(), Error> {
        self.store(&[], &[(key, value)], ttl.into()).await
    }

    /// Stores all `pairs` for `ttl`, in one batch. Returns whether they are stored: all of them, or none.
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.set_many(&[("stock:7", &12), ("stock:8", &0)], 60).await;
    ///
    /// let stock = cache.get_many(&["stock:7", "stock:8", "stock:9"]).await;
    /// assert_eq!(stock, [Some(12), Some(0), None]);
    /// # }
    /// ```
    pub async fn set_many<T: CacheValue>(&self, pairs: &[(&str, &T)], ttl: impl Into<Ttl>) -> bool {
        self.try_set_many(pairs, ttl)
            .await
            .map(|()| true)
            .unwrap_or_else(self.forgive("set"))
    }

    /// The same as [`set_many`](Self::set_many), but returns an error if the values are not stored.
    ///
    /// # Errors
    ///
    /// The errors of [`try_set`](Self::try_set), for the first pair that fails.
    pub async fn try_set_many<T: CacheValue>(
        &self,
        pairs: &[(&str, &T)],
        ttl: impl Into<Ttl>,
    ) -> Result<(), Error> {
        self.store(&[], pairs, ttl.into()).await
    }

    /// Returns the values at `keys`, in their order, in one batch. See [`set_many`](Self::set_many) for an example.
    pub async fn get_many<T: CacheValue>(&self, keys: &[&str]) -> Vec<Option<T>> {
        let found = self.try_get_many(keys).await;
        found.unwrap_or_else(|error| {
            self.log_failure("get", &error);
            keys.iter().map(|_| None).collect()
        })
    }

    /// The same as [`get_many`](Self::get_many), but returns an error if Redis does not answer.
    ///
    /// # Errors
    ///
    /// The same as [`try_get`](Self::try_get).
    pub async fn try_get_many<T: CacheValue>(
        &self,
        keys: &[&str],
    ) -> Result<Vec<Option<T>>, Error> {
        let plans = keys
            .iter()
            .map(|key| self.plan(key))
            .collect::<Result<Vec<_>, _>>()?;
        let keys: Vec<_> = plans.iter().map(|plan| plan.key.clone()).collect();
        let Some(first) = keys.first() else {
            return Ok(Vec::new());
        };
        let metrics = self.inner.metrics.site(&HANDLE.metrics);
        let op = Op::new("get many", &HANDLE, &metrics, On::Key(first));
        let found = self.inner.run(op, |store| store.get_many(&keys)).await?;
        let mut values = Values(Vec::new());
        let calls: Vec<_> = plans
            .iter()
            .map(|plan| CallContext::new(&self.inner, plan, untyped::<T>()))
            .collect();
        let answers = self.check_many(&calls, found).await?;
        let lookups: Vec<_> = iter::zip(&calls, answers)
            .map(|(call, answer)| {
                let answer = call.closed().map_or(answer, Answer::Unasked);
                call.judge(answer, &mut values)
            })
            .collect();
        let mut values = values.0.into_iter();
        let served = lookups.into_iter().map(|lookup| match lookup {
            Lookup::Hit => values.next().flatten(),
            // It was decoded, too.
            Lookup::Stale(_) => values.next().and(None),
            Lookup::Miss(_) => None,
        });
        Ok(served.collect())
    }

    /// Removes the entry at `key`. If the key is invalid, this returns [`Evicted::Refused`].
    ///
    /// ```
    /// use cache_runtime::{Cache, Evicted};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.set("stock:7", &12, 60).await;
    ///
    /// assert_eq!(cache.delete("stock:7").await, Evicted::Applied { keys: 1 });
    /// assert_eq!(cache.get::<i32>("stock:7").await, None);
    /// # }
    /// ```
    pub async fn delete(&self, key: &str) -> Evicted {
        self.delete_many(&[key]).await
    }

    /// The same as [`delete`](Self::delete), but returns an error if the key is invalid.
    ///
    /// # Errors
    ///
    /// The key is invalid. An unavailable Redis is not an error: the eviction is then [`Evicted::Journaled`].
    pub async fn try_delete(&self, key: &str) -> Result<Evicted, Error> {
        self.try_delete_many(&[key]).await
    }

    /// Removes the entries at `keys`, in one batch. If a key is invalid, this removes nothing and returns [`Evicted::Refused`].
    ///
    /// ```
    /// use cache_runtime::{Cache, Evicted};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.set_many(&[("stock:7", &12), ("stock:8", &0)], 60).await;
    ///
    /// assert_eq!(cache.delete_many(&["stock:7", "stock:8"]).await, Evicted::Applied { keys: 2 });
    /// # }
    /// ```
    pub async fn delete_many(&self, keys: &[&str]) -> Evicted {
        let evicted = self.try_delete_many(keys).await;
        evicted.unwrap_or_else(self.refuse())
    }

    /// The same as [`delete_many`](Self::delete_many), but returns an error if a key is invalid.
    ///
    /// # Errors
    ///
    /// The same as [`try_delete`](Self::try_delete). Nothing is removed then.
    pub async fn try_delete_many(&self, keys: &[&str]) -> Result<Evicted, Error> {
        let keys: Result<Vec<_>, _> = keys
            .iter()
            .map(|key| Key::parse(self.prefix(), key).map(Target::Key))
            .collect();
        Ok(self.remove(&keys?).await)
    }

    /// Removes every entry that matches: `*` is any run of characters, `?` is one. If the pattern is invalid, this returns
    /// [`Evicted::Refused`].
    ///
    /// [`key!`](macro@crate::key) escapes the values in a pattern, so that none of their characters is a wildcard:
    /// `key!("orders:<name>:") + "*"`, with the `:` after the last value.
    ///
    /// ```
    /// use cache_runtime::{Cache, key};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.set("orders:ada:1", &10, 60).await;
    /// cache.set("orders:eve:1", &20, 60).await;
    ///
    /// let name = "ada"; // a client chose it
    /// cache.delete_matching(&(key!("orders:<name>:") + "*")).await;
    ///
    /// assert!(!cache.exists("orders:ada:1").await);
    /// assert!(cache.exists("orders:eve:1").await);
    /// # }
    /// ```
    pub async fn delete_matching(&self, pattern: &str) -> Evicted {
        let evicted = self.try_delete_matching(pattern).await;
        evicted.unwrap_or_else(self.refuse())
    }

    /// The same as [`delete_matching`](Self::delete_matching), but returns an error if the pattern is invalid.
    ///
    /// # Errors
    ///
    /// The pattern is invalid. Nothing is removed then.
    pub async fn try_delete_matching(&self, pattern: &str) -> Result<Evicted, Error> {
        let pattern = Pattern::parse(self.prefix(), pattern)?;
        Ok(self.remove(&[Target::Pattern(pattern)]).await)
    }

    /// Removes all entries under the prefix of this cache. Sessions and limits are not entries and stay. There is no `try_clear`: no
    /// argument can be invalid, and an eviction that Redis does not acknowledge is [`Evicted::Journaled`].
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.set("stock:7", &12, 60).await;
    /// cache.clear().await;
    /// assert!(!cache.exists("stock:7").await);
    /// # }
    /// ```
    pub async fn clear(&self) -> Evicted {
        self.remove(&[Target::All]).await
    }

    /// Returns whether [`get`](Self::get) would find a fresh value, or a remembered `None`, at `key`. It reads only the
    /// header of the entry, so it does not notice that a value is damaged or of another type.
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.set("stock:7", &12, 60).await;
    ///
    /// assert!(cache.exists("stock:7").await);
    /// assert!(!cache.exists("stock:8").await);
    /// # }
    /// ```
    pub async fn exists(&self, key: &str) -> bool {
        self.try_exists(key)
            .await
            .unwrap_or_else(self.forgive("exists"))
    }

    /// The same as [`exists`](Self::exists), but returns an error if Redis does not answer.
    ///
    /// # Errors
    ///
    /// The same as [`try_get`](Self::try_get).
    pub async fn try_exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.fresh_for("exists", &self.plan(key)?).await?.is_some())
    }

    /// Returns how long the entry at `key` stays fresh, or [`None`] if [`exists`](Self::exists) returns `false`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.set("stock:7", &12, 60).await;
    ///
    /// let left = cache.ttl("stock:7").await;
    /// assert!(left > Some(Duration::from_secs(50)) && left <= Some(Duration::from_secs(60)));
    /// # }
    /// ```
    pub async fn ttl(&self, key: &str) -> Option<Duration> {
        self.try_ttl(key).await.unwrap_or_else(self.forgive("ttl"))
    }

    /// The same as [`ttl`](Self::ttl), but returns an error if Redis does not answer.
    ///
    /// # Errors
    ///
    /// The same as [`try_get`](Self::try_get).
    pub async fn try_ttl(&self, key: &str) -> Result<Option<Duration>, Error> {
        self.fresh_for("ttl", &self.plan(key)?).await
    }

    async fn fresh_for(
        &self,
        name: &'static str,
        plan: &ReadPlan,
    ) -> Result<Option<Duration>, Error> {
        let call = CallContext::new(&self.inner, plan, untyped::<()>());
        if call.is_hidden() {
            return Ok(None);
        }
        let keys = std::slice::from_ref(call.key);
        let heads = call.ask(name, |store| store.peek(keys, entry::HEADER));
        let head = heads.await?.into_iter().next().flatten();
        if head.as_ref().is_some_and(|head| entry::has_tags(head)) {
            let entry = call.ask(name, |store| store.get(call.key, 0)).await?;
            let Some(entry) = entry else { return Ok(None) };
            return Ok(match call.is_current(&entry).await? {
                true => entry::fresh_for(&entry, call.key, call.now()),
                false => None,
            });
        }
        Ok(head.and_then(|head| entry::fresh_for(&head, call.key, call.now())))
    }

    /// Gives the entry at `key` a new TTL, counted from now. Its grace does not change. Returns whether the entry
    /// [`exists`](Self::exists).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.set("stock:7", &12, 60).await;
    ///
    /// assert!(cache.expire("stock:7", 3600).await);
    /// assert!(cache.ttl("stock:7").await > Some(Duration::from_secs(3500)));
    /// # }
    /// ```
    pub async fn expire(&self, key: &str, ttl: impl Into<Ttl>) -> bool {
        self.try_expire(key, ttl)
            .await
            .unwrap_or_else(self.forgive("expire"))
    }

    /// The same as [`expire`](Self::expire), but returns an error if Redis does not answer.
    ///
    /// # Errors
    ///
    /// The same as [`try_get`](Self::try_get).
    pub async fn try_expire(&self, key: &str, ttl: impl Into<Ttl>) -> Result<bool, Error> {
        let plan = self.plan(key)?;
        let ttl = long_enough(ttl.into())?;
        let call = CallContext::new(&self.inner, &plan, untyped::<()>());
        if call.is_hidden() {
            return Ok(false);
        }
        // Read before the store is asked, so the grace is not computed too long.
        let now = call.now();
        let measured = call.ask("expire", |store| store.measure(call.key));
        let Some((size, left)) = measured.await? else {
            return Ok(false);
        };
        let found = call.ask("expire", |store| store.get(call.key, size));
        let Some(bytes) = found.await? else {
            return Ok(false);
        };
        let lives = ttl.saturating_add(left);
        if !call.is_current(&bytes).await? || !call.keep_tags(&bytes, lives).await? {
            return Ok(false);
        }
        let (Some(fresh), Some((seen, entry))) = (
            entry::fresh_for(&bytes, call.key, now),
            entry::with_ttl(&bytes, call.key, now, ttl),
        ) else {
            return Ok(false);
        };
        // The store keeps an entry for its TTL and its grace, counted from its arrival, which is up to one operation later
        // than its date. So the grace is known to within the time of an operation, and the shorter value is used. An entry whose
        // expiry was removed has no grace.
        let grace = match left {
            Duration::MAX => Duration::ZERO,
            left => left.saturating_sub(fresh.saturating_add(self.inner.config.operation_max())),
        };
        // If the entry was changed in between, it has a time to live of its own.
        let replaced = call.ask("expire", |store| {
            store.replace(call.key, seen, entry.as_bytes(), ttl + grace)
        });
        let replaced = replaced.await;
        // An operation that failed may have been applied. A value in this process keeps the old time.
        self.inner.local.doubt(&[Target::Key(call.key.clone())]);
        Ok(replaced? == Replaced::Done)
    }

    /// Returns the value at `key`, or what `load` returns. It takes the same path as `#[cacheable]`: one load among all
    /// callers, stored under a lease. Only errors of `load` are returned.
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// async fn count_visitors() -> Result<u64, std::io::Error> {
    ///     Ok(3) // or ask a database
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), std::io::Error> {
    /// let cache = Cache::memory();
    /// assert_eq!(cache.get_or_load("visitors", 60, count_visitors()).await?, 3);
    /// assert!(cache.exists("visitors").await);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_load<T: CacheValue, E>(
        &self,
        key: &str,
        ttl: impl Into<Ttl>,
        load: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.load_under(Vec::new(), key, ttl.into(), load).await
    }

    /// Disables keys: functions whose key matches run uncached until [`enable`](Self::enable). Evictions continue.
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cache_runtime::Error> {
    /// let cache = Cache::memory();
    /// cache.set("stock:7", &12, 60).await;
    ///
    /// cache.disable("stock:*")?;
    /// assert_eq!(cache.get::<i32>("stock:7").await, None);
    ///
    /// cache.enable("stock:*")?;
    /// assert_eq!(cache.get("stock:7").await, Some(12));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The pattern is invalid.
    pub fn disable(&self, pattern: &str) -> Result<(), Error> {
        self.inner
            .disabled
            .set_off(Pattern::parse(self.prefix(), pattern)?);
        Ok(())
    }

    /// Reverts [`disable`](Self::disable) of the same pattern. Returns whether it was disabled.
    ///
    /// # Errors
    ///
    /// The pattern is invalid.
    pub fn enable(&self, pattern: &str) -> Result<bool, Error> {
        Ok(self
            .inner
            .disabled
            .set_on(&Pattern::parse(self.prefix(), pattern)?))
    }

    /// Stores values under these tags.
    pub(super) async fn store<T: CacheValue>(
        &self,
        tags: &[Tag],
        pairs: &[(&str, &T)],
        ttl: Ttl,
    ) -> Result<(), Error> {
        let ttl = long_enough(ttl)?;
        let plan = |key| {
            Ok::<_, Error>(ReadPlan {
                ttl: Some(ttl.into()),
                tags: tags.to_vec(),
                ..self.plan(key)?
            })
        };
        let plans = pairs
            .iter()
            .map(|(key, _)| plan(key))
            .collect::<Result<Vec<_>, _>>()?;
        let owed = plans
            .iter()
            .map(|plan| Target::Key(plan.key.clone()))
            .collect();
        let metrics = self.inner.metrics.site(&HANDLE.metrics);
        // For whatever reason a value is not stored, the caller no longer wants the old value.
        let eviction = Eviction::begin(&self.inner, &HANDLE, &metrics, owed);

        let captured = match plans.first() {
            Some(plan) if !tags.is_empty() => {
                let call = CallContext::new(&self.inner, plan, untyped::<T>());
                call.check_unscoped()?;
                call.capture().await.into_tags()?
            }
            _ => Vec::new(),
        };
        let mut entries = Vec::with_capacity(pairs.len());
        for (plan, (_, value)) in plans.iter().zip(pairs) {
            let call = CallContext::new(&self.inner, plan, untyped::<T>());
            call.check_switched_on()?;
            call.check_unscoped()?;
            entries.push((
                call.key.clone(),
                call.encode_value(*value, ttl, captured.clone())?
                    .into_bytes(),
            ));
        }
        let Some((first, _)) = entries.first() else {
            return Ok(());
        };
        // A server that does not know of it would serve the values before it.
        let keys = entries.iter().map(|(key, _)| Target::Key(key.clone()));
        self.inner.note(keys);
        let op = Op::new("set", &HANDLE, &metrics, On::Key(first));
        self.inner
            .run(op, |store| store.set_many(&entries, ttl))
            .await?;
        metrics.add(Event::Set, entries.len() as u64);
        for (key, _) in &entries {
            log::set(&self.inner, &HANDLE, key, ttl, op.began.elapsed());
        }
        self.inner.invalidate_here(&eviction.disarm());
        Ok(())
    }

    /// Returns the value at `key`, or what `load` returns, which is stored under these tags.
    pub(super) async fn load_under<T: CacheValue, E>(
        &self,
        tags: Vec<Tag>,
        key: &str,
        ttl: Ttl,
        load: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.plan(key) {
            Ok(plan) => {
                let plan = ReadPlan {
                    ttl: Some(ttl),
                    tags,
                    ..plan
                };
                let call = Some((Used::named(self), plan));
                let steps = super::read(call, untyped::<T>(), Refresh::Caller);
                let call = &mut Storing::<Loaded<T, E>, _, _>::new(steps, NoRules);
                let body = pin!(load);
                Bodied { call, body }.await
            }
            Err(error) => {
                self.log_failure("get_or_load", &error);
                load.await
            }
        }
    }

    pub(super) async fn remove(&self, targets: &[Target]) -> Evicted {
        let metrics = self.inner.metrics.site(&HANDLE.metrics);
        metrics.count(Event::Delete);
        // A caller that is cancelled has already written, so its targets are removed all the same.
        Eviction::begin(&self.inner, &HANDLE, &metrics, targets.to_vec())
            .apply()
            .await
    }

    fn plan(&self, key: &str) -> Result<ReadPlan, Error> {
        Ok(ReadPlan::new(&HANDLE, Key::parse(self.prefix(), key)?))
    }

    /// A failure of the cache is an event, not an error: the call returns as if there were no entry.
    pub(super) fn forgive<T: Default>(
        &self,
        operation: &'static str,
    ) -> impl FnOnce(Error) -> T + '_ {
        move |error| {
            self.log_failure(operation, &error);
            T::default()
        }
    }

    /// The same for evictions. Only invalid input makes them fail.
    pub(super) fn refuse(&self) -> impl FnOnce(Error) -> Evicted + '_ {
        move |error| {
            self.log_failure("delete", &error);
            Evicted::Refused
        }
    }

    pub(super) fn log_failure(&self, operation: &'static str, error: &Error) {
        // Its text names the key.
        let text = (!self.inner.config.mask_keys).then(|| error.to_string());
        let kind = error.kind();
        if kind == ErrorKind::Input {
            if let Some(suppressed) = self.inner.refused.admit() {
                warn!(
                    operation,
                    ?kind,
                    error = text,
                    suppressed,
                    "a cache operation was refused"
                );
            }
        } else {
            debug!(operation, ?kind, error = text, "a cache operation failed");
        }
    }
}

/// A type without layers: its value is stored as it is.
fn untyped<T>() -> ValueType {
    ValueType::of::<T>(Layers::Nothing)
}

/// Refuses a TTL that is too short.
fn long_enough(ttl: Ttl) -> Result<Duration, Error> {
    let ttl = ttl.as_duration();
    if ttl < entry::MIN_TTL {
        let text = format!("invalid TTL of {ttl:?}; use at least 1 ms");
        return Err(Error::new(ErrorKind::Input, text));
    }
    Ok(ttl)
}
