//! Of puts that overlap nobody can say whose value the database has in the end. A put replaces its own fence, if that was
//! alone and still stands, and nothing else; where it cannot, it evicts.
//!
//! Three writers that put, two readers, and fences that end at any time, even while the body runs.

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
fn three_puts_that_overlap_leave_no_older_value() {
    let explored = explore(&puts(Put::AloneAndUnchanged));

    explored.assert_holds(10_000, &REACHED);
}

#[test]
fn puts_and_evictions_that_overlap_leave_no_older_value() {
    let mut model = puts(Put::AloneAndUnchanged);
    model.writers[2] = Task::lives(Does::Evict);

    explore(&model).assert_holds(10_000, &REACHED);
}

/// Whoever is overtaken evicts, so that the stamp alone would do. What the count is for is in `crash.rs`.
#[test]
fn where_nobody_dies_a_fence_that_does_not_count_would_do() {
    explore(&puts(Put::Unchanged)).assert_holds(10_000, &REACHED);
}

#[test]
fn a_put_without_a_fence_is_caught() {
    let explored = explore(&puts(Put::Blind));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_put_that_does_not_ask_whether_its_fence_still_stands_is_caught() {
    let explored = explore(&puts(Put::Alone));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_put_that_was_overtaken_and_does_not_evict_is_caught() {
    let explored = explore(&puts(Put::UnchangedOrNothing));

    explored.assert_breaks(Wrong::StaleEntry);
}
