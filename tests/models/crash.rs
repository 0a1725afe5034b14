//! A process that placed a fence and dies between its commit and its eviction leaves no stale value.
//!
//! Two consecutive writers that may die at any moment, and two readers.

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
fn a_fenced_writer_that_dies_leaves_no_stale_value() {
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

/// A limit of fences: the body must be shorter than `fence_ttl`.
#[test]
fn a_writer_that_dies_after_its_fence_expired_is_caught() {
    let explored = explore(&OneKey {
        fences_outlive_bodies: false,
        ..dying(Does::EvictBehindFence)
    });

    explored.assert_breaks(Wrong::StaleAtRest);
}

/// A limit of fences: an eviction by another writer removes the fence, as it removes everything.
#[test]
fn a_writer_that_dies_after_its_fence_was_evicted_is_caught() {
    let explored = explore(&OneKey {
        one_after_another: false,
        ..dying(Does::EvictBehindFence)
    });

    explored.assert_breaks(Wrong::StaleAtRest);
}

/// The reason for the count in a fence: if one of two puts dies, it does not evict, and the other must not store its value,
/// which may be older.
#[test]
fn a_put_that_shares_its_fence_with_a_dead_put_stores_nothing() {
    let overlapping = |put| OneKey {
        readers: 0,
        one_after_another: false,
        ..dying(Does::Put(put))
    };

    explore(&overlapping(Put::AloneAndUnchanged)).assert_holds(50, &["dies", "puts", "evicts"]);
    explore(&overlapping(Put::Unchanged)).assert_breaks(Wrong::StaleAtRest);
}
