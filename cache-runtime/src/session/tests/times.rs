//! When sessions end, and which clock decides.

use super::*;

on_a_cluster! {
    a_use_extends_a_session_by_1_h_and_not_beyond_25_h
    a_session_ends_exactly_at_its_end
    uses_do_not_extend_a_session_beyond_its_latest_end
    a_rotation_does_not_extend_a_session
    a_session_without_extension_ends_at_its_ttl
    a_ttl_of_30_min_with_30_min_extension_lasts_at_most_1_h
    a_session_with_an_idle_time_ends_that_long_after_its_last_use
    an_idle_time_does_not_exceed_the_latest_end
    a_touch_interval_shortens_the_idle_time_by_at_most_a_60th
    the_next_use_applies_a_new_idle_time
}

#[tokio::test]
async fn a_use_extends_a_session_by_1_h_and_not_beyond_25_h() {
    for bench in Bench::both().await {
        let (store, clock) = (&bench.store, &bench.clock);
        let session = log_in(store).await;
        assert_eq!(left(&session, clock), DAY);

        let once = store.load(session.token()).await.unwrap();
        let twice = store.load(session.token()).await.unwrap();
        assert_eq!(left(&once, clock), DAY + HOUR);
        assert_eq!(left(&twice, clock), DAY + HOUR);

        clock.advance(2 * HOUR);
        let later = store.load(session.token()).await.unwrap();
        assert_eq!(left(&later, clock), DAY);
        assert_eq!(later.data().last_activity + 7_200_000, clock.now_millis());
    }
}

#[tokio::test]
async fn a_session_ends_exactly_at_its_end() {
    for bench in Bench::both().await {
        let session = log_in(&bench.store).await;

        bench.clock.advance(DAY - Duration::from_millis(1));
        assert!(bench.store.load(session.token()).await.is_ok());

        let other = log_in(&bench.store).await;
        bench.clock.advance(DAY);
        let ended = bench.store.load(other.token()).await;
        assert!(matches!(ended, Err(SessionError::NotFound)), "{ended:?}");
    }
}

#[tokio::test]
async fn ended_sessions_leave_no_keys() {
    let bench = Bench::with(|config| {
        config
            .session_ttl(Duration::from_millis(200))
            .session_extend(Duration::ZERO)
            .clock(Clock::default())
    })
    .await;
    for _ in 0..3 {
        log_in(&bench.store).await;
    }
    let server = bench.server();

    until("all keys are gone", || ask::<i64>(server, &["DBSIZE"]) == 0).await;
}

#[tokio::test]
async fn uses_do_not_extend_a_session_beyond_its_latest_end() {
    for bench in Bench::both().await {
        let (store, clock) = (&bench.store, &bench.clock);
        let session = log_in(store).await;
        let week = 7 * DAY;
        assert_eq!(
            session.pinned.absolute,
            session.data().created_at + 604_800_000
        );

        let step = week / 1_000;
        for _ in 0..999 {
            clock.advance(step);
            let loaded = store.load(session.token()).await.unwrap();
            assert!(loaded.expires_at() <= session.pinned.absolute);
            assert_eq!(loaded.pinned.absolute, session.pinned.absolute);
        }

        clock.advance(step - millis(1));
        let mut last = store.load(session.token()).await.unwrap();
        assert_eq!(last.expires_at(), session.pinned.absolute);
        clock.advance(millis(1));
        assert!(store.list_user("42").await.unwrap().is_empty());
        assert_refused!(store.save(&mut last).await, SessionError::Gone);
        assert_refused!(store.rotate(&mut last).await, SessionError::Gone);
        assert_refused!(store.load(session.token()).await, SessionError::NotFound);
    }
}

#[tokio::test]
async fn a_rotation_does_not_extend_a_session() {
    for bench in Bench::both().await {
        let (store, clock) = (&bench.store, &bench.clock);
        let mut session = log_in(store).await;
        let (ends_at, created_at) = (session.pinned.absolute, session.data().created_at);
        clock.advance(HOUR);

        store.rotate(&mut session).await.unwrap();

        assert_eq!(left(&session, clock), DAY - HOUR);
        let listed = store.list_user("42").await.unwrap();
        assert_eq!(listed[0].expires_at, session.expires_at());
        let loaded = store.load(session.token()).await.unwrap();
        assert_eq!(
            (loaded.pinned.absolute, loaded.data().created_at),
            (ends_at, created_at)
        );
    }
}

#[tokio::test]
async fn a_use_does_not_revive_an_ended_session() {
    for bench in Bench::both().await {
        let (store, clock) = (&bench.store, &bench.clock);
        let mut session = log_in(store).await;
        clock.advance(DAY);

        for _ in 0..3 {
            assert_refused!(store.load(session.token()).await, SessionError::NotFound);
            assert_refused!(store.save(&mut session).await, SessionError::Gone);
        }

        assert!(store.list_user("42").await.unwrap().is_empty());
        if bench.server.is_some() {
            assert_eq!(bench.keys(), [""; 0]);
        }
    }
}

#[tokio::test]
async fn a_use_soon_after_another_writes_nothing() {
    for bench in Bench::both_with(|config| config.session_touch_every(millis(60_000))).await {
        let (store, clock) = (&bench.store, &bench.clock);
        let session = log_in(store).await;
        let began = session.data().created_at;
        let written = || bench.server.as_ref().map(changes);
        let before = written();

        clock.advance(millis(59_999));
        let early = store.load(session.token()).await.unwrap();
        assert_eq!(
            (early.expires_at(), early.data().last_activity),
            (session.expires_at(), began)
        );
        assert_eq!(written(), before);

        clock.advance(millis(1));
        let late = store.load(session.token()).await.unwrap();
        assert_eq!(late.expires_at(), session.expires_at() + 3_600_000);
        clock.advance(millis(59_999));
        let again = store.load(session.token()).await.unwrap();
        assert_eq!(again.data().last_activity, began + 60_000);
        assert_eq!(again.expires_at(), late.expires_at());
    }
}

fn changes(server: &RedisServer) -> String {
    let info: String = ask(server, &["INFO", "persistence"]);
    let mut lines = info.lines();
    lines
        .find(|line| line.starts_with("rdb_changes"))
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_session_without_extension_ends_at_its_ttl() {
    for bench in Bench::both_with(|config| config.session_extend(Duration::ZERO)).await {
        let (store, clock) = (&bench.store, &bench.clock);
        let session = log_in(store).await;

        clock.advance(DAY - millis(1));
        let loaded = store.load(session.token()).await.unwrap();
        assert_eq!(loaded.expires_at(), session.expires_at());

        clock.advance(millis(1));
        assert_refused!(store.load(session.token()).await, SessionError::NotFound);
    }
}

#[tokio::test]
async fn a_ttl_of_30_min_with_30_min_extension_lasts_at_most_1_h() {
    let half = HOUR / 2;
    for bench in Bench::both_with(|config| config.session_ttl(half).session_extend(half)).await {
        let (store, clock) = (&bench.store, &bench.clock);
        let session = log_in(store).await;
        assert_eq!(left(&session, clock), half);

        for _ in 0..100 {
            let loaded = store.load(session.token()).await.unwrap();
            assert!(left(&loaded, clock) <= HOUR);
        }

        clock.advance(HOUR);
        assert_refused!(store.load(session.token()).await, SessionError::NotFound);
    }
}

#[tokio::test]
async fn a_process_with_a_wrong_clock_uses_the_clock_of_redis() {
    let bench = Bench::with(|config| config.clock(Clock::default())).await;
    let now = || redis_now(bench.server());
    for wrong_by in [0, 1, 2_000, -2_000, 86_400_000, -86_400_000] {
        bench.store.inner.backend.set_clock_offset(wrong_by);

        let before = now();
        let session = log_in(&bench.store).await;

        let created = session.data().created_at;
        assert!(
            (before - 1_000..=now()).contains(&created),
            "{created} with {wrong_by}"
        );
        assert_eq!(session.pinned.absolute, created + 604_800_000);
        assert!(bench.store.load(session.token()).await.is_ok());
        let lists = bench.store.list_user("42").await.unwrap();
        assert!(lists.iter().any(|listed| listed.data.created_at == created));
    }
}

#[tokio::test]
async fn logins_uses_and_changes_leave_no_keys() {
    let bench = Bench::with(|config| {
        config
            .session_ttl(millis(300))
            .session_extend(millis(100))
            .session_absolute(millis(500))
            .sessions_per_user(3)
            .clock(Clock::default())
    })
    .await;
    for user in 0..5 {
        for _ in 0..4 {
            let mut session = log_in_as(&bench.store, user).await;
            // On a slow machine the session may already have ended.
            let _ = bench.store.load(session.token()).await;
            let _ = bench.store.save(&mut session).await;
            let _ = bench.store.rotate(&mut session).await;
        }
    }
    let server = bench.server();

    until("all keys are gone", || ask::<i64>(server, &["DBSIZE"]) == 0).await;
}

#[tokio::test]
async fn the_estimated_time_is_never_ahead_of_redis() {
    let bench = Bench::with(|config| config.clock(Clock::default())).await;
    for _ in 0..20 {
        log_in(&bench.store).await;

        let assumed = bench.store.inner.backend.now();

        // Otherwise rounding to milliseconds on both sides could make a login fail.
        assert!(assumed < redis_now(bench.server()));
    }
}

fn redis_now(server: &RedisServer) -> u64 {
    let time: Vec<u64> = ask(server, &["TIME"]);
    time[0] * 1_000 + time[1] / 1_000
}

#[tokio::test]
async fn the_set_of_a_user_expires_with_the_last_session() {
    let bench = Bench::new().await;
    let store = &bench.store;
    log_in(store).await;
    bench.clock.advance(DAY / 2);
    let session = log_in(store).await;
    let (index, server) = (bench.index(&session), bench.server());
    bench.clock.advance(DAY / 2);

    // At this moment the first session has ended.
    for _ in 0..3 {
        let used = store.load(session.token()).await.unwrap();

        assert_eq!(ask::<u64>(server, &["ZCARD", &index]), 1);
        let end: u64 = ask(server, &["PEXPIRETIME", &index]);
        let beyond = end - used.expires_at();
        assert!(beyond < 1_000, "{beyond}");
        bench.clock.advance(Duration::from_millis(400));
    }
}

/// The session ends 30 minutes after its last use.
fn idle(config: Config) -> Config {
    config.session_idle(30 * MINUTE)
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_session_with_an_idle_time_ends_that_long_after_its_last_use() {
    for bench in Bench::both_with(idle).await {
        let (store, clock) = (&bench.store, &bench.clock);
        let session = log_in(store).await;
        assert_eq!(left(&session, clock), 30 * MINUTE);

        // For any number of uses at any distance.
        for pause in [0, 0, 1, 29 * 60_000, 30 * 60_000 - 1, 0, 17] {
            clock.advance(millis(pause));
            let loaded = store.load(session.token()).await.unwrap();
            assert_eq!(left(&loaded, clock), 30 * MINUTE);
        }
        clock.advance(30 * MINUTE - millis(1));
        assert!(store.load(session.token()).await.is_ok());
        clock.advance(30 * MINUTE);
        assert_refused!(store.load(session.token()).await, SessionError::NotFound);
        assert!(store.list_user("42").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_idle_time_does_not_exceed_the_latest_end() {
    for bench in Bench::both_with(|config| idle(config).session_absolute(HOUR)).await {
        let (store, clock) = (&bench.store, &bench.clock);
        let session = log_in(store).await;
        for _ in 0..3 {
            clock.advance(15 * MINUTE);
            let loaded = store.load(session.token()).await.unwrap();
            assert!(loaded.expires_at() <= session.pinned.absolute);
        }
        clock.advance(15 * MINUTE - millis(1));
        let last = store.load(session.token()).await.unwrap();
        assert_eq!(left(&last, clock), millis(1));
        clock.advance(millis(1));
        assert_refused!(store.load(session.token()).await, SessionError::NotFound);
    }
}

#[tokio::test]
async fn a_touch_interval_shortens_the_idle_time_by_at_most_a_60th() {
    for bench in Bench::both_with(|config| idle(config).session_touch_every(10 * MINUTE)).await {
        let (store, clock) = (&bench.store, &bench.clock);
        let session = log_in(store).await;
        for pause in [1, 10, 29, 30, 31, 59, 600] {
            clock.advance(Duration::from_secs(pause));
            let loaded = store.load(session.token()).await.unwrap();
            assert!(left(&loaded, clock) <= 30 * MINUTE);
            assert!(left(&loaded, clock) > 30 * MINUTE - MINUTE / 2, "{pause}");
        }
    }
}

#[tokio::test]
async fn the_next_use_applies_a_new_idle_time() {
    let bench = Bench::new().await;
    let session = log_in(&bench.store).await;
    let store = bench.another_with(idle).await;

    let loaded = store.load(session.token()).await.unwrap();

    assert_eq!(left(&loaded, &bench.clock), 30 * MINUTE);
    bench.clock.advance(30 * MINUTE);
    assert_refused!(store.load(session.token()).await, SessionError::NotFound);
}
