//! When sessions end, and by whose clock.

use super::*;

#[tokio::test]
async fn a_use_extends_a_session_by_an_hour_and_not_beyond_a_day_and_an_hour() {
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
async fn a_session_ends_exactly_when_it_says() {
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
async fn nothing_is_left_when_all_sessions_have_ended() {
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
async fn a_session_ends_at_its_latest_end_however_much_it_is_used() {
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
async fn a_rotation_gives_no_time() {
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
async fn a_use_of_a_session_that_has_ended_does_not_bring_it_back() {
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
async fn a_use_soon_after_another_one_adds_nothing_and_writes_nothing() {
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
async fn without_an_extension_a_session_ends_as_it_was_said_at_login() {
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
async fn half_an_hour_extended_by_itself_is_at_most_an_hour() {
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
async fn a_process_whose_clock_is_wrong_begins_sessions_by_the_clock_of_redis() {
    let bench = Bench::with(|config| config.clock(Clock::default())).await;
    let now = || redis_now(bench.server());
    for wrong_by in [0, 1, 2_000, -2_000, 86_400_000, -86_400_000] {
        bench.store.inner.backend.believe(wrong_by);

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
async fn nothing_is_left_after_logins_uses_and_changes_when_all_have_ended() {
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
            // On a slow machine it may have ended already, which is what is waited for.
            let _ = bench.store.load(session.token()).await;
            let _ = bench.store.save(&mut session).await;
            let _ = bench.store.rotate(&mut session).await;
        }
    }
    let server = bench.server();

    until("all keys are gone", || ask::<i64>(server, &["DBSIZE"]) == 0).await;
}

#[tokio::test]
async fn what_is_believed_of_the_time_is_never_ahead_of_redis() {
    let bench = Bench::with(|config| config.clock(Clock::default())).await;
    for _ in 0..20 {
        log_in(&bench.store).await;

        let believed = bench.store.inner.backend.now();

        // Otherwise what both clocks cut off from their milliseconds could make a login fail.
        assert!(believed < redis_now(bench.server()));
    }
}

fn redis_now(server: &RedisServer) -> u64 {
    let time: Vec<u64> = ask(server, &["TIME"]);
    time[0] * 1_000 + time[1] / 1_000
}

#[tokio::test]
async fn the_set_of_a_user_lives_as_long_as_its_last_session_and_forgets_the_others() {
    let bench = Bench::new().await;
    let store = &bench.store;
    log_in(store).await;
    bench.clock.advance(DAY / 2);
    let session = log_in(store).await;
    let (index, server) = (bench.index(&session), bench.server());
    bench.clock.advance(DAY / 2);

    // At this moment the first one has ended.
    for _ in 0..3 {
        let used = store.load(session.token()).await.unwrap();

        assert_eq!(ask::<u64>(server, &["ZCARD", &index]), 1);
        let end: u64 = ask(server, &["PEXPIRETIME", &index]);
        let beyond = end - used.expires_at();
        assert!(beyond < 1_000, "{beyond}");
        bench.clock.advance(Duration::from_millis(400));
    }
}

/// Half an hour after the last use.
fn idle(config: Config) -> Config {
    config.session_idle(30 * MINUTE)
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn with_an_idle_time_a_session_ends_so_long_after_its_last_use() {
    for bench in Bench::both_with(idle).await {
        let (store, clock) = (&bench.store, &bench.clock);
        let session = log_in(store).await;
        assert_eq!(left(&session, clock), 30 * MINUTE);

        // However often it is used, and at whatever distance.
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
async fn an_idle_time_does_not_go_beyond_the_latest_end() {
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
async fn a_touch_interval_cuts_at_most_a_60th_of_the_idle_time() {
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
async fn a_session_from_before_there_was_an_idle_time_gets_it_with_its_next_use() {
    let bench = Bench::new().await;
    let session = log_in(&bench.store).await;
    let store = bench.another_with(idle).await;

    let loaded = store.load(session.token()).await.unwrap();

    assert_eq!(left(&loaded, &bench.clock), 30 * MINUTE);
    bench.clock.advance(30 * MINUTE);
    assert_refused!(store.load(session.token()).await, SessionError::NotFound);
}
