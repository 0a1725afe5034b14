//! Sessions that get a new token.

use super::*;

on_a_cluster! {
    a_rotated_session_continues_only_under_the_new_token
    a_rotation_does_not_lose_a_concurrent_save
    a_rotation_stores_earlier_changes
    an_old_token_ends_the_rotated_session_for_1_min
    a_login_replaces_the_rotated_former_session
    an_old_token_can_name_the_session_to_keep
    a_logout_with_a_much_older_token_ends_the_session
    a_login_with_a_much_older_token_replaces_the_session
}

#[tokio::test]
async fn a_rotated_session_continues_only_under_the_new_token() {
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
async fn a_rotation_does_not_lose_a_concurrent_save() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let token = log_in(store).await.token().clone();
        let mut ours = store.load(&token).await.unwrap();
        let mut others = store.load(&token).await.unwrap();
        others.data_mut().username = "eve".to_owned();
        store.save(&mut others).await.unwrap();

        // An unchanged session is loaded again and continues under the new token with the saved data.
        store.rotate(&mut ours).await.unwrap();
        assert_eq!(ours.data().username, "eve");

        // A changed session cannot keep its change and returns an error.
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
async fn a_rotation_stores_earlier_changes() {
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
async fn an_old_token_ends_the_rotated_session_for_1_min() {
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
            // An old token is not accepted for anything else.
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
async fn a_login_replaces_the_rotated_former_session() {
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
async fn an_old_token_can_name_the_session_to_keep() {
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
async fn a_logout_with_a_much_older_token_ends_the_session() {
    for rotations in [1, 2, 16, 17, 18, 100] {
        for bench in Bench::both().await {
            let store = &bench.store;
            let mut session = log_in(store).await;
            let mut tokens = vec![session.token().clone()];
            for _ in 0..rotations {
                store.rotate(&mut session).await.unwrap();
                tokens.push(session.token().clone());
                bench.clock.advance(millis(500));
            }

            // Every old token leads to the session, not only the oldest.
            let sent = &tokens[rotations / 3];
            store.destroy_user("42", Some(sent)).await.unwrap();
            assert!(store.load(session.token()).await.is_ok(), "{rotations}");
            store.destroy(&tokens[0]).await.unwrap();

            assert_refused!(
                store.load(session.token()).await,
                SessionError::NotFound,
                "{rotations}"
            );
        }
    }
}

#[tokio::test]
async fn a_login_with_a_much_older_token_replaces_the_session() {
    for bench in Bench::both().await {
        let store = &bench.store;
        let mut session = log_in(store).await;
        let oldest = session.token().clone();
        for _ in 0..40 {
            store.rotate(&mut session).await.unwrap();
        }

        let new = NewSession::new(42, "ada");
        store.create_instead(new, Some(&oldest)).await.unwrap();

        assert_refused!(store.load(session.token()).await, SessionError::NotFound);
        assert_eq!(store.list_user("42").await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_forged_record_of_a_rotation_does_not_prevent_a_logout() {
    let bench = Bench::new().await;
    let store = &bench.store;
    let session = log_in(store).await;
    let mut intruder = Intruder::at(bench.server());
    let mark = bench.record(&session) + ":moved";
    let value = [&u64::MAX.to_be_bytes()[..], b"AAAAAAAAAAAAAAAAAAAAAA"].concat();
    let () = intruder.ask("SET", &[mark.as_bytes(), &value]);

    store.destroy(session.token()).await.unwrap();

    assert_refused!(store.load(session.token()).await, SessionError::NotFound);
}

#[tokio::test]
async fn records_of_old_names_expire_within_1_min() {
    let bench = Bench::with(|config| config.clock(Clock::default())).await;
    let store = &bench.store;
    let mut session = log_in(store).await;
    for _ in 0..20 {
        store.rotate(&mut session).await.unwrap();
    }

    for key in bench.keys() {
        let ttl: u64 = ask(bench.server(), &["PTTL", &key]);
        let is_session = key == bench.record(&session) || key == bench.index(&session);
        assert!(is_session || ttl <= 60_000, "{key} lives for {ttl} ms");
    }
}
