//! A value in grace is refreshed by one caller, who replaces it only if it still bears the stamp that was seen. An eviction
//! removes it and a put replaces it, so that both win against a refresh that began before them.
//!
//! Whether the refresh runs in a caller's request or in the background makes no difference here. A refresh lease may end at
//! any time, so that two refresh at once.

use crate::explorer::{Wrong, explore};
use crate::one_key::OneKey;
use crate::reader::{Fill, Rules};
use crate::row::{Clock, Row};
use crate::writer::{Does, Put, Task};

fn as_built() -> OneKey {
    OneKey {
        start: Row::CACHED,
        readers: 3,
        rules: Rules::AS_BUILT,
        writers: vec![
            Task::lives(Does::Evict),
            Task::lives(Does::Put(Put::AloneAndUnchanged)),
        ],
        one_after_another: false,
        clock: Clock {
            ends_leases: true,
            ends_values: false,
            ends_fences: true,
            has_grace: true,
        },
        fences_outlive_bodies: false,
    }
}

fn twin(fill: Fill) -> OneKey {
    OneKey {
        rules: Rules {
            fill,
            ..Rules::AS_BUILT
        },
        ..as_built()
    }
}

#[test]
fn a_refresh_never_wins_against_an_eviction_or_a_put() {
    let explored = explore(&as_built());

    explored.assert_holds(
        20_000,
        &[
            "gets the refresh lease",
            "serves stale",
            "finds the stale value gone",
            "refreshes",
            "is refused the refresh",
            "has nothing worth storing",
            "fails to load",
            "the refresh lease ends",
            "puts",
            "evicts",
        ],
    );
}

#[test]
fn a_refresh_without_a_condition_is_caught() {
    let explored = explore(&twin(Fill::RefreshAlways));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_refresh_that_looks_for_the_refresh_lease_and_not_for_the_stamp_is_caught() {
    let explored = explore(&twin(Fill::RefreshWhereAnyStands));

    explored.assert_breaks(Wrong::StaleEntry);
}
