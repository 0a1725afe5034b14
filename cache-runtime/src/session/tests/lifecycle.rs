//! The lifecycle of sessions.

use super::*;

on_a_cluster! {
    the_second_of_two_saves_from_one_revision_is_a_conflict
    destroy_user_ends_all_sessions_except_the_kept_session
    a_login_above_the_limit_replaces_the_session_that_ends_first
    a_token_from_before_a_login_is_invalid_after_it
    a_session_cannot_change_its_user
    a_slow_request_cannot_revive_an_ended_session
    a_login_at_the_limit_replaces_only_its_own_former_session
    a_list_contains_active_sessions_in_the_order_of_their_end
    only_its_user_can_end_a_listed_session_by_id
    another_user_has_another_session_and_another_token
}

#[tokio::test]
async fn the_second_of_two_saves_from_one_revision_is_a_conflict() {
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
async fn destroy_user_ends_all_sessions_except_the_kept_session() {
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
async fn a_login_above_the_limit_replaces_the_session_that_ends_first() {
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
        // It was used, so another session was the next to end.
        assert!(store.load(first.token()).await.is_ok());
    }
}

#[tokio::test]
async fn a_token_from_before_a_login_is_invalid_after_it() {
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
async fn a_session_cannot_change_its_user() {
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
async fn a_slow_request_cannot_revive_an_ended_session() {
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
async fn a_login_at_the_limit_replaces_only_its_own_former_session() {
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
async fn a_list_contains_active_sessions_in_the_order_of_their_end() {
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
            // The next session ends 1 ms later.
            clock.advance(if ended == 0 { millis(1) } else { HOUR });
        }
        assert_eq!(store.destroy_user("42", None).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn only_its_user_can_end_a_listed_session_by_id() {
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
async fn all_keys_of_a_user_are_in_one_slot_under_their_own_hash_tag() {
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
    // Two sessions, their set, and three records of names: from the old name to the first, from the first to the current, and
    // from the current back to the first.
    assert_eq!(bench.keys().len(), 6);
    assert_eq!(slots().len(), 1);

    // For any id: in some services users choose their ids.
    for user in ["{42}", "}{", "42}", "", " 42", "42\0", "42\n"] {
        let begun = bench.store.create(NewSession::new(user, "ada")).await;
        assert_eq!(begun.is_err(), user.is_empty());
    }
    assert_eq!(slots().len(), 7);
}

#[tokio::test]
async fn a_session_ended_by_one_process_is_refused_by_all() {
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
async fn data_that_serde_changes_is_refused() {
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
async fn data_that_is_nested_too_deeply_is_refused() {
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
