//! A Redis user without some permissions.

use super::*;

/// The commands that the session scripts use.
const COMMANDS: [&str; 11] = [
    "get",
    "set",
    "del",
    "zadd",
    "zrem",
    "zscore",
    "zrange",
    "zcard",
    "zremrangebyscore",
    "pexpireat",
    "time",
];

/// Revokes the permission for a command, or grants it.
fn allow(server: &RedisServer, command: &str, is_allowed: bool) {
    let sign = if is_allowed { '+' } else { '-' };
    let rule = format!("{sign}{command}");
    // The reply comes on a connection that may still run the command.
    let () = ask(server, &["ACL", "SETUSER", "app", &rule]);
}

/// A store with the clock of the server, so that scripts call `TIME`.
async fn bench() -> Bench {
    Bench::with(|config| config.clock(Clock::default())).await
}

/// Asserts that a call succeeds or is unavailable. Returns whether it succeeded.
fn unknown_or_done<T: fmt::Debug>(told: &str, outcome: Result<T, SessionError>) -> bool {
    let is_fine = matches!(outcome, Ok(_) | Err(SessionError::Unavailable(_)));
    assert!(is_fine, "{told}: {outcome:?}");
    outcome.is_ok()
}

#[tokio::test]
async fn a_missing_permission_ends_no_session_and_reports_no_logout() {
    let bench = bench().await;
    let (server, store) = (bench.server(), &bench.store);
    for command in COMMANDS {
        let told = format!("without {command}");
        let mut session = log_in(store).await;
        let other = log_in(store).await;
        let mut another = log_in(store).await;
        store.rotate(&mut another).await.unwrap();
        allow(server, command, false);

        unknown_or_done(&told, store.load(session.token()).await);
        unknown_or_done(&told, store.list_user("42").await);
        unknown_or_done(&told, store.save(&mut session).await);
        unknown_or_done(&told, store.rotate(&mut session).await);
        let new = NewSession::new(42, "ada");
        let replaced = store.create_instead(new, Some(other.token())).await;
        let is_replaced = unknown_or_done(&told, replaced);

        // A failed call changes nothing.
        allow(server, command, true);
        assert!(store.load(session.token()).await.is_ok(), "{told}");
        assert_eq!(
            store.load(other.token()).await.is_err(),
            is_replaced,
            "{told}"
        );
        let rotated = store.load(another.token()).await;
        assert!(rotated.is_ok(), "{told}: {rotated:?}");

        // A failed revocation of other sessions changes nothing either.
        allow(server, command, false);
        let began = Some(another.data().created_at - 1);
        let (tag, which) = (
            another.token().place().tag,
            Which::Others {
                except: None,
                began,
            },
        );
        let ended = store.inner.backend.destroy(tag, which).await;
        allow(server, command, true);
        let left = store.list_user("42").await.unwrap().len();
        assert!(ended.is_ok() || left > 0, "{told}: {ended:?}");
        assert!(store.load(another.token()).await.is_ok(), "{told}");

        // A logout is applied or pending.
        allow(server, command, false);
        let is_done = unknown_or_done(&told, store.destroy(session.token()).await);
        assert_refused!(
            store.load(session.token()).await,
            SessionError::NotFound | SessionError::Unavailable(_),
            "{told}"
        );
        allow(server, command, true);
        assert_refused!(
            store.load(session.token()).await,
            SessionError::NotFound,
            "{told}"
        );
        until("the logout reaches Redis", || {
            is_done || store.inner.revocations.is_empty()
        })
        .await;
        assert_refused!(
            bench.another().await.load(session.token()).await,
            SessionError::NotFound,
            "{told}"
        );
        store.destroy_user("42", None).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_permission_leaves_no_key_without_an_expiry() {
    let bench = bench().await;
    let (server, store) = (bench.server(), &bench.store);
    for command in COMMANDS {
        let mut session = log_in(store).await;
        allow(server, command, false);
        let _ = store.create(NewSession::new(42, "ada")).await;
        let _ = store.rotate(&mut session).await;
        allow(server, command, true);

        for key in bench.keys() {
            let ttl: i64 = ask(server, &["PTTL", &key]);
            assert!(ttl > 0, "without {command}: {key} has no end");
        }
    }
}
