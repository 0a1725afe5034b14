//! Evictions that wait for a transaction.

use std::fmt;
use std::future::Future;
use std::mem;
use std::sync::Arc;

use super::Evicted;
use super::pending::{self, Collected, SCOPE, Share, current};
use super::removal::Eviction;

/// Evictions that wait for a transaction.
///
/// An eviction follows the body of its function. Where that body is one step of a transaction, the eviction would come before
/// the commit: a reader could load the old row after it, and store it. Inside [`run`](Self::run) evictions are collected
/// instead, and [`commit`](Self::commit) applies them when the database has committed:
///
/// ```
/// use cache_runtime::{Cache, CacheScope, Evicted, cache_evict, cacheable};
/// # use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
/// # #[derive(Default)]
/// # struct Db { balance: AtomicI64 }
/// # struct Transaction<'a> { db: &'a Db, balance: AtomicI64 }
/// # impl Db {
/// #     async fn begin(&self) -> Result<Transaction<'_>, std::io::Error> {
/// #         Ok(Transaction { db: self, balance: self.balance.load(Relaxed).into() })
/// #     }
/// # }
/// # impl Transaction<'_> {
/// #     async fn commit(self) -> Result<(), std::io::Error> {
/// #         self.db.balance.store(self.balance.into_inner(), Relaxed);
/// #         Ok(())
/// #     }
/// #     async fn rollback(self) -> Result<(), std::io::Error> { Ok(()) }
/// # }
///
/// #[cacheable(key = "balance:<account>", ignore = [db], ttl = 60)]
/// async fn balance(db: &Db, account: u64) -> Result<i64, std::io::Error> {
///     Ok(db.balance.load(Relaxed)) // or ask a database
/// }
///
/// #[cache_evict(key = "balance:<account>", fence)]
/// async fn deposit(tx: &mut Transaction<'_>, account: u64, cents: i64) -> Result<(), std::io::Error> {
///     tx.balance.fetch_add(cents, Relaxed); // or tell a database, in its transaction
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), std::io::Error> {
/// # Cache::memory().install().expect("none is installed");
/// # let db = Db::default();
/// # balance(&db, 1).await?;
/// let scope = CacheScope::new();
/// let mut tx = db.begin().await?;
/// match scope.run(deposit(&mut tx, 1, 500)).await {
///     Ok(()) => {
///         tx.commit().await?; // after an error here it is unknown whether anything was committed
///         assert_eq!(scope.commit().await, Evicted::Applied { keys: 1 });
///     }
///     Err(_) => {
///         tx.rollback().await?;
///         scope.rollback();
///     }
/// }
/// assert_eq!(balance(&db, 1).await?, 500);
/// # Ok(())
/// # }
/// ```
///
/// # Inside
///
/// | what | does inside a scope |
/// |---|---|
/// | `#[cache_evict]`, [`Cache::delete`](crate::Cache::delete), `delete_many`, `delete_matching`, `delete_tagged`, [`Cache::clear`](crate::Cache::clear) | join the scope; the methods return [`Evicted::Deferred`]. With `before` the entries are also removed before the body |
/// | `#[cacheable]` of a key or with a tag that the scope evicts | runs its body: the transaction sees its own writes |
/// | `#[cacheable]` of any other key | reads as usual. A miss runs its body for this call alone and stores nothing, since what it loads may never be committed |
/// | `#[cache_put]` | stores nothing: it evicts its key. As elsewhere, the key is fenced from before the body, so after a rollback its old entry is gone |
/// | [`Cache::set`](crate::Cache::set) | stores nothing: it evicts its key |
///
/// A scope belongs to the task that [`run`](Self::run)s it. What that task spawns is outside of it.
///
/// With `fence`, a key or a tag is not cached from the start of the body on. So even a process that ends between the commit of the
/// database and the commit of the scope leaves no stale entry, if the database commits within `fence_ttl` of the body.
///
/// # Endings
///
/// A scope that is dropped without [`commit`](Self::commit) or [`rollback`](Self::rollback), by an early return, a panic or
/// a handler that is cancelled, does not know the outcome of the transaction. It evicts in the background: at worst an
/// entry is loaded once too often. Call [`rollback`](Self::rollback) only if nothing was committed.
///
/// A scope that is created or ends inside the `run` of another scope is a savepoint in that scope: its commit hands its
/// evictions to the outer scope, and its rollback drops only its own.
#[must_use = "a scope that is dropped evicts as if its transaction was committed"]
pub struct CacheScope {
    collected: Arc<Collected>,
    /// The scope that this one is a savepoint of, also if it ends elsewhere.
    outer: Option<Arc<Collected>>,
}

impl CacheScope {
    /// Returns an empty scope.
    pub fn new() -> Self {
        Self {
            collected: Arc::new(Collected::new()),
            outer: current(),
        }
    }

    /// Does `work` inside of the scope. May be called again, for each part of a transaction.
    pub fn run<F: Future>(&self, work: F) -> impl Future<Output = F::Output> {
        // Moved into the future as it is, it would be in there twice.
        let work = Box::pin(work);
        async move { pending::within(&self.collected, work).await }
    }

    /// Applies what was collected, because the transaction was committed. If this future is dropped early, the rest is
    /// applied in the background.
    ///
    /// Keys are removed in one round trip for each cache, whatever number of functions evicted them. Inside another scope the
    /// answer is [`Evicted::Deferred`].
    pub async fn commit(self) -> Evicted {
        let mut shares = self.collected.close();
        let outer = self.outer();
        let evictions: Vec<_> = shares
            .iter_mut()
            .map(|share| eviction(share, outer.clone()))
            .collect();
        let mut evicted = Evicted::Applied { keys: 0 };
        for eviction in evictions {
            evicted = evicted.and(eviction.apply().await);
        }
        evicted
    }

    /// Drops what was collected, because nothing was committed. Fences that were placed expire after `fence_ttl`.
    pub fn rollback(self) {
        self.collected.close();
    }

    /// The scope that this one ends in.
    fn outer(&self) -> Option<Arc<Collected>> {
        current().or_else(|| self.outer.clone())
    }
}

impl Default for CacheScope {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for CacheScope {
    fn drop(&mut self) {
        for mut share in self.collected.close() {
            drop(eviction(&mut share, self.outer()));
        }
    }
}

impl fmt::Debug for CacheScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let evictions = self.collected.len();
        f.debug_struct("CacheScope")
            .field("evictions", &evictions)
            .finish_non_exhaustive()
    }
}

impl Evicted {
    /// The combined outcome of two evictions: the one that is furthest from done.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Applied { keys }, Self::Applied { keys: more }) => {
                Self::Applied { keys: keys + more }
            }
            (Self::Refused, _) | (_, Self::Refused) => Self::Refused,
            (Self::Journaled, _) | (_, Self::Journaled) => Self::Journaled,
            (Self::Deferred, _) | (_, Self::Deferred) => Self::Deferred,
        }
    }
}

/// Owes what a share has collected, to `outer` if there is one.
fn eviction(share: &mut Share, outer: Option<Arc<Collected>>) -> Eviction<'_> {
    let targets = mem::take(&mut share.targets).into_vec();
    Eviction::begin_in(outer, &share.cache, &SCOPE, &share.metrics, targets)
}

#[cfg(test)]
mod tests;
