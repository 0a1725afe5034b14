//! What the metrics of many functions hold in memory, and whether that grows with the number of calls.

use std::alloc::System;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use cache_runtime::{Cache, cacheable};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tests::figures::Figures;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FUNCTIONS: u64 = 100;
const CALLS: u64 = 10_000_000;
const LIMIT: usize = 2 << 20;

/// Annotates one function for each of ten digits.
macro_rules! ten {
    ($($number:ident)*) => {
        $(mod $number {
            use super::*;

            #[cacheable(key = "bench:<id>", ttl = 3600, cache = cache)]
            pub(super) async fn number(cache: &Cache, id: u64) -> u64 {
                id
            }
        })*

        /// Calls each of the ten functions once.
        pub(super) async fn each(cache: &Cache) {
            $($number::number(cache, 1).await;)*
        }
    };
}

/// Ten modules of ten functions, because each function has metrics of its own.
macro_rules! hundred {
    ($($ten:ident)*) => {
        $(mod $ten {
            use super::*;

            ten!(f0 f1 f2 f3 f4 f5 f6 f7 f8 f9);
        })*

        /// Calls each of the hundred functions once.
        async fn each(cache: &Cache) {
            $($ten::each(cache).await;)*
        }
    };
}

hundred!(t0 t1 t2 t3 t4 t5 t6 t7 t8 t9);

/// Stores the entry that all functions share, and what a thread keeps.
#[cacheable(key = "bench:<id>", ttl = 3600, cache = cache)]
async fn warm_up(cache: &Cache, id: u64) -> u64 {
    id
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    cache_runtime::testing::assume_real_time();
    let mut figures = Figures::default();
    let cache = Cache::memory();
    warm_up(&cache, 1).await;
    let others = Region::new(ALLOCATOR);
    each(&cache).await;
    let first = live(&others);
    for _ in 1..CALLS / FUNCTIONS {
        each(&cache).await;
    }
    let last = live(&others);

    let calls = cache.stats().total.hits;
    ensure!(calls >= CALLS - FUNCTIONS, "only {calls} calls were hits");
    figures.heading(format_args!(
        "the metrics of {FUNCTIONS} functions, {CALLS} calls in memory:"
    ));
    figures.note("after one call of each, bytes", first);
    figures.check(
        "after all calls, bytes",
        last,
        "less than 2 MiB",
        last < LIMIT,
    );
    figures.check(
        "growth from the first call of each to the last, bytes",
        last.saturating_sub(first),
        "none",
        last <= first,
    );
    Ok(figures.finish())
}

/// Returns how many bytes more are allocated than at the beginning of the region.
fn live(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change
        .bytes_allocated
        .saturating_sub(change.bytes_deallocated)
}
