//! If puts overlap, the cache cannot know which value the database kept. A put replaces only its own fence, and only if the
//! fence was alone and is still there. Otherwise it evicts.
//!
//! Three writers that put, two readers, and fences that can expire at any time, even while the body runs.

use crate::explorer::{Wrong, explore};
use crate::one_key::OneKey;
use crate::reader::Rules;
use crate::row::{Clock, Row};
use crate::writer::{Does, Put, Task};

fn puts(put: Put) -> OneKey {
    OneKey {
        start: Row::CACHED,
        readers: 2,
        rules: Rules::AS_BUILT,
        writers: vec![Task::lives(Does::Put(put)); 3],
        one_after_another: false,
        clock: Clock {
            ends_leases: true,
            ends_values: false,
            ends_fences: true,
            has_grace: false,
        },
        fences_outlive_bodies: false,
    }
}

const REACHED: [&str; 9] = [
    "fences alone",
    "fences with others",
    "puts",
    "is refused the put",
    "evicts",
    "the fence ends",
    "finds a fence",
    "fills",
    "is refused the fill",
];

#[test]
fn three_overlapping_puts_leave_no_older_value() {
    let explored = explore(&puts(Put::AloneAndUnchanged));

    explored.assert_holds(10_000, &REACHED);
}

#[test]
fn overlapping_puts_and_evictions_leave_no_older_value() {
    let mut model = puts(Put::AloneAndUnchanged);
    model.writers[2] = Task::lives(Does::Evict);

    explore(&model).assert_holds(10_000, &REACHED);
}

/// An overtaken put evicts, so the stamp alone is enough. `crash.rs` has the case that needs the count.
#[test]
fn a_fence_without_a_count_is_enough_if_no_process_dies() {
    explore(&puts(Put::Unchanged)).assert_holds(10_000, &REACHED);
}

#[test]
fn a_put_without_a_fence_is_caught() {
    let explored = explore(&puts(Put::Blind));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_put_that_does_not_check_its_fence_is_caught() {
    let explored = explore(&puts(Put::Alone));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn an_overtaken_put_that_does_not_evict_is_caught() {
    let explored = explore(&puts(Put::UnchangedOrNothing));

    explored.assert_breaks(Wrong::StaleEntry);
}
