//! Counts that must be the same before and after the storm.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::{Servers, World};

/// How often a census is the same in a row at rest. A listener or a refresh may begin late on a busy machine.
const SAME: u32 = 5;

/// How long the numbers may take to be as before.
const RETURN: Duration = Duration::from_secs(20);

/// Counts that must be the same before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Census {
    tasks: usize,
    open: Vec<usize>,
    in_flight: Vec<usize>,
    /// The connections that the servers count.
    clients: usize,
}

impl Census {
    pub(super) async fn take(worlds: &[World], servers: &Servers) -> Self {
        let clients = servers.clients().await;
        let pools = worlds
            .iter()
            .map(|world| world.cache.stats().pool.expect("a pool"));
        let (open, in_flight) = pools.map(|pool| (pool.open, pool.in_flight)).unzip();
        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            open,
            in_flight,
            clients,
        }
    }

    /// Returns the first census that does not change for a while and has the minimum number of connections.
    pub(super) async fn at_rest(worlds: &[World], servers: &Servers) -> Self {
        let pool_min = servers.pool_min();
        let mut last = Self::take(worlds, servers).await;
        let mut same = 0;
        while same < SAME {
            sleep(Duration::from_millis(100)).await;
            let now = Self::take(worlds, servers).await;
            let is_same = now == last && now.open.iter().all(|open| *open == pool_min);
            same = if is_same { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// Waits until the numbers are these again.
    pub(super) async fn is_again(&self, worlds: &[World], servers: &Servers) {
        let end = Instant::now() + RETURN;
        loop {
            let now = Self::take(worlds, servers).await;
            if now == *self {
                return;
            }
            assert!(
                Instant::now() < end,
                "not within {RETURN:?}: {now:?} as before: {self:?}"
            );
            sleep(Duration::from_millis(2)).await;
        }
    }
}
