//! The scripts in `ops` work.

use std::process::{Command, Output};

use cache_runtime::Config;

/// Runs `ops/cluster.sh` with ports that no other process of these tests uses.
fn cluster(what: &str) -> Output {
    let port = 11_000 + std::process::id() % 1_000 * 6;
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/cluster.sh"))
        .arg(what)
        .env("CLUSTER_PORT", port.to_string())
        .output()
        .expect("the script runs")
}

/// Stops the cluster, also after a failed assertion.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        cluster("stop");
    }
}

#[test]
fn a_cluster_starts_and_stops() {
    let running = Running;

    let started = cluster("start");
    let printed = String::from_utf8_lossy(&started.stdout);
    assert!(started.status.success(), "{started:?}");
    let config = Config::from_vars(printed.trim().split_once('='));
    assert!(config.expect("a variable").redis.is_some());
    let nodes = cluster("status");
    let nodes = String::from_utf8_lossy(&nodes.stdout);
    assert_eq!(nodes.matches("slave").count(), 3, "{nodes}");
    assert_eq!(nodes.matches("master").count(), 3, "{nodes}");
    assert!(!cluster("start").status.success(), "it runs already");

    drop(running);
    assert!(!cluster("status").status.success());
}
