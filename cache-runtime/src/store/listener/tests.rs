use tracing::Level;

use super::*;
use crate::clock::Clock;
use crate::key::Key;
use crate::store::redis::RedisStore;
use crate::store::support::{SingleEntry, ask, config, kill_listener, server, server_with, until};
use crate::store::{Mark, Store};
use crate::testing::RedisServer;
use crate::testing::log::Log;

const TTL: Duration = Duration::from_secs(60);

/// A store, and the listener of its process.
struct Lab {
    store: RedisStore,
    doubts: Arc<Doubts>,
    wanted: Arc<Wanted>,
}

impl Lab {
    /// Listens for keys with these beginnings.
    async fn new(config: Config, beginnings: &[&str]) -> Self {
        let store = RedisStore::new(&config).expect("a configuration");
        store.probe().await.expect("the server runs");
        let (doubts, wanted) = (Arc::new(Doubts::new(Clock::default())), Arc::default());
        let lab = Self {
            store,
            doubts,
            wanted,
        };
        for beginning in beginnings {
            lab.wanted.add((*beginning).to_owned());
        }
        let (doubts, wanted) = (Arc::clone(&lab.doubts), Arc::clone(&lab.wanted));
        let listener = lab.store.listen(&config, Tracking { doubts, wanted });
        tokio::spawn(listener.expect("a configuration"));
        lab
    }

    async fn trusted(config: Config, beginnings: &[&str]) -> Self {
        let lab = Self::new(config, beginnings).await;
        until("changes are heard", || lab.is_trusted()).await;
        lab
    }

    fn is_trusted(&self) -> bool {
        self.doubts.are_all_trusted(self.doubts.latest())
    }

    fn reading(&self, name: &str) -> crate::doubt::Reading {
        self.doubts.reading(self.doubts.place(name.as_bytes()))
    }

    /// Returns whether `change` is heard as a change of this key.
    async fn hears(&self, name: &str, change: impl AsyncFnOnce()) {
        let before = self.reading(name);
        change().await;
        until("the change is heard", || {
            self.reading(name).changes != before.changes
        })
        .await;
    }
}

fn key(name: &str) -> Key {
    Key::parse("", name).expect("a valid key")
}

/// Commands of another client, such as an operator.
async fn by_hand(server: &RedisServer, command: &[&str]) {
    let _: redis::Value = ask(server, command);
}

#[tokio::test]
async fn changes_of_wanted_keys_are_heard_whoever_makes_them() {
    let server = server();
    let lab = Lab::trusted(config(&server), &["user:", "event:"]).await;

    lab.hears("user:1", async || {
        let stored = lab.store.set(&key("user:1"), b"value", TTL).await;
        stored.expect("stored");
    })
    .await;
    lab.hears("user:1", async || {
        by_hand(&server, &["DEL", "user:1"]).await;
    })
    .await;
    lab.hears("event:1", async || {
        by_hand(&server, &["SET", "event:1", "x"]).await;
    })
    .await;
    lab.hears("user:2", async || {
        by_hand(&server, &["FLUSHALL"]).await;
    })
    .await;
}

#[tokio::test]
async fn changes_of_other_keys_are_not_heard() {
    let server = server();
    let lab = Lab::trusted(config(&server), &["user:"]).await;
    let before = lab.reading("event:1");

    by_hand(&server, &["SET", "event:1", "x"]).await;
    lab.hears("user:1", async || {
        by_hand(&server, &["SET", "user:1", "x"]).await;
    })
    .await;

    assert_eq!(lab.reading("event:1"), before);
    assert!(!lab.doubts.is_heard("event:1"));
}

#[tokio::test]
async fn the_mark_of_a_refresh_is_heard_as_a_change() {
    let server = server();
    let lab = Lab::trusted(config(&server), &["user:"]).await;
    let user = key("user:1");
    let entry = crate::entry::none(&crate::entry::Draft {
        key: &user,
        origin: crate::entry::Origin {
            build: 1,
            of_type: 1,
            version: 0,
        },
        layers: crate::entry::Layers::Nothing,
        now: 0,
        fresh: TTL,
        cost: TTL,
        tags: &[],
    });
    lab.hears("user:1", async || {
        let stored = lab.store.set(&user, entry.as_bytes(), TTL).await;
        stored.expect("stored");
    })
    .await;

    lab.hears("user:1", async || {
        let marked = lab.store.refresh(&user, entry.stamp(), TTL, Mark::Claim);
        marked.await.expect("marked");
    })
    .await;
}

#[test]
fn beginnings_that_begin_with_another_are_left_out() {
    let wanted = Wanted::default();
    for beginning in ["user:1:", "event:", "user:", "users:", "user:2:", "events:"] {
        wanted.add(beginning.to_owned());
    }

    assert_eq!(wanted.reduced(), ["event:", "events:", "user:", "users:"]);
}

#[tokio::test]
async fn overlapping_beginnings_leave_the_answers_in_order() {
    let server = server();

    let lab = Lab::trusted(config(&server), &["user:1:", "user:", "user:2:", "event:"]).await;

    assert!(lab.doubts.is_heard("user:2:name") && lab.doubts.is_heard("event:1"));
    lab.hears("user:2:name", async || {
        by_hand(&server, &["SET", "user:2:name", "x"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_beginning_that_is_wanted_later_is_heard_on_another_connection() {
    let server = server();
    let lab = Lab::trusted(config(&server), &["user:"]).await;
    let before = lab.reading("user:1");

    lab.wanted.add("event:".to_owned());
    until("it is heard", || lab.doubts.is_heard("event:1")).await;

    assert_ne!(lab.reading("user:1").gaps, before.gaps);
    lab.hears("event:1", async || {
        by_hand(&server, &["SET", "event:1", "x"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_refuses_to_report_changes_is_asked_once() {
    let log = Log::listen(Level::WARN);
    let server = server();
    by_hand(
        &server,
        &[
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">pw",
            "~*",
            "&*",
            "+@all",
            "-client|tracking",
        ],
    )
    .await;
    let config = config(&server).username("app").password("pw");

    let lab = Lab::new(config, &["user:"]).await;
    until("the refusal is logged", || {
        let lines = log.take();
        lines
            .iter()
            .any(|line| line.fields["message"].contains("does not report changes"))
    })
    .await;

    assert!(!lab.is_trusted() && !lab.doubts.is_heard("user:1"));
}

#[tokio::test]
async fn a_server_without_resp3_is_refused() {
    let log = Log::listen(Level::WARN);
    let server = server_with(&["--rename-command", "HELLO", ""]);

    let lab = Lab::new(config(&server), &["user:"]).await;
    until("the refusal is logged", || {
        let lines = log.take();
        lines
            .iter()
            .any(|line| line.fields["message"].contains("does not report changes"))
    })
    .await;

    assert!(!lab.is_trusted() && !lab.doubts.is_heard("user:1"));
}

#[tokio::test]
async fn a_killed_connection_is_a_gap_even_if_nothing_changes() {
    let server = server();
    let lab = Lab::trusted(config(&server), &["user:"]).await;
    let before = lab.reading("user:1");

    kill_listener(&server);
    until("it listens again", || {
        lab.reading("user:1").gaps != before.gaps && lab.is_trusted()
    })
    .await;

    assert_eq!(lab.reading("user:1").changes, before.changes);
}

#[tokio::test]
async fn the_listener_ends_with_its_store() {
    let server = server();
    let lab = Lab::trusted(
        config(&server).local_staleness(Duration::from_millis(200)),
        &["user:"],
    )
    .await;
    let doubts = Arc::clone(&lab.doubts);

    drop(lab);

    until("the listener is gone", || Arc::strong_count(&doubts) == 1).await;
}
