//! Counts that must be the same before and after the storm.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::{POOL_MIN, World};

/// Counts that must be the same before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Census {
    tasks: usize,
    open: Vec<usize>,
    in_flight: Vec<usize>,
    /// The connections that the server counts.
    clients: usize,
}

impl Census {
    pub(super) async fn take(worlds: &[World], raw: &mut MultiplexedConnection) -> Self {
        let clients: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(raw)
            .await
            .expect("CLIENT LIST");
        let pools = worlds
            .iter()
            .map(|world| world.cache.stats().pool.expect("a pool"));
        let (open, in_flight) = pools.map(|pool| (pool.open, pool.in_flight)).unzip();
        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            open,
            in_flight,
            clients: clients.lines().count(),
        }
    }

    /// Returns the first census that does not change for a while and has the minimum number of connections.
    pub(super) async fn at_rest(worlds: &[World], raw: &mut MultiplexedConnection) -> Self {
        let mut last = Self::take(worlds, raw).await;
        loop {
            sleep(Duration::from_millis(100)).await;
            let now = Self::take(worlds, raw).await;
            if now == last && now.open.iter().all(|open| *open == POOL_MIN) {
                return now;
            }
            last = now;
        }
    }
}
