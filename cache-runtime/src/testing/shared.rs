//! Tests that run once more on the cluster that all tests share, one test at a time. Compiled into the tests of two crates.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use super::{Cluster, RedisServer};
use crate::{AclPart, Config};

thread_local! {
    /// The configuration for the cluster, in place of that for a server of the test.
    static CONFIG: RefCell<Option<Config>> = const { RefCell::new(None) };
}

/// Held during a turn.
static TURNS: Mutex<()> = Mutex::new(());

static USER: Once = Once::new();

/// The turn of one test, which begins without keys.
pub(crate) struct Turn {
    cluster: &'static Cluster,
    _taken: MutexGuard<'static, ()>,
}

/// Runs tests of a module once more, on a cluster. They must use [`config`], and not look into their server.
macro_rules! on_a_cluster {
    ($($test:ident)+) => {
        mod on_a_cluster {
            $(#[test]
            fn $test() {
                crate::shared::run_on_a_cluster(super::$test);
            })+
        }
    };
}
pub(crate) use on_a_cluster;

/// Runs a test, which starts its runtime on this thread.
pub(crate) fn run_on_a_cluster(test: fn()) {
    struct Ended;
    impl Drop for Ended {
        fn drop(&mut self) {
            CONFIG.take();
        }
    }
    let turn = Turn::take();
    CONFIG.set(Some(turn.cluster().config()));
    let _ended = Ended;
    test();
}

/// Begins without keys, if the test of this thread runs on the cluster: a test that starts a server expects an empty one.
pub(crate) fn begin_empty() {
    if CONFIG.with_borrow(Option::is_some) {
        flush(Cluster::shared().expect("it runs"));
    }
}

/// Returns the configuration for this server, or for the cluster if the test of this thread runs on one.
pub(crate) fn config(server: &RedisServer) -> Config {
    CONFIG.with_borrow(|config| config.clone().unwrap_or_else(|| server.config()))
}

/// Adds the user of the tests, who may run only the commands that this crate needs.
fn add_user(cluster: &Cluster) {
    let every = [
        AclPart::Entries,
        AclPart::Local,
        AclPart::Limits,
        AclPart::Sessions,
    ];
    let rules = cluster.config().acl_rule().only(&every).rules();
    // Tests use several prefixes.
    let rules = rules.into_iter().filter(|rule| !rule.starts_with('~'));
    let mut command = redis::cmd("ACL");
    command.arg(&["SETUSER", "app"]);
    command.arg(rules.collect::<Vec<_>>()).arg("~*");
    for node in 0..cluster.len() {
        let client = redis::Client::open(cluster.server(node).url()).expect("a valid address");
        let mut connection = client.get_connection().expect("the node answers");
        command
            .exec(&mut connection)
            .expect("it knows the commands");
    }
}

fn flush(cluster: &Cluster) {
    for node in cluster.primaries().expect("a node answers") {
        cluster.server(node).flush().expect("it answers");
    }
}

impl Turn {
    /// Waits for the turn.
    pub(crate) fn take() -> Self {
        let cluster = Cluster::shared().expect("redis-server starts");
        USER.call_once(|| add_user(cluster));
        let taken = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        flush(cluster);
        Self {
            cluster,
            _taken: taken,
        }
    }

    pub(crate) fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// Returns the server that has a key.
    #[allow(dead_code, reason = "only one of the two crates looks into servers")]
    pub(crate) fn server_of(&self, key: &str) -> &'static RedisServer {
        let slot = self.cluster.slot(key).expect("a node answers");
        let owner = self.cluster.owner(slot).expect("the slot has an owner");
        self.cluster.server(owner)
    }
}
