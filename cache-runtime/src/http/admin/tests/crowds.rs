//! Many requests at the same time.

use std::task::Waker;

use futures_util::future::join_all;

use super::*;

/// A cache whose Redis does not answer until the proxy passes again.
async fn stalled() -> (RedisServer, FaultProxy, Cache) {
    let server = RedisServer::start().expect("redis-server starts");
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let config = crate::Config {
        command_timeout: Duration::from_secs(20),
        command_timeout_max: Duration::from_secs(20),
        ..proxy.config()
    };
    let cache = Cache::connect(config).await.expect("it connects");
    proxy.stall();
    (server, proxy, cache)
}

/// Starts a request. It has not ended after its first step, because Redis does not answer.
fn begun<'a>(
    service: &'a AdminService,
    request: ::http::request::Builder,
    body: &'a str,
) -> Pin<Box<dyn Future<Output = Got> + 'a>> {
    let mut sent: Pin<Box<dyn Future<Output = Got>>> = Box::pin(send(service, request, body));
    let polled = sent.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "{polled:?}");
    sent
}

fn scans(cache: &Cache) -> u64 {
    let stats = cache.stats();
    let mut operations = stats.operations.iter();
    let keys = operations.find(|operation| operation.operation == "keys");
    keys.map_or(0, |keys| keys.time.count)
}

#[tokio::test]
async fn requests_for_the_usage_share_one_census_and_keep_nobody_out() {
    let (_server, proxy, cache) = stalled().await;
    let service = of(&cache);
    let before = scans(&cache);

    let usages: Vec<_> = (0..2 * MAX_REQUESTS)
        .map(|_| begun(&service, local("GET", "/api/usage"), ""))
        .collect();
    let other = get(&service, "/api/stats").await;
    proxy.pass();
    let usages = join_all(usages).await;

    assert_eq!(other.status, 200, "{other:?}");
    for usage in &usages {
        assert_eq!(usage.status, 200, "{usage:?}");
        assert_eq!(usage.json()["is_complete"], true);
    }
    assert_eq!(scans(&cache) - before, 1, "the keyspace is empty");
    assert_eq!(get(&service, "/api/usage").await.status, 200);
    assert_eq!(scans(&cache) - before, 2, "a later request counts again");
}

#[tokio::test]
async fn a_census_goes_on_if_the_client_that_began_it_leaves() {
    let (_server, proxy, cache) = stalled().await;
    let service = of(&cache);
    let first = begun(&service, local("GET", "/api/usage"), "");
    let second = begun(&service, local("GET", "/api/usage"), "");

    drop(first);
    proxy.pass();

    assert_eq!(second.await.status, 200);
}

#[tokio::test]
async fn walks_of_the_keyspace_are_few_and_leave_places_to_others() {
    let (_server, _proxy, cache) = stalled().await;
    let service = of(&cache);
    let dry = r#"{"pattern":"event:*","dry_run":true}"#;

    let mut walking: Vec<_> = (1..walks::MAX_WALKS)
        .map(|_| begun(&service, local("GET", "/api/keys"), ""))
        .collect();
    walking.push(begun(&service, local("POST", "/api/evict"), dry));
    for (method, path, body) in [
        ("GET", "/api/keys", ""),
        ("GET", "/api/usage", ""),
        ("POST", "/api/evict", dry),
    ] {
        let more = send(&service, local(method, path), body).await;
        assert!(
            more.status == 503 && more.detail().contains("walk the keyspace"),
            "{path} {more:?}"
        );
        assert_eq!(more.headers["retry-after"], "1");
    }

    assert_eq!(get(&service, "/api/stats").await.status, 200);
    // What an operator must be able to do is not a matter of places for walks.
    let all = r#"{"pattern":"event:*"}"#;
    drop(begun(&service, local("POST", "/api/evict"), all));
    drop(walking.pop());
    drop(begun(&service, local("GET", "/api/keys"), ""));
}
