//! The keys that exist, as a stream.

use std::collections::BTreeSet;

use cache_runtime::{Cache, ErrorKind, KeyStream};

use crate::support::{cache, calls, raw, server, soon, until};

/// More keys than four pages hold.
const ROWS: usize = 1_100;

fn names() -> BTreeSet<String> {
    (0..ROWS).map(|row| format!("row:{row}")).collect()
}

async fn store_rows(cache: &Cache) {
    let names = names();
    let pairs: Vec<(&str, &u8)> = names.iter().map(|name| (name.as_str(), &1)).collect();
    assert!(cache.set_many(&pairs, 60_u64).await);
}

/// Returns what is left of a stream: its keys, and the kinds of its errors.
async fn drain(mut keys: KeyStream) -> (BTreeSet<String>, Vec<ErrorKind>) {
    let (mut found, mut errors) = (BTreeSet::new(), Vec::new());
    while let Some(key) = soon("the next key arrives", keys.next()).await {
        match key {
            Ok(key) => {
                found.insert(key);
            }
            Err(error) => errors.push(error.kind()),
        }
    }
    (found, errors)
}

#[tokio::test]
async fn a_stream_requests_the_next_page_when_the_last_key_of_a_page_was_taken() {
    let server = server();
    let cache = cache(&server).await;
    let mut raw = raw(&server).await;
    store_rows(&cache).await;

    let mut keys = cache.scan_keys("row:*");
    assert_eq!(calls(&mut raw, "scan").await, 0);
    let first = keys.next().await.expect("a key").expect("Redis answers");
    assert_eq!(calls(&mut raw, "scan").await, 1);
    let (mut found, errors) = drain(keys).await;

    found.insert(first);
    assert_eq!((found, errors), (names(), vec![]));
    assert!(calls(&mut raw, "scan").await >= 4);
}

#[tokio::test]
async fn an_error_is_the_last_item_of_a_stream() {
    let mut server = server();
    let cache = cache(&server).await;
    store_rows(&cache).await;

    let mut keys = cache.scan_keys("row:*");
    keys.next().await.expect("a key").expect("Redis answers");
    server.kill();
    let (found, errors) = drain(keys).await;

    assert!(found.len() < ROWS - 1, "the first page is not everything");
    assert_eq!(errors.len(), 1);
}

#[tokio::test]
async fn a_stream_does_not_continue_on_a_server_that_was_restarted() {
    let mut server = server();
    let cache = cache(&server).await;
    store_rows(&cache).await;

    let mut keys = cache.scan_keys("row:*");
    keys.next().await.expect("a key").expect("Redis answers");
    server.restart().expect("redis-server starts");
    until("the cache is connected again", async || {
        cache.try_get::<u8>("row:1").await.is_ok()
    })
    .await;
    let (found, errors) = drain(keys).await;

    assert!(found.len() < ROWS - 1, "the first page is not everything");
    assert_eq!(errors, [ErrorKind::Connection]);
}

#[tokio::test]
async fn a_pattern_that_cannot_be_used_is_the_only_item_of_its_stream() {
    let keys = Cache::memory().scan_keys("");

    assert_eq!(drain(keys).await, (BTreeSet::new(), vec![ErrorKind::Input]));
}
