//! A tag over the return value has no name before the body, so its stamp is captured after the body. The marker of its family
//! shows whether a tag of the family was evicted meanwhile: it is captured before the body, and read again after the tag was
//! captured. An eviction removes the marker first, and then the tag.
//!
//! Two readers whose second tag is over the return value, and two writers that evict it, or the tag over the arguments.

use crate::explorer::{Wrong, explore};
use crate::row::Clock;
use crate::tagged::{Does, Marks, Rereads, Resends, Rules, Tagged, Task};

const AS_BUILT: Rules = Rules {
    has_family: true,
    ..Rules::AS_BUILT
};

fn evicting(rules: Rules, writers: Vec<Task>) -> Tagged {
    Tagged {
        readers: 2,
        rules,
        writers,
        one_after_another: false,
        clock: Clock {
            ends_leases: false,
            // So that a load may begin at any time.
            ends_values: true,
            ends_fences: false,
            has_grace: false,
        },
        loses_tags: false,
        resends: Resends::Never,
    }
}

const BOTH: [Task; 2] = [
    Task::new(Does::Evict { tag: 0 }),
    Task::new(Does::Evict { tag: 1 }),
];

const REACHED: [&str; 7] = [
    "captures the marker",
    "captures a tag late",
    "finds its marker",
    "finds another marker",
    "releases its lease",
    "fills",
    "hits",
];

#[test]
fn no_value_older_than_the_eviction_of_a_tag_over_it_is_taken() {
    explore(&evicting(AS_BUILT, BOTH.to_vec())).assert_holds(10_000, &REACHED);
}

#[test]
fn two_evictions_of_a_tag_over_the_return_value_leave_no_older_value() {
    explore(&evicting(AS_BUILT, vec![BOTH[1]; 2])).assert_holds(10_000, &REACHED);
}

#[test]
fn a_marker_that_is_lost_makes_no_stale_hit() {
    let explored = explore(&Tagged {
        loses_tags: true,
        ..evicting(AS_BUILT, vec![BOTH[1]])
    });

    explored.assert_holds(10_000, &REACHED);
    explored.assert_holds(10_000, &["a marker is lost", "a tag is lost"]);
}

fn rereading(rereads: Rereads) -> Tagged {
    evicting(
        Rules {
            rereads,
            ..AS_BUILT
        },
        BOTH.to_vec(),
    )
}

#[test]
fn a_marker_that_is_not_read_again_is_caught() {
    explore(&rereading(Rereads::Never)).assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_marker_that_is_read_again_before_the_tag_is_captured_is_caught() {
    explore(&rereading(Rereads::BeforeTheCapture)).assert_breaks(Wrong::StaleEntry);
}

fn marking(marks: Marks) -> Tagged {
    let task = Task { marks, ..BOTH[1] };
    evicting(AS_BUILT, vec![task])
}

#[test]
fn an_eviction_that_replaces_the_marker_after_the_tag_is_caught() {
    explore(&marking(Marks::AfterTheTag)).assert_breaks(Wrong::StaleEntry);
}

/// A limit of tags over the return value: the `DEL` of a tag by hand is not a complete eviction.
#[test]
fn an_eviction_without_a_marker_is_caught() {
    explore(&marking(Marks::Never)).assert_breaks(Wrong::StaleEntry);
}
