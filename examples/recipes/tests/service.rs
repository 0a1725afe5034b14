//! Tests of a service with cached functions: each test has its own cache, real servers, and its own time.
//!
//! With `features = ["testing"]` on a dev-dependency, `cache_runtime::testing` has what they use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_runtime::catalog::Catalog;
use cache_runtime::limit::{Limited, Policy, RateLimiter};
use cache_runtime::testing::{Clock, FaultProxy, RedisServer};
use cache_runtime::{
    Cache, Config, Mode, assert_catalog_clean, cache_evict, cacheable, in_current_run, rate_limit,
};

/// The service: usually in `src/`.
#[derive(Default)]
struct Shop {
    price: AtomicU32,
    queries: AtomicU32,
}

impl Shop {
    #[cacheable(key = "price:<product>", ttl = "10m", grace = "1h")]
    async fn price(&self, product: u32) -> Result<u32, Refused> {
        let query = self.queries.fetch_add(1, Ordering::Relaxed);
        println!("query {query} for product {product}");
        Ok(self.price.load(Ordering::Relaxed))
    }

    #[cache_evict(key = "price:<product>")]
    #[rate_limit(policy = "changes", key = "<product>")]
    async fn set_price(&self, product: u32, cents: u32) -> Result<(), Refused> {
        println!("product {product} costs {cents}");
        self.price.store(cents, Ordering::Relaxed);
        Ok(())
    }

    fn queries(&self) -> u32 {
        self.queries.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Refused(String);

impl From<Limited> for Refused {
    fn from(limited: Limited) -> Self {
        Self(limited.to_string())
    }
}

/// In memory: the fastest way, and enough for most tests.
#[tokio::test]
async fn a_price_is_loaded_once() {
    let shop = Shop::default();
    let cache = Cache::memory();

    let prices = cache
        .run(async { (shop.price(1).await, shop.price(1).await) })
        .await;

    assert_eq!((prices.0.unwrap(), prices.1.unwrap()), (0, 0));
    assert_eq!(shop.queries(), 1);
}

/// In a real Redis, which stops when it is dropped.
#[tokio::test]
async fn a_change_reaches_another_instance() {
    let redis = RedisServer::start().unwrap();
    let (one, other) = (
        Cache::connect(redis.config()).await.unwrap(),
        Cache::connect(redis.config()).await.unwrap(),
    );
    let shop = Shop::default();
    let limiter = RateLimiter::new(&one, [Policy::new("changes").limit(2).per("1m")]).unwrap();
    other.run(shop.price(1)).await.unwrap();

    one.run(limiter.run(shop.set_price(1, 250))).await.unwrap();

    assert_eq!(other.run(shop.price(1)).await.unwrap(), 250);
}

/// The time of a cache is a clock that the test advances.
#[tokio::test]
async fn a_price_expires_after_ten_minutes() {
    let clock = Clock::stopped();
    let cache = Cache::connect(Config::default().clock(clock.clone()))
        .await
        .unwrap();
    let shop = Shop::default();

    cache.run(shop.price(1)).await.unwrap();
    clock.advance(Duration::from_secs(9 * 60));
    cache.run(shop.price(1)).await.unwrap();
    assert_eq!(shop.queries(), 1);

    clock.advance(Duration::from_secs(2 * 60));
    cache.run(shop.price(1)).await.unwrap();
    assert_eq!(shop.queries(), 2);
}

/// The network fails on command.
#[tokio::test]
async fn the_shop_works_while_redis_is_unreachable() {
    let redis = RedisServer::start().unwrap();
    let network = FaultProxy::start(&redis).unwrap();
    let cache = Cache::connect(network.config()).await.unwrap();
    let shop = Shop::default();
    cache.run(shop.price(1)).await.unwrap();

    network.cut();
    shop.price.store(300, Ordering::Relaxed);
    let during = cache.run(shop.price(2)).await;

    assert_eq!(during.unwrap(), 300);
    assert_eq!(cache.stats().mode, Mode::Fallback);
}

/// A limit has its own state in each test, too.
#[tokio::test]
async fn a_third_change_within_a_minute_is_refused() {
    let clock = Clock::stopped();
    let cache = Cache::connect(Config::default().clock(clock.clone()))
        .await
        .unwrap();
    let limiter = RateLimiter::new(&cache, [Policy::new("changes").limit(2).per("1m")]).unwrap();
    let shop = Shop::default();
    let change = async || cache.run(limiter.run(shop.set_price(1, 500))).await;

    assert!(change().await.is_ok() && change().await.is_ok());
    let Refused(reason) = change().await.unwrap_err();
    assert!(reason.contains("`changes` exceeded"), "{reason}");

    clock.advance(Duration::from_secs(61));
    assert!(change().await.is_ok());
}

/// A task that the service spawns needs `in_current_run` to use the cache of the test.
#[tokio::test]
async fn a_spawned_task_uses_the_cache_of_the_test() {
    let cache = Cache::memory();
    let shop = Arc::new(Shop::default());

    cache
        .run(async {
            let work = {
                let shop = Arc::clone(&shop);
                async move { shop.price(1).await }
            };
            tokio::spawn(in_current_run(work)).await.unwrap()
        })
        .await
        .unwrap();

    assert!(cache.exists("price:1").await);
}

/// Keys, tags and evictions of the whole program, without a mistake such as an eviction that matches no key.
#[test]
fn the_catalog_is_clean() {
    assert_catalog_clean!(Catalog::new(&Config::default()));
}
