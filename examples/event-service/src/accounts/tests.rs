//! Each test has its own users, because all tests share the installed cache.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use cache_runtime::Cache;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::events::Events;
use crate::page::Page;
use crate::tickets::{Status, Tickets};
use crate::users::Users;

/// The cost of Argon2id that OWASP recommends.
const COST: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

/// Longer than any test waits for its turn to hash.
const A_LONG_TIME: Duration = Duration::from_secs(60);

/// Longer than a query takes on a busy machine.
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn the_right_password_returns_its_user() {
    let accounts = accounts().await;

    for id in [1, 42, 200] {
        let user = log_in(&accounts, id, id).await.expect("the right password");

        assert_eq!(user.id, id);
        assert_eq!(user.email, format!("user{id}@example.com"));
    }
}

#[tokio::test]
async fn a_wrong_password_returns_no_user() {
    let accounts = accounts().await;

    let with_anothers = log_in(&accounts, 2, 3).await;
    let with_upper_case = accounts.log_in("user2", &secret("Password2")).await;
    let with_more = accounts.log_in("user2", &secret("password2 ")).await;

    assert!(with_anothers.is_none());
    assert!(with_upper_case.expect("no error").is_err());
    assert!(with_more.expect("no error").is_err());
}

#[tokio::test]
async fn an_unknown_name_returns_no_user() {
    let accounts = accounts().await;

    let user = log_in(&accounts, 201, 201).await;

    assert!(user.is_none());
}

#[tokio::test]
async fn a_user_without_credentials_cannot_log_in() {
    let accounts = accounts().await;
    let add =
        "INSERT INTO users (id, name, email, bio) VALUES (201, 'New', 'user201@example.com', '')";
    execute(&accounts, add).await;

    let user = log_in(&accounts, 201, 201).await;

    assert!(user.is_none());
}

#[tokio::test]
async fn an_unknown_name_costs_a_hash_like_a_wrong_password() {
    let accounts = accounts().await;
    let _turns = all_turns(&accounts).await;

    for name in ["user4", "nobody"] {
        let password = secret("wrong");
        let answer = timeout(A_WHILE, accounts.log_in(name, &password)).await;

        assert!(answer.is_err(), "{name}: {answer:?}");
    }
}

#[test]
fn the_hash_for_unknown_names_costs_as_much_as_others() {
    assert!(NOBODYS.starts_with(COST));
}

#[tokio::test]
async fn every_seeded_user_has_a_hash_with_its_own_salt() {
    let hashes = hashes(&accounts().await).await;

    let salts = hashes.iter().map(|hash| {
        let rest = hash.strip_prefix(COST).expect("one cost for all");
        rest.split('$').next().expect("a salt")
    });
    let mut salts: Vec<_> = salts.collect();
    salts.sort_unstable();
    salts.dedup();
    assert_eq!((hashes.len(), salts.len()), (200, 200));
}

#[tokio::test]
async fn empty_and_overlong_input_is_refused_without_a_hash() {
    let accounts = accounts().await;
    let _turns = all_turns(&accounts).await;
    let (name, password) = ("é".repeat(65), "x".repeat(1025));
    let cases = [
        ("", "password5", "username"),
        (&name, "password5", "username"),
        ("user5", "", "password"),
        ("user5", &password, "password"),
    ];

    for (name, password, blamed) in cases {
        let password = secret(password);
        let refused = timeout(A_WHILE, accounts.log_in(name, &password)).await;

        let Ok(Err(Error::Refused { status, field, .. })) = refused else {
            panic!("{blamed}: {refused:?}")
        };
        assert_eq!((status.as_u16(), field.as_deref()), (422, Some(blamed)));
    }
}

#[tokio::test]
async fn the_longest_name_and_password_are_checked() {
    let accounts = accounts().await;

    let answer = accounts
        .log_in(&"é".repeat(64), &secret(&"x".repeat(1024)))
        .await;

    assert!(answer.expect("no error").is_err());
}

#[tokio::test]
async fn a_login_evicts_only_entries_of_the_user() {
    let accounts = accounts().await;
    let (user, other) = (60, 61);
    fill(&accounts, user).await;
    fill(&accounts, other).await;

    log_in(&accounts, user, user)
        .await
        .expect("the right password");

    assert_eq!(cached(user).await, [false; 6]);
    assert_eq!(cached(other).await, [true; 6]);
}

#[tokio::test]
async fn a_failed_login_evicts_nothing() {
    let accounts = accounts().await;
    fill(&accounts, 62).await;

    log_in(&accounts, 62, 63).await;
    accounts
        .log_in("user62", &secret(""))
        .await
        .expect_err("no password");

    assert_eq!(cached(62).await, [true; 6]);
}

#[tokio::test]
async fn a_login_reads_the_database_and_not_the_cache() {
    let accounts = accounts().await;
    fill(&accounts, 64).await;
    execute(&accounts, "UPDATE users SET name = 'New' WHERE id = 64").await;

    let user = log_in(&accounts, 64, 64).await.expect("the right password");

    assert_eq!(user.name, "New");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_concurrent_logins_get_their_own_users() {
    let accounts = accounts().await;

    let mut logins = JoinSet::new();
    for id in 101..=120 {
        let accounts = accounts.clone();
        logins.spawn(async move { (id, log_in(&accounts, id, id).await.map(|user| user.id)) });
    }
    let users = logins.join_all().await;

    assert_eq!(users.len(), 20);
    for (id, user) in users {
        assert_eq!(user, Some(id));
    }
}

#[tokio::test]
async fn at_most_one_hash_per_core_is_computed_at_a_time() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    let accounts = accounts().await;

    let mut all = JoinSet::new();
    for _ in 0..4 * cores() {
        let accounts = accounts.clone();
        let work = |_: &mut _| {
            let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
            thread::sleep(Duration::from_millis(5));
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            running
        };
        all.spawn(async move { accounts.in_turn(work).await.expect("it runs") });
    }
    let most = all.join_all().await.into_iter().max();

    assert!(most <= Some(cores()), "{most:?}");
}

#[tokio::test]
async fn a_login_that_waits_too_long_is_told_to_retry() {
    let mut accounts = accounts().await;
    accounts.patience = Duration::from_millis(20);
    let turns = all_turns(&accounts).await;

    let refused = accounts.log_in("user68", &secret("password68")).await;
    drop(turns);
    let later = accounts.log_in("user68", &secret("password68")).await;

    assert!(
        matches!(refused, Err(Error::Busy { retry_after: 5, .. })),
        "{refused:?}"
    );
    assert_eq!(later.expect("no error").expect("the password").id, 68);
}

#[tokio::test]
async fn a_wrong_password_identifies_the_account() {
    let accounts = accounts().await;

    let with_account = accounts.log_in("user69", &secret("wrong")).await;
    let without = accounts.log_in("nobody", &secret("wrong")).await;

    let user_id = |login: Result<Result<User, Wrong>>| {
        login.expect("no error").err().map(|wrong| wrong.user_id)
    };
    assert_eq!(user_id(with_account), Some(Some(69)));
    assert_eq!(user_id(without), Some(None));
}

#[tokio::test]
async fn a_cancelled_login_keeps_its_turn_until_its_hash_is_done() {
    let accounts = accounts().await;
    let free = accounts.turns.available_permits();
    let (end, ended) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    let work = move |_: &mut _| {
        begin.send(()).expect("the test waits");
        ended.recv().expect("the test sends the end");
    };
    let caller = tokio::spawn({
        let accounts = accounts.clone();
        async move { accounts.in_turn(work).await }
    });
    task::spawn_blocking(move || begun.recv().expect("it begins"))
        .await
        .expect("no panic");

    caller.abort();
    assert!(caller.await.is_err_and(|end| end.is_cancelled()));

    assert_eq!(accounts.turns.available_permits(), free - 1);
    end.send(()).expect("the hash still runs");
    let all = timeout(Duration::from_secs(10), all_turns(&accounts)).await;
    assert!(all.is_ok(), "the turn ends");
}

#[tokio::test]
async fn an_unreadable_hash_is_a_server_error_and_evicts_nothing() {
    let accounts = accounts().await;
    fill(&accounts, 65).await;
    let spoil = "UPDATE credentials SET password_hash = 'password65' WHERE user_id = 65";
    execute(&accounts, spoil).await;

    let failed = accounts.log_in("user65", &secret("password65")).await;

    let failed = failed.expect_err("no such hash");
    assert!(matches!(failed, Error::Internal(_)), "{failed:?}");
    assert!(!format!("{failed:?}").contains("password65"), "{failed:?}");
    assert_eq!(cached(65).await, [true; 6]);
}

#[test]
fn a_truncated_hash_is_a_server_error() {
    let (without_end, _) = NOBODYS.rsplit_once('$').expect("a hash at the end");

    let failed = verify(&secret("password67"), without_end, &mut Vec::new());

    assert_eq!(failed, Err(password_hash::Error::EncodingInvalid));
}

/// The hashes are those of `password` in the tests of the reference implementation.
#[test]
fn one_buffer_serves_hashes_of_any_cost() {
    let small = "$argon2d$v=16$m=32,t=2,p=3,data=Dw8PDw8P$AAAAAAAAAAA$KnH4gniiaFnDvlA1xev3yovC4cnrrI6tnHOYtmja90o";
    let large =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    let mut memory = Vec::new();

    for hash in [small, large, small, large] {
        for (password, is_right) in [("password", true), ("sassword", false)] {
            let verified = verify(&secret(password), hash, &mut memory);

            assert_eq!(verified, Ok(is_right), "{password}: {hash}");
        }
    }
}

#[tokio::test]
async fn passwords_and_hashes_are_not_logged() {
    let accounts = accounts().await;
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer({
            let log = log.clone();
            move || log.clone()
        });
    let logging = tracing::subscriber::set_default(subscriber.finish());

    tracing::info!("the log is captured");
    for password in ["password66", "hunter66"] {
        let _ = accounts.log_in("user66", &secret(password)).await;
    }

    drop(logging);
    let log = log.0.lock().expect("no panic").clone();
    let log = String::from_utf8(log).expect("UTF-8");
    assert!(log.contains("the log is captured"));
    for secret in ["password66", "hunter66", COST] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn accounts() -> Accounts {
    LazyLock::force(&CACHE);
    Accounts::new(
        Db::open(None, Duration::ZERO).await.expect("a database"),
        A_LONG_TIME,
    )
}

static CACHE: LazyLock<Cache> = LazyLock::new(|| {
    let cache = Cache::memory();
    cache.install().expect("no other cache");
    cache
});

/// Logs in with the password of another user.
async fn log_in(accounts: &Accounts, id: i64, with_password_of: i64) -> Option<User> {
    let password = secret(&format!("password{with_password_of}"));
    let user = accounts.log_in(&format!("user{id}"), &password).await;
    user.expect("no error").ok()
}

fn secret(password: &str) -> Sensitive<String> {
    password.to_owned().into()
}

/// Takes all turns, as if the maximum number of hashes were being computed.
async fn all_turns(accounts: &Accounts) -> impl Sized {
    let turns = Arc::clone(&accounts.turns);
    let all = turns.acquire_many_owned(cores().try_into().expect("a small number of cores"));
    all.await.expect("the semaphore is open")
}

async fn hashes(accounts: &Accounts) -> Vec<String> {
    let hashes = sqlx::query_scalar("SELECT password_hash FROM credentials");
    hashes.fetch_all(accounts.db.write()).await.expect("hashes")
}

async fn execute(accounts: &Accounts, statement: &'static str) {
    let done = sqlx::query(statement).execute(accounts.db.write()).await;
    assert_eq!(done.expect("a statement").rows_affected(), 1);
}

/// Reads everything that is cached about a user.
async fn fill(accounts: &Accounts, id: i64) {
    let db = &accounts.db;
    let (users, events) = (Users::new(db.clone()), Events::new(db.clone()));
    users.find(id).await.expect("a profile");
    users.followers(id).await.expect("a count");
    let page = Page::default();
    events.organized_by(id, page).await.expect("events");
    events.all_organized_by(id, page).await.expect("events");
    let tickets = Tickets::new(db.clone());
    tickets.of_user(id).await.expect("tickets");
    let used = tickets.of_user_with(id, Status::Used).await;
    used.expect("tickets");
    assert_eq!(cached(id).await, [true; 6]);
}

/// Returns which of the entries of `fill` are cached.
async fn cached(id: i64) -> [bool; 6] {
    [
        CACHE.exists(&format!("user:profile:{id}")).await,
        CACHE.exists(&format!("user:followers:{id}")).await,
        CACHE.exists(&format!("events:organizer:{id}:page:1")).await,
        CACHE
            .exists(&format!("events:organizer:{id}:all:page:1"))
            .await,
        CACHE.exists(&format!("ticket:user:{id}")).await,
        CACHE.exists(&format!("ticket:user:{id}:status:used")).await,
    ]
}
