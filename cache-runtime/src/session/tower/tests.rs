use std::time::Duration;

use serde_json::json;
use tower_sessions_core::session_store::Error;

use super::*;
use crate::clock::Clock;
use crate::config::{Config, Environment, SessionKeys};
use crate::error::ErrorKind;
use crate::metrics::SessionStats;
use crate::store::support::{ask, config, until};
use crate::testing::{FaultProxy, RedisServer};

const HOUR: Duration = Duration::from_secs(3600);
const A: &str = "a:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const B: &str = "b:ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

/// A store with Redis or in memory mode, and a clock that the test controls.
pub(super) struct Bench {
    pub(super) server: Option<RedisServer>,
    pub(super) store: TowerSessionStore,
    pub(super) clock: Clock,
    cache: Cache,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let server = RedisServer::start().unwrap();
        let mut bench = Self::on(config(&server)).await;
        bench.server = Some(server);
        bench
    }

    pub(super) async fn both() -> [Self; 2] {
        let config = Config {
            redis: None,
            ..Config::default()
        };
        [Self::new().await, Self::on(config).await]
    }

    pub(super) async fn on(config: Config) -> Self {
        let clock = Clock::stopped();
        let config = config.clock(clock.clone()).session_keys(keys(A));
        let cache = match config.redis {
            Some(_) => Cache::connect(config).await.unwrap(),
            None => Cache::local(config),
        };
        Self {
            server: None,
            store: TowerSessionStore::new(&cache).unwrap(),
            clock,
            cache,
        }
    }

    /// Creates another process with other keys.
    async fn beside(&self, text: &str) -> Self {
        let config = config(self.server()).session_keys(keys(text));
        let cache = Cache::connect(config).await.unwrap();
        Self {
            server: None,
            store: TowerSessionStore::new(&cache).unwrap(),
            clock: Clock::default(),
            cache,
        }
    }

    pub(super) fn server(&self) -> &RedisServer {
        self.server.as_ref().unwrap()
    }

    fn stats(&self) -> SessionStats {
        self.cache.stats().sessions
    }

    /// Returns a session that expires in exactly 1 h and is not created yet.
    fn record(&self, data: Value) -> Record {
        let expires = i128::from(self.clock.now_millis() + 3_600_000) * 1_000_000;
        Record {
            id: Id::default(),
            data: serde_json::from_value(data).unwrap(),
            expiry_date: OffsetDateTime::from_unix_timestamp_nanos(expires).unwrap(),
        }
    }

    async fn created(&self, data: Value) -> Record {
        let mut record = self.record(data);
        self.store.create(&mut record).await.unwrap();
        record
    }

    async fn load(&self, record: &Record) -> Option<Record> {
        self.store.load(&record.id).await.unwrap()
    }

    /// Returns the only session in Redis.
    fn stored(&self) -> (String, Vec<u8>) {
        let names: Vec<String> = ask(self.server(), &["KEYS", "*"]);
        let [name] = <[String; 1]>::try_from(names).unwrap();
        let record = ask(self.server(), &["GET", &name]);
        (name, record)
    }
}

fn keys(text: &str) -> SessionKeys {
    SessionKeys::parse(text).unwrap()
}

/// Stores arbitrary bytes under a key.
fn put(server: &RedisServer, name: &str, record: &[u8]) {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let command = redis::cmd("SET").arg(name).arg(record).to_owned();
    command.exec(&mut connection).unwrap();
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

#[tokio::test]
async fn a_session_is_loaded_as_it_was_created() {
    for bench in Bench::both().await {
        let mut record = bench.record(json!({
            "user": { "id": 42, "name": "Ada \u{1F680}" },
            "numbers": [0.1, -1, u64::MAX, 1e300],
            "": null,
        }));
        record.expiry_date += Duration::from_nanos(123_456_789);

        bench.store.create(&mut record).await.unwrap();

        assert_eq!(bench.load(&record).await, Some(record));
        assert_eq!((bench.stats().created, bench.stats().loaded), (1, 1));
    }
}

#[tokio::test]
async fn a_new_session_with_a_taken_id_gets_another_id() {
    for bench in Bench::both().await {
        let first = bench.created(json!({ "user": "ada" })).await;
        let mut second = bench.record(json!({ "user": "eve" }));
        second.id = first.id;

        bench.store.create(&mut second).await.unwrap();

        assert_ne!(second.id, first.id);
        assert_eq!(bench.load(&first).await, Some(first));
        assert_eq!(bench.load(&second).await, Some(second));
    }
}

#[tokio::test]
async fn the_last_of_two_saves_wins() {
    for bench in Bench::both().await {
        let mut one = bench.created(json!({})).await;
        let mut other = one.clone();
        one.data.insert("cart".to_owned(), json!(1));
        other.data.insert("cart".to_owned(), json!(2));

        bench.store.save(&one).await.unwrap();
        bench.store.save(&other).await.unwrap();

        assert_eq!(bench.load(&one).await, Some(other));
        assert_eq!(bench.stats().saved, 2);
    }
}

#[tokio::test]
async fn a_save_does_not_revive_an_ended_session() {
    for bench in Bench::both().await {
        let record = bench.created(json!({ "user": "ada" })).await;
        bench.store.delete(&record.id).await.unwrap();

        let saved = bench.store.save(&record).await;

        let Err(Error::Backend(text)) = saved else {
            panic!("{saved:?}");
        };
        assert!(text.contains("the session ended"), "{text}");
        assert_eq!(bench.load(&record).await, None);
        assert_eq!(bench.stats().save_refused, 1);
    }
}

#[tokio::test]
async fn a_save_under_an_unknown_id_is_refused() {
    for bench in Bench::both().await {
        let record = bench.record(json!({ "user": "ada" }));

        assert!(bench.store.save(&record).await.is_err());

        assert_eq!(bench.load(&record).await, None);
    }
}

#[tokio::test]
async fn an_empty_save_of_an_ended_session_succeeds_and_stores_nothing() {
    for bench in Bench::both().await {
        let record = bench.record(json!({}));

        bench.store.save(&record).await.unwrap();

        assert_eq!(bench.load(&record).await, None);
    }
}

#[tokio::test]
async fn a_save_does_not_revive_an_expired_session() {
    for bench in Bench::both().await {
        let mut record = bench.record(json!({ "user": "ada" }));
        record.expiry_date -= HOUR - Duration::from_millis(20);
        bench.store.create(&mut record).await.unwrap();
        // Redis uses the system clock.
        bench.clock.advance(Duration::from_millis(20));
        if let Some(server) = &bench.server {
            until("the session has left Redis", || {
                ask::<i64>(server, &["DBSIZE"]) == 0
            })
            .await;
        }

        record.expiry_date += HOUR;
        assert!(bench.store.save(&record).await.is_err());

        assert_eq!(bench.load(&record).await, None);
    }
}

#[tokio::test]
async fn a_session_expires_exactly_at_its_date() {
    for bench in Bench::both().await {
        let record = bench.created(json!({ "user": "ada" })).await;

        bench.clock.advance(HOUR - Duration::from_millis(1));
        assert!(bench.load(&record).await.is_some());

        bench.clock.advance(Duration::from_millis(1));
        assert_eq!(bench.load(&record).await, None);
        assert_eq!(bench.stats().not_found, 1);
    }
}

#[tokio::test]
async fn a_save_moves_the_end_of_a_session() {
    for bench in Bench::both().await {
        let mut record = bench.created(json!({ "user": "ada" })).await;
        record.expiry_date += HOUR;

        bench.store.save(&record).await.unwrap();

        bench.clock.advance(HOUR);
        assert_eq!(bench.load(&record).await, Some(record));
    }
}

#[tokio::test]
async fn saving_with_a_past_date_ends_the_session() {
    for bench in Bench::both().await {
        let mut record = bench.created(json!({ "user": "ada" })).await;
        record.expiry_date = OffsetDateTime::UNIX_EPOCH - HOUR;

        bench.store.save(&record).await.unwrap();

        assert_eq!(bench.load(&record).await, None);
    }
}

#[tokio::test]
async fn redis_removes_expired_sessions() {
    let bench = Bench::new().await;
    let mut record = bench.record(json!({ "user": "ada" }));
    record.expiry_date = OffsetDateTime::now_utc() + Duration::from_millis(300);

    bench.store.create(&mut record).await.unwrap();

    until("Redis is empty", || {
        ask::<i64>(bench.server(), &["DBSIZE"]) == 0
    })
    .await;
}

#[tokio::test]
async fn the_clock_of_redis_does_not_matter() {
    let bench = Bench::new().await;
    bench.clock.advance(1_000 * HOUR);

    bench.created(json!({ "user": "ada" })).await;

    let (name, _) = bench.stored();
    let left: u64 = ask(bench.server(), &["PTTL", &name]);
    assert!((3_590_000..=3_600_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_deleted_session_is_gone_and_can_be_deleted_again() {
    for bench in Bench::both().await {
        let record = bench.created(json!({ "user": "ada" })).await;

        bench.store.delete(&record.id).await.unwrap();
        bench.store.delete(&record.id).await.unwrap();

        assert_eq!(bench.load(&record).await, None);
        assert_eq!(bench.stats().destroyed, 1);
        if let Some(server) = &bench.server {
            assert_eq!(ask::<i64>(server, &["DBSIZE"]), 0);
        }
    }
}

#[tokio::test]
async fn every_call_is_an_error_during_an_outage() {
    let mut bench = Bench::new().await;
    let record = bench.created(json!({ "user": "ada" })).await;

    bench.server.as_mut().unwrap().kill();

    let outcomes = [
        bench.store.load(&record.id).await.map(drop),
        bench.store.save(&record).await,
        bench.store.create(&mut record.clone()).await,
        bench.store.delete(&record.id).await,
    ];
    for outcome in outcomes {
        let Err(Error::Backend(text)) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(text.starts_with("sessions are unavailable: "), "{text}");
    }
    assert_eq!(bench.stats().unavailable, 4);
}

#[tokio::test]
async fn a_session_with_a_pending_revocation_is_refused() {
    for bench in Bench::both().await {
        let record = bench.created(json!({ "user": "ada" })).await;
        let Place { tag, sid } = place(&record.id);

        bench.store.inner.revocations.add(tag, Which::One(sid));

        assert_eq!(bench.load(&record).await, None);
        assert!(bench.store.save(&record).await.is_err());
    }
}

#[tokio::test]
async fn a_session_deleted_during_an_outage_is_refused_from_then_on() {
    let server = RedisServer::start().unwrap();
    let network = FaultProxy::start(&server).unwrap();
    let bench = Bench::on(Config {
        command_timeout: Duration::from_secs(2),
        ..network.config()
    })
    .await;
    let record = bench.created(json!({ "user": "ada" })).await;
    network.cut();
    assert!(bench.store.delete(&record.id).await.is_err());

    // Without the pending revocation, the first load that Redis answers would return the session.
    network.pass();
    let mut loaded = bench.store.load(&record.id).await;
    while loaded.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        loaded = bench.store.load(&record.id).await;
    }

    assert_eq!(loaded.unwrap(), None);
    until("the session has left Redis", || {
        ask::<i64>(&server, &["DBSIZE"]) == 0
    })
    .await;
}

#[tokio::test]
async fn redis_contains_neither_the_id_nor_the_data() {
    let bench = Bench::new().await;
    let record = bench.created(json!({ "mail": "ada@example.com" })).await;

    let (name, stored) = bench.stored();

    assert!(name.starts_with("test_session:{"), "{name}");
    let seen = [name.as_bytes(), &stored].concat();
    let Id(id) = record.id;
    let secrets = [
        &id.to_le_bytes()[..],
        &id.to_be_bytes(),
        record.id.to_string().as_bytes(),
        id.to_string().as_bytes(),
        format!("{id:x}").as_bytes(),
        b"mail",
        b"ada",
    ]
    .map(<[u8]>::to_vec);
    for secret in secrets {
        let is_there = seen.windows(secret.len()).any(|part| part == secret);
        assert!(!is_there, "{:?}", String::from_utf8_lossy(&secret));
    }
}

#[tokio::test]
async fn a_record_with_any_bit_flipped_is_refused() {
    let bench = Bench::new().await;
    let record = bench.created(json!({ "user": "ada" })).await;
    let (name, stored) = bench.stored();

    for bit in 0..stored.len() * 8 {
        let mut flipped = stored.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        put(bench.server(), &name, &flipped);
        assert_eq!(bench.load(&record).await, None, "bit {bit}");
    }

    assert_eq!(bench.stats().tampered, stored.len() as u64 * 8);
    put(bench.server(), &name, &stored);
    assert_eq!(bench.load(&record).await, Some(record));
}

#[tokio::test]
async fn a_record_is_refused_for_another_session() {
    let bench = Bench::new().await;
    let record = bench.created(json!({ "user": "ada" })).await;
    let (name, stored) = bench.stored();
    bench.store.delete(&record.id).await.unwrap();
    let other = bench.created(json!({ "user": "eve" })).await;
    let (other_name, _) = bench.stored();

    put(bench.server(), &other_name, &stored);

    assert_ne!(name, other_name);
    assert_eq!(bench.load(&other).await, None);
    assert_eq!(bench.stats().tampered, 1);
}

#[tokio::test]
async fn an_invalid_record_is_refused() {
    let bench = Bench::new().await;
    let record = bench.created(json!({ "user": "ada" })).await;
    let (name, _) = bench.stored();

    ask::<i64>(bench.server(), &["DEL", &name]);
    ask::<i64>(bench.server(), &["LPUSH", &name, "something else"]);

    assert_eq!(bench.load(&record).await, None);
    assert_eq!(bench.stats().tampered, 1);
}

#[tokio::test]
async fn a_session_survives_a_rotation_of_keys_until_its_key_is_removed() {
    let bench = Bench::new().await;
    let record = bench.created(json!({ "user": "ada" })).await;
    let rotated = bench.beside(&format!("{B},{A}")).await;
    let without = bench.beside(B).await;

    assert_eq!(rotated.load(&record).await.as_ref(), Some(&record));
    assert_eq!(without.load(&record).await, None);
    assert_eq!(without.stats().tampered, 1);

    rotated.store.save(&record).await.unwrap();
    assert_eq!(without.load(&record).await, Some(record));
}

#[tokio::test]
async fn data_of_more_than_16_kib_is_refused() {
    for bench in Bench::both().await {
        let mut record = bench.record(json!({ "text": "x".repeat(16 * 1024) }));

        let refused = bench.store.create(&mut record).await;

        assert!(matches!(refused, Err(Error::Encode(_))), "{refused:?}");
        assert_eq!(bench.load(&record).await, None);
    }
}

#[tokio::test]
async fn data_is_refused_exactly_from_the_depth_that_cannot_be_read() {
    for bench in Bench::both().await {
        let record = bench.created(json!({ "deep": nested(125) })).await;
        let mut deeper = bench.record(json!({ "deep": nested(126) }));

        let refused = bench.store.create(&mut deeper).await;

        assert!(matches!(refused, Err(Error::Encode(_))), "{refused:?}");
        assert_eq!(bench.load(&record).await, Some(record));
    }
}

#[tokio::test]
async fn lookups_of_unknown_sessions_take_no_memory() {
    let [_, bench] = Bench::both().await;
    let memory = bench.store.inner.backend.memory.as_ref().unwrap();
    let record = bench.record(json!({ "user": "ada" }));

    assert_eq!(bench.load(&record).await, None);
    assert!(bench.store.save(&record).await.is_err());
    bench.store.delete(&record.id).await.unwrap();

    assert_eq!(memory.users(), 0);
}

#[tokio::test]
async fn new_sessions_remove_expired_ones_from_memory() {
    let [_, bench] = Bench::both().await;
    let memory = bench.store.inner.backend.memory.as_ref().unwrap();
    for _ in 0..3 {
        bench.created(json!({ "user": "ada" })).await;
    }

    bench.clock.advance(2 * HOUR);
    bench.created(json!({ "user": "eve" })).await;

    assert_eq!(memory.users(), 1);
}

#[test]
fn production_needs_keys() {
    let cache = Cache::local(Config {
        environment: Environment::PROD,
        ..Config::default()
    });

    let refused = TowerSessionStore::new(&cache).unwrap_err();

    assert_eq!(refused.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_missing_permission_is_not_a_missing_session() {
    let bench = Bench::new().await;
    let record = bench.created(json!({ "user": "ada" })).await;
    for command in ["get", "set"] {
        let () = ask(
            bench.server(),
            &["ACL", "SETUSER", "default", &format!("-{command}")],
        );
        let loaded = bench.store.load(&record.id).await;
        let saved = bench.store.save(&record).await;
        let () = ask(
            bench.server(),
            &["ACL", "SETUSER", "default", &format!("+{command}")],
        );

        assert!(!matches!(loaded, Ok(None)), "without {command}: {loaded:?}");
        assert!(loaded.is_err() || saved.is_err(), "without {command}");
        assert!(bench.store.load(&record.id).await.unwrap().is_some());
    }
}
