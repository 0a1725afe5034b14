//! The records in Redis and their expiry.

use super::super::{Algorithm, Identity, Penalty, Policy, Verdict};
use super::{Bench, admitted, check, client, millis, policy};
use crate::cache::Cache;
use crate::shared::on_a_cluster;
use crate::store::support::{ask, config};
use crate::testing::RedisServer;

on_a_cluster! {
    a_block_outlives_the_process
    all_records_of_a_client_are_in_one_slot
}

const KEY: &str = "test_ratelimit:{user:1}:test";

/// A limiter that uses the clock of the server.
async fn timed(server: &RedisServer, policy: Policy) -> super::super::RateLimiter {
    let cache = Cache::connect(config(server)).await.unwrap();
    super::super::RateLimiter::new(&cache, [policy]).unwrap()
}

#[tokio::test]
async fn a_client_is_one_key_that_expires() {
    for algorithm in [
        Algorithm::SlidingLog,
        Algorithm::SlidingBuckets,
        Algorithm::Gcra,
    ] {
        let server = RedisServer::start().unwrap();
        let limiter = timed(&server, policy(3).per("10s").algorithm(algorithm)).await;
        admitted(&limiter, 3).await;

        assert_eq!(
            ask::<Vec<String>>(&server, &["KEYS", "*"]),
            [KEY],
            "{algorithm:?}"
        );
        let ttl: i64 = ask(&server, &["PTTL", KEY]);
        assert!((10_000..21_000).contains(&ttl), "{ttl} ms");
    }
}

#[tokio::test]
async fn the_clock_of_the_server_decides() {
    let server = RedisServer::start().unwrap();
    let limiter = timed(&server, policy(2).per("300ms")).await;
    assert_eq!(admitted(&limiter, 4).await, 2);

    let wait = check(&limiter).await.retry_after.unwrap();

    assert!(wait <= millis(300), "{wait:?}");
    tokio::time::sleep(wait + millis(5)).await;
    assert!(check(&limiter).await.is_allowed());
}

#[tokio::test]
async fn a_rejection_writes_nothing() {
    let server = RedisServer::start().unwrap();
    let limiter = timed(&server, policy(1).per("20s")).await;
    admitted(&limiter, 1).await;
    let before: Vec<u8> = ask(&server, &["GET", KEY]);
    let dirty = || {
        let info: String = ask(&server, &["INFO", "persistence"]);
        info.lines()
            .find(|line| line.starts_with("rdb_changes"))
            .unwrap()
            .to_owned()
    };
    let changes = dirty();

    let other_process = timed(&server, policy(1).per("20s")).await;
    assert_eq!(admitted(&other_process, 1).await, 0);

    assert_eq!(dirty(), changes);
    assert_eq!(ask::<Vec<u8>>(&server, &["GET", KEY]), before);
}

#[tokio::test]
async fn an_unreadable_record_is_replaced() {
    for garbage in [
        vec!["RPUSH", KEY, "a", "b"],
        vec!["SET", KEY, "garbage that is long enough to be something"],
        vec!["SET", KEY, ""],
        vec!["SET", KEY, "\u{1}12345678"],
        vec![
            "SET",
            KEY,
            "\u{11}1234567812345678123456781234567812345678",
            "PX",
            "1000",
        ],
        vec!["HSET", KEY, "strikes", "2"],
    ] {
        let bench = Bench::new([policy(2)]).await;
        let _: redis::Value = ask(&bench.server, &garbage);

        assert_eq!(admitted(&bench.limiter, 3).await, 2, "{garbage:?}");
        let server = RedisServer::start().unwrap();
        let _: redis::Value = ask(&server, &garbage);
        let limiter = timed(&server, policy(2).per("10s")).await;
        assert_eq!(
            admitted(&limiter, 3).await,
            2,
            "{garbage:?} with the clock of the server"
        );
    }
}

#[tokio::test]
async fn a_server_that_lost_the_script_is_sent_it_again() {
    let bench = Bench::new([policy(3)]).await;
    admitted(&bench.limiter, 1).await;

    let _: String = ask(&bench.server, &["SCRIPT", "FLUSH"]);

    assert_eq!(admitted(&bench.limiter, 3).await, 2);
}

#[tokio::test]
async fn the_process_decides_if_the_server_is_out_of_memory() {
    let bench = Bench::new([policy(3)]).await;
    admitted(&bench.limiter, 1).await;

    let _: String = ask(&bench.server, &["CONFIG", "SET", "maxmemory", "1"]);

    assert_eq!(admitted(&bench.limiter, 4).await, 2);
    let _: String = ask(&bench.server, &["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(
        admitted(&bench.limiter, 2).await,
        0,
        "there is no new quota afterwards"
    );
}

#[tokio::test]
async fn a_block_outlives_the_process() {
    let penalty = || policy(1).penalty(Penalty::default());
    let bench = Bench::new([penalty()]).await;
    admitted(&bench.limiter, 2).await;
    bench.clock.advance(millis(1_000));
    admitted(&bench.limiter, 2).await;

    let (_, new) = super::another(&bench.server, &bench.clock, [penalty()]).await;

    assert_eq!(check(&new).await.verdict, Verdict::Blocked);
    new.reset("test", &client()).await.unwrap();
    assert!(check(&new).await.is_allowed(), "a reset clears the block");
}

#[tokio::test]
async fn clearing_the_cache_grants_no_new_quota() {
    let bench = Bench::new([policy(1).per("1h")]).await;
    admitted(&bench.limiter, 1).await;

    let _ = bench.cache.clear().await;
    let _ = bench.cache.delete_matching("*").await;

    assert_eq!(ask::<Vec<String>>(&bench.server, &["KEYS", "*"]), [KEY]);
    assert!(bench.cache.keys("*").await.is_empty());
}

#[tokio::test]
async fn all_records_of_a_client_are_in_one_slot() {
    let bench = Bench::new([policy(1), Policy::new("other").limit(1).per("1s")]).await;
    let slot = |key: &str| {
        let open = key.find('{').unwrap();
        let close = key[open..].find('}').unwrap();
        key[open + 1..open + close].to_owned()
    };
    for client in [
        Identity::user("{x}a}"),
        Identity::user(1),
        Identity::ip("::1".parse().unwrap()),
    ] {
        let keys =
            [0, 1].map(|policy| bench.limiter.inner.key(policy, &client).as_str().to_owned());
        assert_eq!(slot(&keys[0]), slot(&keys[1]));
        assert_eq!(slot(&keys[0]), client.as_str());
    }
}

#[tokio::test]
async fn a_client_takes_little_memory() {
    for (limit, most) in [(5, 250), (100, 1_300)] {
        let server = RedisServer::start().unwrap();
        let limiter = timed(&server, policy(limit).per("60s")).await;
        admitted(&limiter, limit as usize).await;

        let bytes: u64 = ask(&server, &["MEMORY", "USAGE", KEY, "SAMPLES", "0"]);

        assert!(bytes <= most, "{bytes} bytes for {limit}");
    }
}

#[tokio::test]
async fn a_missing_permission_grants_no_new_quota() {
    let server = RedisServer::start().unwrap();
    let even = policy(3).per("1h").algorithm(Algorithm::Gcra);
    // With the clock of the server, so that the script calls `TIME`.
    let limiters = [
        timed(&server, policy(3).per("1h")).await,
        timed(&server, even).await,
    ];
    for command in ["get", "set", "append", "pttl", "time"] {
        for (number, limiter) in limiters.iter().enumerate() {
            let client = Identity::user(format!("{command}{number}"));
            let admitted = async |calls: usize| {
                let mut admitted = 0;
                for _ in 0..calls {
                    let decision = limiter.check("test", &client).await.unwrap();
                    admitted += usize::from(decision.is_allowed());
                }
                admitted
            };
            let before = admitted(2).await;
            let () = ask(
                &server,
                &["ACL", "SETUSER", "default", &format!("-{command}")],
            );
            let meanwhile = admitted(10).await;
            let () = ask(
                &server,
                &["ACL", "SETUSER", "default", &format!("+{command}")],
            );
            assert_eq!(before + meanwhile, 3, "{number} without {command}");
        }
    }
}
