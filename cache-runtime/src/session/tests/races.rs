//! Concurrent operations on one session.

use super::*;

on_a_cluster! {
    concurrent_updates_are_not_lost
    one_of_two_concurrent_rotations_succeeds
    a_concurrent_rotation_and_logout_leave_no_session
    a_concurrent_rotation_and_save_lose_nothing
    a_logout_everywhere_ends_earlier_sessions_and_spares_later_ones
}

#[tokio::test]
async fn concurrent_updates_are_not_lost() {
    for bench in Bench::both().await {
        let store: SessionStore<u32> = SessionStore::new(&bench.store.inner.backend.cache).unwrap();
        let new = NewSession::new(42, "ada").extension(0);
        let token = store.create(new).await.unwrap().token().clone();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (store, token) = (store.clone(), token.clone());
            tasks.spawn(async move {
                let mut session = store.load(&token).await.unwrap();
                loop {
                    match store.update(&mut session, |data| data.extension += 1).await {
                        // With this many concurrent updates it may lose 10 times and return an error.
                        Err(SessionError::Conflict) => session = store.load(&token).await.unwrap(),
                        outcome => return outcome.unwrap(),
                    }
                }
            });
        }

        tasks.join_all().await;

        assert_eq!(store.load(&token).await.unwrap().data().extension, 20);
    }
}

/// The number of rounds of a race. Either side may win a round.
const ROUNDS: u32 = 200;

/// Starts two tasks at the same time, in alternating order.
async fn race<A: Send + 'static, B: Send + 'static>(
    round: u32,
    one: impl Future<Output = A> + Send + 'static,
    other: impl Future<Output = B> + Send + 'static,
) -> (A, B) {
    let (one, other) = match round % 2 {
        0 => {
            let one = tokio::spawn(one);
            (one, tokio::spawn(other))
        }
        _ => {
            let other = tokio::spawn(other);
            (tokio::spawn(one), other)
        }
    };
    (one.await.unwrap(), other.await.unwrap())
}

async fn rotated(
    store: SessionStore,
    mut session: StoredSession,
) -> (Result<(), SessionError>, StoredSession) {
    (store.rotate(&mut session).await, session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_concurrent_rotations_succeeds() {
    for bench in Bench::both().await {
        let store = &bench.store;
        for round in 0..ROUNDS {
            let token = log_in_as(store, round).await.token().clone();
            let (one, other) = (
                store.load(&token).await.unwrap(),
                store.load(&token).await.unwrap(),
            );

            let rotations = race(
                round,
                rotated(store.clone(), one),
                rotated(store.clone(), other),
            )
            .await;

            let (done, refused) = match rotations {
                ((Ok(()), done), (refused, _)) | ((refused, _), (Ok(()), done)) => (done, refused),
                ((one, _), (other, _)) => panic!("{one:?} {other:?}"),
            };
            assert_refused!(refused, SessionError::Gone);
            assert!(store.load(done.token()).await.is_ok());
            assert_refused!(store.load(&token).await, SessionError::NotFound);
            assert_eq!(store.list_user(&round.to_string()).await.unwrap().len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrent_rotation_and_logout_leave_no_session() {
    for bench in Bench::both().await {
        let store = &bench.store;
        for round in 0..ROUNDS {
            let session = log_in_as(store, round).await;
            let (token, there) = (session.token().clone(), store.clone());
            let sent = token.clone();

            let logout = async move { there.destroy(&sent).await };
            let ((rotation, session), logout) =
                race(round, rotated(store.clone(), session), logout).await;

            logout.unwrap();
            assert_refused!(store.load(&token).await, SessionError::NotFound);
            assert_refused!(store.load(session.token()).await, SessionError::NotFound);
            assert!(
                matches!(rotation, Ok(()) | Err(SessionError::Gone)),
                "{rotation:?}"
            );
            let listed = store.list_user(&round.to_string()).await.unwrap();
            assert!(listed.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrent_rotation_and_save_lose_nothing() {
    for bench in Bench::both().await {
        let store = &bench.store;
        for round in 0..ROUNDS {
            let token = log_in_as(store, round).await.token().clone();
            let (one, mut other) = (
                store.load(&token).await.unwrap(),
                store.load(&token).await.unwrap(),
            );
            other.data_mut().username = "eve".to_owned();
            let there = store.clone();

            let save = async move { there.save(&mut other).await };
            let ((rotation, session), save) = race(round, rotated(store.clone(), one), save).await;

            rotation.unwrap();
            assert_eq!(store.list_user(&round.to_string()).await.unwrap().len(), 1);
            let stored = store.load(session.token()).await.unwrap();
            match save {
                Ok(()) => assert_eq!(stored.data().username, "eve"),
                Err(SessionError::Gone) => assert_eq!(stored.data().username, "ada"),
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_everywhere_ends_earlier_sessions_and_spares_later_ones() {
    for bench in Bench::both().await {
        let store = &bench.store;
        for round in 0..ROUNDS / 4 {
            let user = round.to_string();
            let before = log_in_as(store, round).await;
            let (here, there) = (store.clone(), store.clone());
            let everywhere = user.clone();

            let login = async move { log_in_as(&here, round).await };
            let logout = async move { there.destroy_user(&everywhere, None).await.unwrap() };
            let (meanwhile, ended) = race(round, login, logout).await;
            let after = log_in_as(store, round).await;

            assert_refused!(store.load(before.token()).await, SessionError::NotFound);
            assert!(store.load(after.token()).await.is_ok());
            let is_alive = store.load(meanwhile.token()).await.is_ok();
            assert_eq!(ended, 1 + usize::from(!is_alive));
            assert_eq!(
                store.list_user(&user).await.unwrap().len(),
                1 + usize::from(is_alive)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_logins_leave_fifty_sessions() {
    let bench = Bench::new().await;
    let store = &bench.store;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..500 {
                log_in(&store).await;
            }
        });
    }

    tasks.join_all().await;

    let last = log_in(store).await;
    assert_eq!(
        ask::<u64>(bench.server(), &["ZCARD", &bench.index(&last)]),
        50
    );
    assert_eq!(ask::<u64>(bench.server(), &["DBSIZE"]), 51);
    let stats = store.inner.backend.cache.stats().sessions;
    assert_eq!((stats.created, stats.displaced), (10_001, 9_951));
}
