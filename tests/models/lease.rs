//! A load may store its value only under the lease that it placed before it read the database, and an eviction removes the
//! lease.
//!
//! Three readers, two writers that evict, and leases and values that can expire at any time.

use crate::explorer::{Wrong, explore};
use crate::one_key::OneKey;
use crate::reader::{Fill, Lease, Rules};
use crate::row::{Clock, Row};
use crate::writer::{Does, Task};

fn as_built() -> OneKey {
    OneKey {
        start: Row::CACHED,
        readers: 3,
        rules: Rules::AS_BUILT,
        writers: vec![Task::lives(Does::Evict); 2],
        one_after_another: false,
        clock: Clock {
            ends_leases: true,
            ends_values: true,
            ends_fences: false,
            has_grace: false,
        },
        fences_outlive_bodies: false,
    }
}

fn twin(rules: Rules) -> OneKey {
    OneKey {
        rules,
        ..as_built()
    }
}

#[test]
fn no_value_older_than_an_eviction_is_stored_after_it() {
    let explored = explore(&as_built());

    explored.assert_holds(
        5_000,
        &[
            "hits",
            "fills",
            "is refused the fill",
            "finds what was filled meanwhile",
            "waits no longer for a lease",
            "has nothing worth storing",
            "the lease ends",
        ],
    );
}

#[test]
fn a_fill_without_a_condition_is_caught() {
    let explored = explore(&twin(Rules {
        fill: Fill::Always,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_fill_under_the_lease_of_another_caller_is_caught() {
    let explored = explore(&twin(Rules {
        fill: Fill::WhereAnyLeaseStands,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn an_eviction_that_keeps_the_lease_is_caught() {
    let explored = explore(&twin(Rules {
        lease: Lease::Apart,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_lease_placed_after_the_read_is_caught() {
    let explored = explore(&twin(Rules {
        lease: Lease::AfterTheBody,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn an_eviction_before_the_commit_is_caught() {
    let explored = explore(&OneKey {
        writers: vec![Task::lives(Does::EvictTooEarly)],
        ..as_built()
    });

    explored.assert_breaks(Wrong::StaleEntry);
}
