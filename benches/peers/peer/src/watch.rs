//! Callers that run through an outage.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::{Outage, Peer, body};

/// What became of a call.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Hit,
    Load,
    Error,
    /// It has not returned yet.
    Pending,
}

#[derive(Clone, Copy)]
struct Call {
    began: u64,
    ended: u64,
    end: End,
}

/// Callers in the background, each with the record of its calls.
pub(crate) struct Watch {
    callers: JoinSet<()>,
    calls: Vec<Arc<Mutex<Vec<Call>>>>,
}

impl Watch {
    pub(crate) fn begin<P: Peer>(
        peer: &Arc<P>,
        first: u64,
        callers: u64,
        pause_millis: u64,
    ) -> Self {
        let mut watch = Self {
            callers: JoinSet::new(),
            calls: Vec::new(),
        };
        for caller in 0..callers {
            let record = Arc::<Mutex<Vec<Call>>>::default();
            watch.calls.push(Arc::clone(&record));
            let peer = Arc::clone(peer);
            watch.callers.spawn(async move {
                loop {
                    let began = body::now();
                    push(&record, began);
                    // In a task of its own, so that a panic of the library is the end of this call only.
                    let call = tokio::spawn({
                        let peer = Arc::clone(&peer);
                        async move { peer.call(first + caller).await.map(|value| value.read_at) }
                    });
                    let end = match call.await {
                        Ok(Ok(read_at)) if read_at < began => End::Hit,
                        Ok(Ok(_)) => End::Load,
                        Ok(Err(_)) | Err(_) => End::Error,
                    };
                    settle(&record, end);
                    tokio::time::sleep(Duration::from_millis(pause_millis)).await;
                }
            });
        }
        watch
    }

    /// Stops the callers. `failed` and `back`: when the server failed and returned.
    pub(crate) fn end(mut self, failed: u64, back: u64) -> Outage {
        self.callers.abort_all();
        let now = body::now();
        let calls = self.calls.iter().flat_map(|record| {
            let calls = record
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            calls.into_iter()
        });
        judge(calls, now, failed, back)
    }
}

/// Sums up what the calls were that were under way during the outage. Calls that have not returned last until `now`.
fn judge(calls: impl Iterator<Item = Call>, now: u64, failed: u64, back: u64) -> Outage {
    let mut outage = Outage::default();
    let mut durations = Vec::new();
    for call in calls {
        let ended = match call.end {
            End::Pending => now,
            End::Hit | End::Load | End::Error => call.ended,
        };
        if call.end == End::Hit && call.began >= back {
            let after = ended.saturating_sub(back);
            outage.cached_again = Some(outage.cached_again.map_or(after, |again| again.min(after)));
        }
        if call.began < back && ended >= failed {
            durations.push(ended.saturating_sub(call.began));
            match call.end {
                End::Hit => outage.hits += 1,
                End::Load => outage.loads += 1,
                End::Error => outage.errors += 1,
                End::Pending => outage.pending += 1,
            }
        }
    }
    durations.sort_unstable();
    outage.worst = durations.last().copied().unwrap_or_default();
    outage.median = durations
        .get(durations.len() / 2)
        .copied()
        .unwrap_or_default();
    outage
}

fn push(record: &Mutex<Vec<Call>>, began: u64) {
    let call = Call {
        began,
        ended: began,
        end: End::Pending,
    };
    record
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(call);
}

fn settle(record: &Mutex<Vec<Call>>, end: End) {
    let ended = body::now();
    if let Some(call) = record
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .last_mut()
    {
        call.ended = ended;
        call.end = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: u64 = 100;
    const BACK: u64 = 200;
    const NOW: u64 = 300;

    fn call(began: u64, ended: u64, end: End) -> Call {
        Call { began, ended, end }
    }

    #[test]
    fn calls_that_were_under_way_during_the_outage_count() {
        let calls = [
            call(10, 20, End::Hit),
            call(90, 105, End::Error),
            call(110, 140, End::Load),
            call(190, 240, End::Load),
            call(210, 220, End::Load),
        ];

        let outage = judge(calls.into_iter(), NOW, FAILED, BACK);

        assert_eq!((outage.hits, outage.loads, outage.errors), (0, 2, 1));
        assert_eq!((outage.worst, outage.median), (50, 30));
    }

    #[test]
    fn a_call_that_does_not_return_lasts_until_the_end() {
        let calls = [call(150, 150, End::Pending)];

        let outage = judge(calls.into_iter(), NOW, FAILED, BACK);

        assert_eq!((outage.pending, outage.worst), (1, 150));
    }

    #[test]
    fn caching_is_resumed_by_the_first_hit_of_a_call_after_the_return() {
        let calls = [
            call(195, 205, End::Hit),
            call(230, 260, End::Hit),
            call(240, 250, End::Hit),
            call(210, 220, End::Load),
        ];

        let outage = judge(calls.into_iter(), NOW, FAILED, BACK);

        assert_eq!(outage.cached_again, Some(50));
    }
}
