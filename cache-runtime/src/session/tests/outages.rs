//! Redis that is unavailable, slow, or restarted without its data.

use super::super::place::UserTag;
use super::*;

/// How much later than its deadline an answer may be on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);

/// A server that keeps its sessions when it is killed.
async fn lasting() -> Bench {
    let server = server_with_user(&["--appendonly", "yes", "--appendfsync", "always"]);
    let clock = Clock::stopped();
    let config = config(&server).clock(clock.clone()).session_keys(keys(KEY));
    Bench {
        store: store(as_user(config)).await,
        server: Some(server),
        clock,
    }
}

impl Bench {
    fn kill(&mut self) {
        self.server.as_mut().unwrap().kill();
    }

    fn restart(&mut self) {
        self.server.as_mut().unwrap().restart().unwrap();
    }

    /// Waits until all pending revocations have reached Redis.
    async fn told(&self) {
        until("all revocations have reached Redis", || {
            self.store.inner.revocations.is_empty()
        })
        .await;
    }
}

/// Waits until the store uses Redis again.
async fn available(store: &SessionStore) {
    let began = Instant::now();
    while store.list_user("nobody").await.is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "Redis is not used again"
        );
        tokio::time::sleep(millis(5)).await;
    }
}

#[tokio::test]
async fn every_call_is_unavailable_in_time_during_an_outage() {
    let mut bench = lasting().await;
    let mut session = log_in(&bench.store).await;
    let token = session.token().clone();
    bench.kill();
    let (store, began) = (&bench.store, Instant::now());

    // The first call notices the outage, and the others know of it. All return the same.
    for _ in 0..2 {
        assert_refused!(store.load(&token).await, SessionError::Unavailable(_));
        assert_refused!(store.save(&mut session).await, SessionError::Unavailable(_));
        assert_refused!(
            store.update(&mut session, |_| {}).await,
            SessionError::Unavailable(_)
        );
        assert_refused!(
            store.rotate(&mut session).await,
            SessionError::Unavailable(_)
        );
        assert_refused!(
            store.create(NewSession::new(42, "ada")).await,
            SessionError::Unavailable(_)
        );
        assert_refused!(store.list_user("42").await, SessionError::Unavailable(_));
        let unavailable = store.load(&token).await.unwrap_err();
        assert!(!unavailable.is_logged_out());
    }

    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    bench.restart();
    available(&bench.store).await;
    let still = bench.store.load(&token).await.unwrap();
    assert_eq!((still.token(), still.id()), (session.token(), session.id()));
}

#[tokio::test]
async fn any_call_can_be_the_first_to_notice_an_outage() {
    for call in [
        "load",
        "save",
        "rotate",
        "create",
        "list",
        "destroy",
        "destroy_user",
    ] {
        let mut bench = Bench::new().await;
        let mut session = log_in(&bench.store).await;
        let token = session.token().clone();
        bench.kill();

        let store = &bench.store;
        let outcome = match call {
            "load" => store.load(&token).await.map(drop),
            "save" => store.save(&mut session).await,
            "rotate" => store.rotate(&mut session).await,
            "create" => store.create(NewSession::new(42, "ada")).await.map(drop),
            "list" => store.list_user("42").await.map(drop),
            "destroy" => store.destroy(&token).await,
            _ => store.destroy_user("42", None).await.map(drop),
        };

        assert_refused!(outcome, SessionError::Unavailable(_), "{call}");
    }
}

#[tokio::test]
async fn a_failed_change_does_not_change_the_session_in_redis() {
    let mut bench = lasting().await;
    let mut session = log_in(&bench.store).await;
    let token = session.token().clone();
    session.data_mut().is_verified = true;
    bench.kill();
    assert_refused!(
        bench.store.save(&mut session).await,
        SessionError::Unavailable(_)
    );
    assert_refused!(
        bench.store.rotate(&mut session).await,
        SessionError::Unavailable(_)
    );
    assert_eq!(session.token(), &token, "the session keeps its token");

    bench.restart();
    available(&bench.store).await;

    assert!(!bench.store.load(&token).await.unwrap().data().is_verified);
    bench.store.save(&mut session).await.unwrap();
    assert!(bench.store.load(&token).await.unwrap().data().is_verified);
}

#[tokio::test]
async fn a_logout_during_an_outage_is_final_and_reaches_other_processes() {
    let mut bench = lasting().await;
    let other_process = bench.another().await;
    let (session, other) = (log_in(&bench.store).await, log_in(&bench.store).await);
    let mut loaded = bench.store.load(session.token()).await.unwrap();
    bench.kill();

    let told = bench.store.destroy(session.token()).await;

    assert_refused!(told, SessionError::Unavailable(_));
    assert_refused!(
        bench.store.load(session.token()).await,
        SessionError::NotFound
    );
    assert_refused!(bench.store.save(&mut loaded).await, SessionError::Gone);
    assert_refused!(bench.store.rotate(&mut loaded).await, SessionError::Gone);
    bench.restart();
    available(&bench.store).await;
    assert_refused!(
        bench.store.load(session.token()).await,
        SessionError::NotFound
    );
    bench.told().await;
    assert_refused!(
        bench.store.load(session.token()).await,
        SessionError::NotFound
    );
    available(&other_process).await;
    assert_refused!(
        other_process.load(session.token()).await,
        SessionError::NotFound
    );
    assert!(
        other_process.load(other.token()).await.is_ok(),
        "other sessions stay valid"
    );
}

#[tokio::test]
async fn a_logout_everywhere_during_an_outage_spares_later_sessions() {
    for keeps_one in [false, true] {
        let mut bench = lasting().await;
        let other_process = bench.another().await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(log_in(&bench.store).await);
        }
        let kept = sessions.pop().unwrap();
        let stranger = log_in_as(&bench.store, 1).await;
        bench.kill();

        let except = keeps_one.then(|| kept.token());
        let told = bench.store.destroy_user("42", except).await;

        assert_refused!(told, SessionError::Unavailable(_));
        bench.clock.advance(millis(1));
        bench.restart();
        available(&other_process).await;
        let later = log_in(&other_process).await;
        available(&bench.store).await;
        for session in &sessions {
            assert!(bench.store.load(session.token()).await.is_err());
        }
        assert!(
            bench.store.load(later.token()).await.is_ok(),
            "before the revocation reaches Redis"
        );
        bench.told().await;
        for store in [&bench.store, &other_process] {
            for session in &sessions {
                assert_refused!(store.load(session.token()).await, SessionError::NotFound);
            }
            assert_eq!(store.load(kept.token()).await.is_ok(), keeps_one);
            assert!(store.load(later.token()).await.is_ok());
            assert!(store.load(stranger.token()).await.is_ok());
            let listed = store.list_user("42").await.unwrap();
            assert_eq!(listed.len(), 1 + usize::from(keeps_one));
        }
    }
}

#[tokio::test]
async fn a_pending_revocation_refuses_sessions_until_redis_has_it() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let clock = Clock::stopped();
    let with = |config: Config| {
        let config = config.clock(clock.clone()).session_keys(keys(KEY));
        store(config)
    };
    let here = with(proxy.config().command_timeout(millis(100))).await;
    let other_process = with(config(&server)).await;
    let ended = log_in(&other_process).await;
    proxy.cut();
    assert_refused!(
        here.destroy_user("42", None).await,
        SessionError::Unavailable(_)
    );
    clock.advance(millis(1));
    let later = log_in(&other_process).await;

    // Without Redis the process does not know when a session began, so it cannot report that it has ended.
    assert_refused!(here.load(later.token()).await, SessionError::Unavailable(_));
    assert!(here.load(ended.token()).await.is_err());

    proxy.pass();
    until("all revocations have reached Redis", || {
        here.inner.revocations.is_empty()
    })
    .await;
    assert!(here.load(later.token()).await.is_ok());
    assert_refused!(here.load(ended.token()).await, SessionError::NotFound);
}

#[tokio::test]
async fn repeated_revocations_are_stored_once() {
    let mut bench = lasting().await;
    let session = log_in(&bench.store).await;
    bench.kill();

    for _ in 0..100 {
        assert!(bench.store.destroy(session.token()).await.is_err());
        assert!(bench.store.destroy_user("42", None).await.is_err());
        assert!(
            bench
                .store
                .destroy_user("42", Some(session.token()))
                .await
                .is_err()
        );
        bench.clock.advance(millis(1));
    }

    assert_eq!(bench.store.inner.revocations.all().len(), 3);
}

/// Grants access only to these keys, as if the others were in an unavailable part of a cluster.
fn allow(server: &RedisServer, patterns: &[String]) {
    let patterns: Vec<_> = patterns.iter().map(|keys| format!("~{keys}")).collect();
    let mut rules = vec!["ACL", "SETUSER", "default", "resetkeys"];
    rules.extend(patterns.iter().map(String::as_str));
    let _: () = ask(server, &rules);
}

/// Returns patterns for all keys of a user.
fn keys_of(tag: UserTag) -> [String; 2] {
    let index = tag.index("test_").as_str().to_owned();
    [index, tag.base("test_") + "*"]
}

#[tokio::test]
async fn a_login_succeeds_and_ends_the_former_session_later() {
    let server = RedisServer::start().unwrap();
    let config = config(&server)
        .clock(Clock::stopped())
        .session_keys(keys(KEY));
    let store = store(config).await;
    let planted = log_in_as(&store, 666).await;
    let reachable = keys_of(store.inner.ring.newest().tag("test_", "42"));
    allow(&server, &reachable);

    let session = store
        .create_instead(NewSession::new(42, "ada"), Some(planted.token()))
        .await
        .unwrap();

    assert!(store.load(session.token()).await.is_ok());
    assert_refused!(store.load(planted.token()).await, SessionError::NotFound);
    allow(&server, &["*".to_owned()]);
    until("all revocations have reached Redis", || {
        store.inner.revocations.is_empty()
    })
    .await;
    assert_refused!(store.load(planted.token()).await, SessionError::NotFound);
    assert!(store.load(session.token()).await.is_ok());
}

#[tokio::test]
async fn a_refused_revocation_does_not_block_others() {
    let server = RedisServer::start().unwrap();
    let config = config(&server)
        .clock(Clock::stopped())
        .session_keys(keys(KEY));
    let store = store(config).await;
    let session = log_in(&store).await;
    let mut sessions = Vec::new();
    for user in 100..120 {
        sessions.push(log_in_as(&store, user).await);
    }
    allow(&server, &[]);
    for session in sessions.iter().chain([&session]) {
        assert!(store.destroy(session.token()).await.is_err());
    }

    let tags = sessions.iter().map(|session| session.token().place().tag);
    let reachable: Vec<_> = tags.flat_map(keys_of).collect();
    allow(&server, &reachable);

    until("all other revocations have reached Redis", || {
        store.inner.revocations.all().len() == 1
    })
    .await;
    for ended in &sessions {
        assert_refused!(store.load(ended.token()).await, SessionError::NotFound);
    }
}

#[tokio::test]
async fn a_silent_redis_delays_calls_by_the_deadline_and_ends_no_session() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let config = proxy
        .config()
        .command_timeout(millis(100))
        .clock(Clock::stopped());
    let store = store(config.session_keys(keys(KEY))).await;
    let mut session = log_in(&store).await;
    let token = session.token().clone();
    proxy.stall();

    let began = Instant::now();
    assert_refused!(store.load(&token).await, SessionError::Unavailable(_));
    assert_refused!(store.save(&mut session).await, SessionError::Unavailable(_));
    assert_refused!(
        store.create(NewSession::new(42, "ada")).await,
        SessionError::Unavailable(_)
    );
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());

    assert_refused!(store.destroy(&token).await, SessionError::Unavailable(_));
    assert_refused!(store.load(&token).await, SessionError::NotFound);
    proxy.pass();
    until("all revocations have reached Redis", || {
        store.inner.revocations.is_empty()
    })
    .await;
    assert_refused!(store.load(&token).await, SessionError::NotFound);
}

#[tokio::test]
async fn a_redis_that_lost_its_data_accepts_new_sessions() {
    let mut bench = Bench::new().await;
    let mut session = log_in(&bench.store).await;
    bench.server.as_mut().unwrap().restart_empty().unwrap();
    available(&bench.store).await;

    assert_refused!(
        bench.store.load(session.token()).await,
        SessionError::NotFound
    );
    assert_refused!(bench.store.save(&mut session).await, SessionError::Gone);
    let again = log_in(&bench.store).await;
    assert!(bench.store.load(again.token()).await.is_ok());
}

#[tokio::test]
async fn a_redis_without_memory_keeps_its_sessions_and_begins_none() {
    let bench = Bench::with(|config| config.sessions_per_user(1)).await;
    let (store, clock) = (&bench.store, &bench.clock);
    let mut session = log_in(store).await;
    let _: () = ask(bench.server(), &["CONFIG", "SET", "maxmemory", "1"]);
    clock.advance(HOUR);

    let begun = store
        .create_instead(NewSession::new(42, "ada"), Some(session.token()))
        .await;
    assert_refused!(begun, SessionError::Unavailable(_));
    assert_refused!(
        store.create(NewSession::new(42, "ada")).await,
        SessionError::Unavailable(_)
    );
    assert_refused!(store.save(&mut session).await, SessionError::Unavailable(_));
    assert_refused!(
        store.rotate(&mut session).await,
        SessionError::Unavailable(_)
    );
    let still = store.load(session.token()).await.unwrap();
    assert_eq!(
        left(&still, clock),
        DAY - HOUR,
        "the session is not extended"
    );
    assert_eq!(still.data().last_activity, still.data().created_at);

    store.destroy(session.token()).await.unwrap();
    assert_refused!(store.load(session.token()).await, SessionError::NotFound);
}

#[tokio::test]
async fn a_revocation_without_a_known_time_of_redis_covers_all_sessions() {
    let mut bench = Bench::with(|config| config.clock(Clock::default())).await;
    assert_eq!(bench.store.inner.backend.known_now(), None);
    bench.server.as_mut().unwrap().kill();

    let refused = bench.store.destroy_user("42", None).await;

    assert_refused!(refused, SessionError::Unavailable(_));
    let [(_, ending)] = bench.store.inner.revocations.all()[..] else {
        panic!("one revocation is pending")
    };
    let everything = Which::Others {
        except: None,
        began: Some(u64::MAX),
    };
    assert_eq!(ending, everything);
}

#[test]
fn a_pending_revocation_outlives_its_runtime() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let lasting_runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    // The connections belong to a runtime that continues. The logout runs on a runtime that ends.
    let mut bench = lasting_runtime.block_on(lasting());
    let session = lasting_runtime.block_on(log_in(&bench.store));
    let other = lasting_runtime.block_on(log_in_as(&bench.store, 7));
    bench.kill();
    let ended = first.block_on(bench.store.destroy(session.token()));
    assert_refused!(ended, SessionError::Unavailable(_));
    drop(first);
    bench.restart();

    lasting_runtime.block_on(async {
        available(&bench.store).await;

        bench.store.load(other.token()).await.unwrap();

        bench.told().await;
        let elsewhere = bench.another().await;
        assert_refused!(
            elsewhere.load(session.token()).await,
            SessionError::NotFound
        );
    });
}
