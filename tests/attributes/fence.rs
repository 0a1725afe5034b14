//! `#[cache_evict(…, fence)]`: nothing is stored under the keys while the body runs.

use cache_runtime::{cache_evict, cacheable};
use tokio::sync::Notify;

use crate::lab::Lab;

#[derive(Debug, PartialEq)]
struct Refused;

#[cacheable(key = "count:<id>", cache = lab.cache)]
async fn count(lab: &Lab, id: i64) -> usize {
    lab.run()
}

/// Signals that its body has begun, and returns when the gate opens.
struct Gate {
    begun: Notify,
    open: Notify,
    outcome: Result<i64, Refused>,
}

impl Gate {
    fn new(outcome: Result<i64, Refused>) -> Self {
        Self {
            begun: Notify::new(),
            open: Notify::new(),
            outcome,
        }
    }

    async fn pass(&self) -> Result<i64, Refused> {
        self.begun.notify_one();
        self.open.notified().await;
        match self.outcome {
            Ok(id) => Ok(id),
            Err(Refused) => Err(Refused),
        }
    }
}

#[cache_evict(key = ["count:<id>", "count:<other>"], pattern = "list:<return>:*", fence, cache = lab.cache)]
async fn change(lab: &Lab, id: i64, other: i64, gate: &Gate) -> Result<i64, Refused> {
    gate.pass().await
}

#[tokio::test]
async fn readers_load_and_store_nothing_while_the_body_runs() {
    let (lab, gate) = (Lab::new(), Gate::new(Ok(1)));
    count(&lab, 1).await;

    let (changed, read) = tokio::join!(change(&lab, 1, 2, &gate), async {
        gate.begun.notified().await;
        let read = [
            count(&lab, 1).await,
            count(&lab, 1).await,
            count(&lab, 2).await,
            count(&lab, 2).await,
        ];
        gate.open.notify_one();
        read
    });

    assert_eq!(changed, Ok(1));
    assert_eq!(read, [2, 3, 4, 5]);
}

#[tokio::test]
async fn the_keys_are_evicted_and_usable_after_the_body() {
    let (lab, gate) = (Lab::new(), Gate::new(Ok(7)));
    count(&lab, 1).await;
    lab.cache.set("list:7:first", &0, 60).await;
    gate.open.notify_one();

    change(&lab, 1, 2, &gate).await.expect("it returns `Ok`");

    assert!(!lab.holds("count:1").await);
    assert!(!lab.holds("list:7:first").await);
    count(&lab, 1).await;
    assert!(lab.holds("count:1").await);
}

#[tokio::test]
async fn the_keys_are_usable_after_a_failed_body() {
    let (lab, gate) = (Lab::new(), Gate::new(Err(Refused)));
    lab.cache.set("list:7:first", &0, 60).await;
    gate.open.notify_one();

    assert_eq!(change(&lab, 1, 2, &gate).await, Err(Refused));

    count(&lab, 1).await;
    count(&lab, 2).await;
    assert!(lab.holds("count:1").await);
    assert!(lab.holds("count:2").await);
    assert!(lab.holds("list:7:first").await);
}

#[tokio::test]
async fn readers_store_while_the_body_runs_without_a_fence() {
    #[cache_evict(key = "count:<id>", cache = lab.cache)]
    async fn change(lab: &Lab, id: i64, gate: &Gate) -> Result<i64, Refused> {
        gate.pass().await
    }
    let (lab, gate) = (Lab::new(), Gate::new(Ok(1)));

    let (_, read) = tokio::join!(change(&lab, 1, &gate), async {
        gate.begun.notified().await;
        let read = [count(&lab, 1).await, count(&lab, 1).await];
        gate.open.notify_one();
        read
    });

    assert_eq!(read, [1, 1]);
    assert!(!lab.holds("count:1").await);
}
