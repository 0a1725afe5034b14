//! Watches the sentinels, so that a pool follows the master while its connections are still open.

use std::sync::{Arc, Weak};

use tokio::time::sleep;
use tracing::debug;

use super::pool::Pool;
use super::topology::{Connector, LOOK};

/// Starts the tasks, where there are sentinels. They end with the pool.
pub(super) fn start(pool: &Arc<Pool>) {
    let connector = pool.connector();
    let Some(sentinels) = connector.sentinels() else {
        return;
    };
    for index in 0..sentinels.count() {
        tokio::spawn(watch(Arc::downgrade(pool), Arc::clone(connector), index));
    }
    let (pool, mut changes) = (Arc::downgrade(pool), sentinels.changes());
    tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            let master = changes.borrow_and_update().clone();
            match (pool.upgrade(), master) {
                (None, _) => return,
                (Some(pool), Some(master)) => pool.follow(&master.address),
                (Some(_), None) => {}
            }
        }
    });
}

/// Asks one sentinel every second, and as soon as it reports a change.
async fn watch(pool: Weak<Pool>, connector: Arc<Connector>, index: usize) {
    let Some(sentinels) = connector.sentinels() else {
        return;
    };
    let is_wanted = || pool.upgrade().is_some_and(|pool| !pool.is_closed());
    while is_wanted() {
        let watched = async {
            let mut link = connector.link(sentinels, index).await?;
            link.subscribe().await;
            while is_wanted() {
                link.ask(sentinels).await?;
                link.pause().await;
            }
            Ok::<_, crate::error::Error>(())
        };
        if let Err(error) = watched.await {
            debug!(%error, "could not watch a sentinel");
            sleep(LOOK).await;
        }
    }
}
