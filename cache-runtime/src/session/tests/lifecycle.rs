use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

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
    let server = bench.server.as_ref().unwrap();

    crate::store::support::until("all keys are gone", || {
        crate::store::support::ask::<i64>(server, &["DBSIZE"]) == 0
    })
    .await;
}
