//! An eviction of a tag removes one key, and every entry that names its stamp is a miss from then on. So a load captures the
//! stamps of its tags before its body, and a tag that is lost makes misses and never a stale hit.
//!
//! Two readers, and two writers that each evict another tag, or put. The keys of tags can be lost at any time.

use crate::explorer::{Wrong, explore};
use crate::row::Clock;
use crate::tagged::{Asks, Captures, Checks, Does, Resends, Rules, Stale, Tagged, Task};

fn as_built() -> Tagged {
    Tagged {
        readers: 2,
        rules: Rules::AS_BUILT,
        writers: vec![
            Task::new(Does::Evict { tag: 0 }),
            Task::new(Does::Evict { tag: 1 }),
        ],
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

fn twin(rules: Rules) -> Tagged {
    Tagged {
        rules,
        ..as_built()
    }
}

const REACHED: [&str; 7] = [
    "hits",
    "finds a tag evicted",
    "removes what its tag left",
    "finds what was filled meanwhile",
    "captures a tag",
    "fills",
    "evicts the tag",
];

#[test]
fn no_value_older_than_the_eviction_of_one_of_its_tags_is_taken() {
    explore(&as_built()).assert_holds(5_000, &REACHED);
}

/// In a cluster the entry and its tags are on several servers, and each answers by itself.
#[test]
fn tags_may_be_read_before_the_entry() {
    let explored = explore(&twin(Rules {
        asks: Asks::TagsFirst,
        ..Rules::AS_BUILT
    }));

    explored.assert_holds(5_000, &REACHED);
}

#[test]
fn a_tag_that_is_lost_makes_no_stale_hit() {
    let explored = explore(&Tagged {
        writers: vec![Task::new(Does::Evict { tag: 0 })],
        loses_tags: true,
        ..as_built()
    });

    explored.assert_holds(5_000, &REACHED);
    explored.assert_holds(5_000, &["a tag is lost"]);
}

#[test]
fn a_lease_that_ends_early_makes_no_stale_hit() {
    let explored = explore(&Tagged {
        clock: Clock {
            ends_leases: true,
            ..as_built().clock
        },
        ..as_built()
    });

    explored.assert_holds(5_000, &["the lease ends", "is refused the fill"]);
}

#[test]
fn a_stale_value_of_an_evicted_tag_is_not_served() {
    let explored = explore(&in_grace(Rules::AS_BUILT));

    explored.assert_holds(
        5_000,
        &[
            "gets the refresh lease",
            "serves stale",
            "is refused the fill",
            "finds a tag evicted",
        ],
    );
}

fn in_grace(rules: Rules) -> Tagged {
    Tagged {
        rules,
        writers: vec![Task::new(Does::Evict { tag: 1 })],
        clock: Clock {
            has_grace: true,
            ..as_built().clock
        },
        ..as_built()
    }
}

#[test]
fn puts_and_evictions_of_a_tag_leave_no_older_value() {
    explore(&with_put(Rules::AS_BUILT)).assert_holds(
        10_000,
        &[
            "puts",
            "is refused the put",
            "evicts the tag",
            "hits",
            "fills",
        ],
    );
}

fn with_put(rules: Rules) -> Tagged {
    Tagged {
        readers: 1,
        rules,
        writers: vec![Task::new(Does::Put), Task::new(Does::Evict { tag: 0 })],
        clock: Clock {
            ends_fences: true,
            ..as_built().clock
        },
        loses_tags: true,
        ..as_built()
    }
}

#[test]
fn a_capture_that_is_sent_again_has_a_new_stamp() {
    let sent_again = |resends| {
        explore(&Tagged {
            writers: vec![Task::new(Does::Evict { tag: 0 })],
            loses_tags: true,
            resends,
            ..as_built()
        })
    };

    sent_again(Resends::WithANewStamp).assert_holds(5_000, &["a capture is sent again"]);
    sent_again(Resends::WithTheSameStamp).assert_breaks(Wrong::StaleEntry);
}

#[test]
fn tags_captured_after_the_body_are_caught() {
    let explored = explore(&twin(Rules {
        captures: Captures::Late,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_second_tag_captured_after_the_body_is_caught() {
    let explored = explore(&twin(Rules {
        captures: Captures::OneLate,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_put_that_captures_after_its_body_is_caught() {
    let explored = explore(&with_put(Rules {
        captures: Captures::Late,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_reader_that_checks_only_the_tags_of_its_own_call_is_caught() {
    let explored = explore(&twin(Rules {
        checks: Checks::OnlyTheFirst,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_reader_that_accepts_a_tag_without_a_key_is_caught() {
    let explored = explore(&twin(Rules {
        checks: Checks::OnlyThoseThatExist,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_reader_that_uses_the_tags_of_an_earlier_call_is_caught() {
    let explored = explore(&twin(Rules {
        asks: Asks::TagsOfAnEarlierCall,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn a_stale_value_whose_tags_are_not_checked_is_caught() {
    let explored = explore(&in_grace(Rules {
        stale: Stale::Unchecked,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn a_stamp_that_begins_again_after_a_loss_is_caught() {
    let explored = explore(&twin(Rules {
        counts: true,
        ..Rules::AS_BUILT
    }));

    explored.assert_breaks(Wrong::StaleAnswer);
}
