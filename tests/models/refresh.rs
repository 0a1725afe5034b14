//! One caller refreshes a value in grace, and replaces it only if its stamp has not changed. An eviction removes the value and
//! a put replaces it, so both win against an earlier refresh.
//!
//! The model is the same for refreshes by a caller and in the background. A refresh lease can expire at any time, so two
//! refreshes can run at the same time.

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
fn a_refresh_that_checks_its_lease_instead_of_the_stamp_is_caught() {
    let explored = explore(&twin(Fill::RefreshWhereAnyStands));

    explored.assert_breaks(Wrong::StaleEntry);
}
