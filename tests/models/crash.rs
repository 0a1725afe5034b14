//! A process that dies between its commit and its eviction leaves a fence, if it placed one, and no stale value.
//!
//! Two writers that may die at any moment, one after the other, and two readers.

use crate::explorer::{Wrong, explore};
use crate::one_key::OneKey;
use crate::reader::Rules;
use crate::row::{Clock, Row};
use crate::writer::{Does, Put, Task};

fn dying(does: Does) -> OneKey {
    OneKey {
        start: Row::CACHED,
        readers: 2,
        rules: Rules::AS_BUILT,
        writers: vec![Task::may_die(does); 2],
        one_after_another: true,
        clock: Clock {
            ends_leases: true,
            ends_values: false,
            ends_fences: true,
            has_grace: false,
        },
        fences_outlive_bodies: true,
    }
}

#[test]
fn a_writer_that_dies_behind_its_fence_leaves_no_stale_value() {
    let explored = explore(&dying(Does::EvictBehindFence));

    explored.assert_holds(
        1_000,
        &[
            "dies",
            "the fence ends",
            "fences with others",
            "fills",
            "is refused the fill",
        ],
    );
}

#[test]
fn a_put_that_dies_leaves_no_stale_value() {
    let explored = explore(&dying(Does::Put(Put::AloneAndUnchanged)));

    explored.assert_holds(
        1_000,
        &["dies", "the fence ends", "fences with others", "puts"],
    );
}

#[test]
fn a_writer_that_dies_without_a_fence_is_caught() {
    let explored = explore(&dying(Does::Evict));

    explored.assert_breaks(Wrong::StaleAtRest);
}

/// What a fence does not cover: `fence_ttl` is to be longer than the body of the function.
#[test]
fn a_writer_that_dies_after_its_fence_ended_is_caught() {
    let explored = explore(&OneKey {
        fences_outlive_bodies: false,
        ..dying(Does::EvictBehindFence)
    });

    explored.assert_breaks(Wrong::StaleAtRest);
}

/// What a fence does not cover: the eviction of another writer takes it away, as it takes away everything.
#[test]
fn a_writer_that_dies_after_another_evicted_its_fence_is_caught() {
    let explored = explore(&OneKey {
        one_after_another: false,
        ..dying(Does::EvictBehindFence)
    });

    explored.assert_breaks(Wrong::StaleAtRest);
}

/// Why a fence counts: the one of two puts that dies does not evict, and the other must not store what may be older.
#[test]
fn a_put_that_shares_its_fence_with_one_that_dies_stores_nothing() {
    let overlapping = |put| OneKey {
        readers: 0,
        one_after_another: false,
        ..dying(Does::Put(put))
    };

    explore(&overlapping(Put::AloneAndUnchanged)).assert_holds(50, &["dies", "puts", "evicts"]);
    explore(&overlapping(Put::Unchanged)).assert_breaks(Wrong::StaleAtRest);
}
