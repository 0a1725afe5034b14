//! What becomes of sessions, step by step and as time passes.

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
async fn of_two_saves_from_one_revision_one_is_a_conflict() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let token = log_in(store).await.token().clone();
        let (mut one, mut other) = (
            store.load(&token).await.unwrap(),
            store.load(&token).await.unwrap(),
        );
        one.data_mut().is_verified = true;
        other.data_mut().username = "eve".to_owned();

        store.save(&mut one).await.unwrap();
        let refused = store.save(&mut other).await;

        assert!(
            matches!(refused, Err(SessionError::Conflict)),
            "{refused:?}"
        );
        let stored = store.load(&token).await.unwrap();
        assert_eq!(
            (stored.data().is_verified, &*stored.data().username),
            (true, "ada")
        );
        store
            .update(&mut other, |data| data.username = "eve".to_owned())
            .await
            .unwrap();
        let stored = store.load(&token).await.unwrap();
        assert_eq!(
            (stored.data().is_verified, &*stored.data().username),
            (true, "eve")
        );
    }
}

#[tokio::test]
async fn what_is_rotated_goes_on_under_the_new_token_alone() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let mut session = log_in(store).await;
        let old = session.token().clone();

        store.rotate(&mut session).await.unwrap();

        assert!(session.is_reissued());
        let gone = store.load(&old).await;
        assert!(matches!(gone, Err(SessionError::NotFound)), "{gone:?}");
        assert_eq!(
            store.load(session.token()).await.unwrap().data().username,
            "ada"
        );
        assert_eq!(store.list_user("42").await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn all_sessions_of_a_user_end_at_once_but_the_one_that_is_kept() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(log_in(store).await);
        }
        let kept = sessions.pop().unwrap();

        let ended = store.destroy_user("42", Some(kept.token())).await.unwrap();

        assert_eq!(ended, 2);
        for session in &sessions {
            assert!(store.load(session.token()).await.is_err());
        }
        assert!(store.load(kept.token()).await.is_ok());
        assert_eq!(store.destroy_user("42", None).await.unwrap(), 1);
        assert!(store.list_user("42").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_session_that_would_end_first_makes_room() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let first = log_in(store).await;
        for _ in 0..49 {
            bench.clock.advance(Duration::from_millis(1));
            log_in(store).await;
        }
        assert!(store.load(first.token()).await.is_ok());

        bench.clock.advance(Duration::from_millis(1));
        let last = log_in(store).await;

        assert_eq!(store.list_user("42").await.unwrap().len(), 50);
        assert!(store.load(last.token()).await.is_ok());
        // It was used, so another one was the next to end.
        assert!(store.load(first.token()).await.is_ok());
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
async fn a_token_that_was_planted_before_a_login_is_worth_nothing_afterwards() {
    for bench in Bench::both().await {
        let store = &bench.store;
        for victim in [42, 666] {
            let planted = log_in_as(store, 666).await;

            let new = NewSession::new(victim, "ada");
            let session = store
                .create_instead(new, Some(planted.token()))
                .await
                .unwrap();

            assert_ne!(session.id(), planted.id());
            assert_refused!(store.load(planted.token()).await, SessionError::NotFound);
            let loaded = store.load(session.token()).await.unwrap();
            assert_eq!(loaded.data().user_id, victim.to_string());
        }
    }
}

#[tokio::test]
async fn a_session_does_not_change_its_user() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let mut session = log_in(store).await;
        session.data_mut().user_id = "1".to_owned();

        assert_refused!(store.save(&mut session).await, SessionError::Invalid(_));
        assert_refused!(store.rotate(&mut session).await, SessionError::Invalid(_));

        assert_eq!(
            store.load(session.token()).await.unwrap().data().user_id,
            "42"
        );
        assert!(store.list_user("1").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_was_ended_while_a_slow_request_worked_stays_ended() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let session = log_in(store).await;
        let mut slow = store.load(session.token()).await.unwrap();
        slow.data_mut().is_verified = true;

        store.destroy(session.token()).await.unwrap();

        assert_refused!(store.save(&mut slow).await, SessionError::Gone);
        assert_refused!(store.update(&mut slow, |_| {}).await, SessionError::Gone);
        assert_refused!(store.rotate(&mut slow).await, SessionError::Gone);
        assert_refused!(store.load(slow.token()).await, SessionError::NotFound);
        assert!(store.list_user("42").await.unwrap().is_empty());
        store.destroy(session.token()).await.unwrap();
    }
}

#[tokio::test]
async fn a_change_is_not_lost_when_a_rotation_meets_a_save() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let token = log_in(store).await.token().clone();
        let mut ours = store.load(&token).await.unwrap();
        let mut others = store.load(&token).await.unwrap();
        others.data_mut().username = "eve".to_owned();
        store.save(&mut others).await.unwrap();

        // What was not changed here is loaded again, and goes on under the new token with what was saved.
        store.rotate(&mut ours).await.unwrap();
        assert_eq!(ours.data().username, "eve");

        // What was changed here cannot be kept, and that is said.
        let mut ours = store.load(ours.token()).await.unwrap();
        let mut others = store.load(ours.token()).await.unwrap();
        store.save(&mut others).await.unwrap();
        ours.data_mut().is_verified = true;
        assert_refused!(store.rotate(&mut ours).await, SessionError::Conflict);
        store
            .update(&mut ours, |data| data.is_verified = true)
            .await
            .unwrap();
        store.rotate(&mut ours).await.unwrap();
        assert!(store.load(ours.token()).await.unwrap().data().is_verified);
    }
}

#[tokio::test]
async fn what_is_changed_before_a_rotation_is_stored_with_it() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let mut session = log_in(store).await;
        session.data_mut().is_verified = true;

        store.rotate(&mut session).await.unwrap();

        assert!(
            store
                .load(session.token())
                .await
                .unwrap()
                .data()
                .is_verified
        );
    }
}

#[tokio::test]
async fn a_login_of_a_user_with_all_sessions_replaces_its_own_and_no_other() {
    for bench in Bench::both_with(|config| config.sessions_per_user(2)).await {
        let store = &bench.store;
        let (former, other) = (log_in(store).await, log_in(store).await);

        let new = NewSession::new(42, "ada");
        store
            .create_instead(new, Some(former.token()))
            .await
            .unwrap();

        assert_refused!(store.load(former.token()).await, SessionError::NotFound);
        assert!(store.load(other.token()).await.is_ok());
    }
}

#[tokio::test]
async fn a_list_has_what_has_not_ended_the_first_to_end_first() {
    for bench in Bench::both().await {
        let (store, clock) = (&bench.store, &bench.clock);
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(log_in(store).await.id());
            clock.advance(HOUR);
        }

        clock.advance(DAY - 5 * HOUR - millis(1));
        for ended in 0..=5 {
            let listed = store.list_user("42").await.unwrap();
            let listed: Vec<_> = listed.into_iter().map(|session| session.id).collect();
            assert_eq!(listed, ids[ended.min(5)..], "after {ended} ended");
            // One millisecond later the next one has ended.
            clock.advance(if ended == 0 { millis(1) } else { HOUR });
        }
        assert_eq!(store.destroy_user("42", None).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_listed_session_can_be_ended_by_its_name_by_its_user_alone() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let (session, stays) = (log_in(store).await, log_in(store).await);

        let listed = store.list_user("42").await.unwrap();
        let mut expiries: Vec<_> = listed.iter().map(|session| session.expires_at).collect();
        expiries.dedup();
        assert_eq!(expiries, [session.expires_at()]);
        for (user, id) in [
            ("1", session.id()),
            ("42", "nonsense".to_owned()),
            ("42", String::new()),
        ] {
            assert!(!store.destroy_listed(user, &id).await.unwrap());
        }
        assert!(store.load(session.token()).await.is_ok());
        assert!(store.destroy_listed("42", &session.id()).await.unwrap());
        assert!(!store.destroy_listed("42", &session.id()).await.unwrap());
        assert_refused!(store.load(session.token()).await, SessionError::NotFound);
        assert!(store.load(stays.token()).await.is_ok());
    }
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
async fn another_user_has_another_session_and_another_token() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let former = log_in_as(store, 1).await;

        let session = store
            .create_instead(NewSession::new(2, "bob"), Some(former.token()))
            .await
            .unwrap();

        assert_ne!(session.id(), former.id());
        assert_ne!(session.token(), former.token());
        assert!(session.is_reissued());
        assert!(store.list_user("1").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn all_keys_of_a_user_are_in_one_slot_and_in_no_other_users() {
    let bench = Bench::new().await;
    let slots = || {
        let slot = |key: String| {
            let (_, rest) = key.split_once('{').unwrap();
            rest.split_once('}').unwrap().0.to_owned()
        };
        let mut slots: Vec<_> = bench.keys().into_iter().map(slot).collect();
        slots.sort();
        slots.dedup();
        slots
    };
    let mut session = log_in(&bench.store).await;
    log_in(&bench.store).await;
    bench.store.rotate(&mut session).await.unwrap();
    // Two sessions, their set, and what the one that was renamed is called now.
    assert_eq!(bench.keys().len(), 4);
    assert_eq!(slots().len(), 1);

    // Whatever the id is: it is a user's choice in some services.
    for user in ["{42}", "}{", "42}", "", " 42", "42\0", "42\n"] {
        let begun = bench.store.create(NewSession::new(user, "ada")).await;
        assert_eq!(begun.is_err(), user.is_empty());
    }
    assert_eq!(slots().len(), 7);
}

#[tokio::test]
async fn what_one_process_ends_every_other_one_refuses_at_once() {
    let bench = Bench::new().await;
    let other_process = bench.another().await;
    let mut sessions = Vec::new();
    for _ in 0..50 {
        let session = log_in(&bench.store).await;
        assert!(other_process.load(session.token()).await.is_ok());
        sessions.push(session);
    }

    assert_eq!(bench.store.destroy_user("42", None).await.unwrap(), 50);

    for session in &mut sessions {
        assert_refused!(other_process.save(session).await, SessionError::Gone);
        assert_refused!(
            other_process.load(session.token()).await,
            SessionError::NotFound
        );
    }
    assert_eq!(bench.keys(), [""; 0]);
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
async fn who_ends_a_session_under_its_old_name_ends_what_it_became_within_a_minute() {
    for bench in Bench::both().await {
        let store = &bench.store;
        for seconds in [0, 59, 61] {
            let mut session = log_in(store).await;
            let first = session.token().clone();
            store.rotate(&mut session).await.unwrap();
            let second = session.token().clone();
            store.rotate(&mut session).await.unwrap();
            bench.clock.advance(Duration::from_secs(seconds));

            store.destroy(&first).await.unwrap();
            let is_alive = store.load(session.token()).await.is_ok();
            assert_eq!(is_alive, seconds > 60, "{seconds}");
            // No old token is of any other use.
            for old in [&first, &second] {
                let refused = store.load(old).await;
                assert!(
                    matches!(refused, Err(SessionError::NotFound)),
                    "{refused:?}"
                );
            }
            store.destroy_user("42", None).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_login_replaces_what_the_former_session_has_become() {
    for bench in Bench::both().await {
        let store = &bench.store;
        for user in ["42", "43"] {
            let mut former = log_in(store).await;
            let sent = former.token().clone();
            store.rotate(&mut former).await.unwrap();

            let new = NewSession::new(user, "eve");
            store.create_instead(new, Some(&sent)).await.unwrap();

            let refused = store.load(former.token()).await;
            assert!(
                matches!(refused, Err(SessionError::NotFound)),
                "{refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_session_that_is_spared_may_be_named_by_the_token_it_had() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let mut session = log_in(store).await;
        let other = log_in(store).await;
        let old = session.token().clone();
        store.rotate(&mut session).await.unwrap();

        assert_eq!(store.destroy_user("42", Some(&old)).await.unwrap(), 1);

        assert!(store.load(session.token()).await.is_ok());
        assert!(store.load(other.token()).await.is_err());
    }
}

#[tokio::test]
async fn data_that_could_not_be_read_back_is_refused_and_changes_nothing() {
    let bench = Bench::in_memory_with(|config| config);
    let cache = &bench.store.inner.backend.cache;
    let store = SessionStore::<Vec<f64>>::new(cache).unwrap();
    let new = |number| NewSession::new(42, "ada").extension(vec![number]);
    assert_refused!(store.create(new(f64::NAN)).await, SessionError::Invalid(_));

    let mut session = store.create(new(1.0)).await.unwrap();
    let refused = store
        .update(&mut session, |data| data.extension.push(f64::INFINITY))
        .await;

    assert!(
        matches!(refused, Err(SessionError::Invalid(_))),
        "{refused:?}"
    );
    assert_eq!(session.data().extension, [1.0]);
    let stored = store.load(session.token()).await.unwrap();
    assert_eq!(stored.data().extension, [1.0]);
}

#[tokio::test]
async fn data_that_is_nested_too_deep_to_be_read_back_is_refused() {
    let bench = Bench::in_memory_with(|config| config);
    let store = SessionStore::<serde_json::Value>::new(&bench.store.inner.backend.cache).unwrap();
    let nested =
        |depth| (0..depth).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));

    let session = store
        .create(NewSession::new(42, "ada").extension(nested(126)))
        .await;
    assert!(store.load(session.unwrap().token()).await.is_ok());
    assert_refused!(
        store
            .create(NewSession::new(42, "ada").extension(nested(127)))
            .await,
        SessionError::Invalid(_)
    );
}
