//! A process that fenced a tag and dies between its commit and its eviction leaves no stale value, and its fence ends.
//!
//! Two consecutive writers that may die at any moment, and two readers, or one of a tag over the return value.

use crate::explorer::{Wrong, explore};
use crate::row::Clock;
use crate::tagged::{Does, FenceMarker, Resends, Rules, Tagged, Task};

/// The tag over the arguments, and the tag that may be over the return value.
const EITHER: [usize; 2] = [0, 1];

fn dying(does: Does, rules: Rules) -> Tagged {
    let task = Task {
        may_die: true,
        ..Task::new(does)
    };
    Tagged {
        readers: 2,
        rules,
        writers: vec![task; 2],
        one_after_another: true,
        clock: Clock {
            ends_leases: true,
            ends_values: false,
            ends_fences: false,
            has_grace: false,
        },
        loses_tags: false,
        resends: Resends::Never,
    }
}

const OVER_THE_RETURN_VALUE: Rules = Rules {
    has_family: true,
    ..Rules::AS_BUILT
};

#[test]
fn a_writer_that_fenced_a_tag_and_dies_leaves_no_stale_value() {
    for tag in EITHER {
        let explored = explore(&dying(Does::EvictBehindFence { tag }, Rules::AS_BUILT));

        explored.assert_holds(
            10_000,
            &[
                "dies",
                "the fence of a tag ends",
                "finds a tag fenced",
                "fills",
            ],
        );
    }
}

#[test]
fn a_writer_that_fenced_a_tag_over_the_return_value_and_dies_leaves_no_stale_value() {
    let does = Does::EvictBehindFence { tag: 1 };
    let explored = explore(&Tagged {
        readers: 1,
        ..dying(does, OVER_THE_RETURN_VALUE)
    });

    explored.assert_holds(
        4_000,
        &[
            "dies",
            "the fence of a tag ends",
            "the marker of a fence ends",
            "finds its family fenced",
            "finds a tag fenced",
            "finds another marker",
            "fills",
        ],
    );
}

#[test]
fn a_writer_that_dies_without_a_fence_is_caught() {
    let explored = explore(&dying(Does::Evict { tag: 0 }, Rules::AS_BUILT));

    explored.assert_breaks(Wrong::StaleAtRest);
}

#[test]
fn a_load_that_stores_although_it_captured_a_fence_is_caught() {
    let rules = Rules {
        ignores_fences: true,
        ..Rules::AS_BUILT
    };
    let explored = explore(&dying(Does::EvictBehindFence { tag: 0 }, rules));

    explored.assert_breaks(Wrong::StaleAtRest);
}

/// The life of a tag is raised above the life of each entry that names it. A fence must end by itself.
#[test]
fn a_capture_that_prolongs_a_fence_is_caught() {
    let rules = Rules {
        prolongs_fences: true,
        ..Rules::AS_BUILT
    };
    let explored = explore(&dying(Does::EvictBehindFence { tag: 0 }, rules));

    explored.assert_breaks(Wrong::Stuck);
}

/// The tag of a load that began under the fence may only be known when the fence has ended.
#[test]
fn a_fence_that_leaves_the_family_open_is_caught() {
    for fence_marker in [FenceMarker::Replaced, FenceMarker::Removed] {
        let mut model = dying(Does::EvictBehindFence { tag: 1 }, OVER_THE_RETURN_VALUE);
        model.readers = 1;
        for task in &mut model.writers {
            task.fence_marker = fence_marker;
        }

        explore(&model).assert_breaks(Wrong::StaleAtRest);
    }
}

#[test]
fn a_load_that_stores_although_it_captured_the_fence_of_its_family_is_caught() {
    let rules = Rules {
        ignores_fences: true,
        ..OVER_THE_RETURN_VALUE
    };
    let explored = explore(&Tagged {
        readers: 1,
        ..dying(Does::EvictBehindFence { tag: 1 }, rules)
    });

    explored.assert_breaks(Wrong::StaleAtRest);
}

/// A limit of fences: an eviction by another writer removes the fence of a tag and of its family, as it removes the fence of an
/// entry.
#[test]
fn a_writer_that_dies_after_its_tag_was_evicted_is_caught() {
    for (tag, rules) in [(0, Rules::AS_BUILT), (1, OVER_THE_RETURN_VALUE)] {
        let explored = explore(&Tagged {
            readers: 1,
            one_after_another: false,
            ..dying(Does::EvictBehindFence { tag }, rules)
        });

        explored.assert_breaks(Wrong::StaleAtRest);
    }
}
