//! Functions as a service has them, and calls of all of them.

use cache_runtime::limit::{Identity, Policy, RateLimiter};
use cache_runtime::session::{NewSession, SessionStore};
use cache_runtime::{Cache, CacheScope, cache_evict, cache_put, cacheable};

#[derive(Debug)]
pub(crate) struct NotFound;

#[cacheable(key = "row:<id>", none_ttl = 30)]
pub(crate) async fn row(id: i64) -> Result<Option<String>, NotFound> {
    match id {
        0 => Err(NotFound),
        1..100 => Ok(Some("x".repeat(id as usize))),
        _ => Ok(None),
    }
}

#[cache_put(key = "row:<id>")]
pub(crate) async fn store(id: i64) -> String {
    "y".repeat(id as usize)
}

/// Only puts: nothing reads its entries.
#[cache_put(key = "put:<id>")]
pub(crate) async fn put(id: i64) -> i64 {
    id
}

#[cache_evict(key = "row:<id>", pattern = "rows:*")]
pub(crate) async fn update(id: i64) -> i64 {
    id
}

#[cache_evict(all_entries)]
pub(crate) async fn clear() {}

#[cacheable(key = "near:<id>", local = "1m")]
pub(crate) async fn near(id: i64) -> i64 {
    id
}

/// Never called.
#[cacheable(key = "unused:<id>")]
#[expect(dead_code, reason = "it has series without a call")]
pub(crate) async fn unused(id: i64) -> i64 {
    id
}

pub(crate) struct First;
pub(crate) struct Second;

impl First {
    #[cacheable(key = "twin:<id>")]
    pub(crate) async fn twin(&self, id: i64) -> i64 {
        id
    }
}

impl Second {
    #[cacheable(key = "twin:<id>")]
    pub(crate) async fn twin(&self, id: i64) -> i64 {
        id
    }
}

pub(crate) fn limiter(cache: &Cache) -> RateLimiter {
    let policies = [Policy::new("api").limit(1).per("1m"), Policy::payment()];
    RateLimiter::new(cache, policies).expect("valid policies")
}

/// Calls everything once or more, so that most counters move.
pub(crate) async fn work(cache: &Cache, limiter: &RateLimiter) {
    cache
        .run(async {
            for id in [1, 1, 2, 50, 100, 100] {
                row(id).await.expect("it is found");
            }
            row(0).await.expect_err("it is not found");
            store(2).await;
            put(1).await;
            update(1).await;
            let scope = CacheScope::new();
            scope.run(update(3)).await;
            scope.commit().await;
            First.twin(1).await;
            Second.twin(1).await;
            // The process keeps what the second call reads.
            for _ in 0..4 {
                near(1).await;
            }
            clear().await;
        })
        .await;
    cache.set("by:hand", &1, 60_u64).await;
    cache.get::<i32>("by:hand").await;
    cache.delete("by:hand").await;
    let limit = limiter.limit(&["api"]).expect("a policy");
    for _ in 0..3 {
        let _ = limit.check(&Identity::user("u")).await;
    }
    let sessions = SessionStore::<()>::new(cache).expect("valid settings");
    let session = sessions.create(NewSession::new("u", "ada")).await;
    session.expect("it is stored");
}
