//! Random choices from a seed.

use std::env;
use std::panic::resume_unwind;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

use super::LONG;
use super::database::Failed;

/// The payload of the panics that bodies cause on purpose.
pub(super) struct Thrown;

/// A seeded source of random choices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whim {
    state: u64,
    is_calm: bool,
}

impl Whim {
    pub(super) const CALM: Self = Self {
        state: 0,
        is_calm: true,
    };

    pub(super) fn of(seed: u64) -> Self {
        Self {
            state: seed,
            is_calm: false,
        }
    }

    /// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Returns an independent source for another caller.
    pub(super) fn branch(&mut self) -> Self {
        Self::of(self.next())
    }

    /// Delays the body, yields, or panics.
    pub(super) async fn dawdle(&mut self) {
        if self.is_calm {
            return;
        }
        match self.below(2_000) {
            0 => sleep(LONG).await,
            1..100 => sleep(Duration::from_millis(self.below(5) as u64)).await,
            100..500 => {
                for _ in 0..self.below(4) {
                    yield_now().await;
                }
            }
            500..540 => resume_unwind(Box::new(Thrown)),
            _ => {}
        }
    }

    pub(super) fn may_fail(&mut self) -> Result<(), Failed> {
        match !self.is_calm && self.below(20) == 0 {
            true => Err(Failed),
            false => Ok(()),
        }
    }
}

/// The seed of this run. It is printed if the test fails.
pub(super) struct Seed(pub(super) u64);

impl Seed {
    pub(super) fn of_this_run() -> Self {
        let given = env::var("STORM_SEED").ok();
        Self(given.map_or(3, |seed| seed.parse().expect("STORM_SEED is a number")))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("STORM_SEED={}", self.0);
        }
    }
}
