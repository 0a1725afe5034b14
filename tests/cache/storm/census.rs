//! What must be as many after the storm as before it.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::{POOL_MIN, World};

/// What must be as many as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Census {
    tasks: usize,
    open: Vec<usize>,
    in_flight: Vec<usize>,
    /// As the server counts them.
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
            .map(|world| world.cache.stats().pool.expect("there is a Redis"));
        let (open, in_flight) = pools.map(|pool| (pool.open, pool.in_flight)).unzip();
        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            open,
            in_flight,
            clients: clients.lines().count(),
        }
    }

    /// The first that stays for a while, with as many connections as there are at least.
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
