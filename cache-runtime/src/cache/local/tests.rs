use std::iter;

use super::hot::HOT_MILLIS;
use super::*;
use crate::clock::{COARSE, Clock};

const PERIOD: Duration = Duration::from_secs(5);
const FRESH: Duration = Duration::from_secs(60);
const SHAPE: Shape = Shape {
    of_type: 1,
    version: 0,
};

/// A tier whose clock a test drives. It hears of changes until a test says otherwise.
struct Lab {
    local: Local,
    clock: Clock,
}

impl Lab {
    fn new() -> Self {
        Self::with_capacity(64 << 20)
    }

    fn with_capacity(capacity: usize) -> Self {
        let clock = Clock::stopped();
        let config = Config::default()
            .clock(clock.clone())
            .local_capacity(capacity);
        Self {
            local: Local::new(&config, true),
            clock,
        }
    }

    fn kept(&self, key: &Key, value: &str, reading: Reading) -> Arc<Kept> {
        self.kept_as([7; 8], key, value, reading)
    }

    fn kept_as(&self, stamp: Stamp, key: &Key, value: &str, reading: Reading) -> Arc<Kept> {
        let meta = Meta {
            stamp,
            stored: 0,
            fresh_until: 0,
            is_checked: false,
        };
        let facts = self.local.facts(
            (key, SHAPE),
            meta,
            FRESH,
            value.len(),
            Box::default(),
            (reading, PERIOD),
        );
        let value = Box::new(Some(value.to_owned()));
        self.local.keep(key, facts, value);
        match self.find(key, SHAPE) {
            Found::Certain(kept) | Found::Doubtful(kept) => kept,
            Found::Nothing => panic!("the value is kept"),
        }
    }

    fn find(&self, key: &Key, shape: Shape) -> Found {
        let now = self.local.now();
        self.local.find(key.as_str(), iter::empty(), shape, now)
    }

    fn keep(&self, key: &Key, value: &str) {
        self.kept(key, value, self.local.reading(key, &[]));
    }

    /// Returns the value as a hit finds it.
    fn hit(&self, key: &Key, shape: Shape) -> Option<String> {
        let now = self.local.now();
        let take = |kept: &Kept| kept.value::<Option<String>>().cloned().flatten();
        let tags = iter::empty();
        let found = self
            .local
            .find_certain(key.as_str(), tags, shape, now, take);
        found.flatten()
    }

    /// Returns the value, if it is certain. The first hit may find it in the map, and the second finds it in the hot table.
    fn certain(&self, key: &Key) -> Option<String> {
        let found = match self.find(key, SHAPE) {
            Found::Certain(kept) => kept.value::<Option<String>>().cloned().flatten(),
            _ => None,
        };
        assert_eq!(self.hit(key, SHAPE), found);
        assert_eq!(self.hit(key, SHAPE), found);
        found
    }

    fn is_doubtful(&self, key: &Key) -> bool {
        self.hit(key, SHAPE).is_none() && matches!(self.find(key, SHAPE), Found::Doubtful(_))
    }

    fn is_gone(&self, key: &Key) -> bool {
        self.hit(key, SHAPE).is_none() && matches!(self.find(key, SHAPE), Found::Nothing)
    }

    /// Returns whether the next hit need not go through the map.
    fn is_hot(&self, key: &Key) -> bool {
        let hash = self.local.hash(key);
        let hot = &self.local.values.get().expect("a value was kept").hot;
        let there = hot.get(hash);
        let is_named = |kept: &Arc<Kept>| kept.is_named(hash, key.as_str());
        there.as_ref().is_some_and(is_named)
    }
}

fn key(name: &str) -> Key {
    Key::parse("dev_", name).expect("a valid key")
}

#[test]
fn a_value_is_certain_until_its_period_ends_and_gone_when_its_entry_is_stale() {
    let lab = Lab::new();
    lab.keep(&key("user:1"), "Ada");
    assert_eq!(lab.certain(&key("user:1")).as_deref(), Some("Ada"));

    lab.clock
        .advance(PERIOD - Duration::from_millis(COARSE + 1));
    assert!(lab.certain(&key("user:1")).is_some());

    lab.clock.advance(Duration::from_millis(1));
    assert!(lab.is_doubtful(&key("user:1")));

    lab.clock.advance(FRESH - PERIOD);
    assert!(lab.is_gone(&key("user:1")));
}

#[test]
fn a_change_between_a_read_and_its_insertion_leaves_the_value_doubtful() {
    let lab = Lab::new();
    let reading = lab.local.reading(&key("user:1"), &[]);

    lab.local.doubt(&[Target::Key(key("user:1"))]);
    lab.kept(&key("user:1"), "Ada", reading);

    assert!(lab.is_doubtful(&key("user:1")));
}

#[test]
fn every_kind_of_change_leaves_values_doubtful() {
    type Change = fn(&Local);
    let changes: [(&str, Change); 5] = [
        ("an eviction by key", |local| {
            local.doubt(&[Target::Key(key("user:1"))]);
        }),
        ("an eviction of all entries", |local| {
            local.doubt(&[Target::All]);
        }),
        ("a push", |local| local.doubts.changed(b"dev_user:1")),
        ("another connection", |local| {
            local.doubts.feed().covers(vec!["dev_".to_owned()]);
        }),
        ("another server", |local| local.doubts.lost_track()),
    ];
    for (what, change) in changes {
        let lab = Lab::new();
        lab.keep(&key("user:1"), "Ada");
        assert!(lab.certain(&key("user:1")).is_some() && lab.is_hot(&key("user:1")));

        change(&lab.local);

        assert!(lab.is_doubtful(&key("user:1")), "{what}");
    }
}

#[test]
fn a_confirmed_value_is_certain_again_but_not_beyond_its_entry() {
    let lab = Lab::new();
    let kept = lab.kept(
        &key("user:1"),
        "Ada",
        lab.local.reading(&key("user:1"), &[]),
    );
    lab.local.doubt(&[Target::All]);

    kept.confirm(
        lab.local.reading(&key("user:1"), &[]),
        lab.local.until(FRESH * 2),
    );

    assert!(lab.certain(&key("user:1")).is_some());
    lab.clock.advance(FRESH);
    assert!(lab.is_gone(&key("user:1")));
}

/// The beginning of an entry with this stamp.
fn head(stamp: Stamp) -> Vec<u8> {
    [[0; 8], stamp].concat()
}

#[tokio::test]
async fn an_answer_about_one_entry_says_nothing_about_another() {
    let (lab, key) = (Lab::new(), key("user:1"));
    let newer = lab.kept(&key, "Ada", lab.local.reading(&key, &[]));
    lab.local.doubt(&[Target::All]);

    let Asking::Asker(asker) = lab.local.ask(&key, &newer) else {
        panic!("nobody else asks")
    };
    // A slow reader puts what it read before the last change in its place.
    let older = lab.kept_as([6; 8], &key, "Bob", lab.local.reading(&key, &[]));
    let Asking::Waiter(answer) = lab.local.ask(&key, &older) else {
        panic!("the first caller asks")
    };
    let doubt = asker.judge(Ok(vec![Some(head([7; 8]))]), PERIOD);

    assert!(matches!(doubt, Doubt::Confirmed));
    let of_newer = lab.local.answer_to_another(&newer, answer.clone(), PERIOD);
    assert!(matches!(of_newer.await, Doubt::Confirmed));
    let of_older = lab.local.answer_to_another(&older, answer, PERIOD);
    assert!(matches!(of_older.await, Doubt::Changed));
}

#[test]
fn a_value_of_another_type_or_version_is_not_found() {
    let lab = Lab::new();
    lab.keep(&key("user:1"), "Ada");
    lab.certain(&key("user:1"));

    for shape in [
        Shape {
            version: 1,
            ..SHAPE
        },
        Shape {
            of_type: 2,
            ..SHAPE
        },
    ] {
        let found = lab.find(&key("user:1"), shape);
        assert!(matches!(found, Found::Nothing), "{shape:?}");
        assert_eq!(lab.hit(&key("user:1"), shape), None);
    }
}

#[test]
fn the_weight_never_exceeds_the_capacity_and_evictions_are_counted() {
    let lab = Lab::with_capacity(1 << 20);
    let value = "x".repeat(1_000);

    for id in 0..2_000 {
        lab.keep(&key(&format!("user:{id}")), &value);
        assert!(lab.local.usage().1 <= 1 << 20);
    }

    let (values, weight) = lab.local.usage();
    let evicted = lab.local.counts.evicted.load(Relaxed);
    assert_eq!(values as u64 + evicted, 2_000);
    let each = weight / values as u64;
    assert!((2_256..2_300).contains(&each), "{each}");
}

#[test]
fn keys_with_other_beginnings_are_not_kept() {
    let clock = Clock::stopped();
    let local = Local::new(&Config::default().clock(clock), false);
    assert!(!local.keeps(&key("user:1"), &[]));

    local.doubts.feed().covers(vec!["dev_user:".to_owned()]);

    assert!(local.keeps(&key("user:1"), &[]) && !local.keeps(&key("event:1"), &[]));
}

#[test]
fn a_value_that_the_map_forgets_is_not_hot_either() {
    let lab = Lab::with_capacity(1 << 20);
    let (evicted, forgotten) = (key("user:1"), key("user:2"));
    lab.keep(&evicted, "Ada");
    lab.keep(&forgotten, "Bob");
    assert!(lab.certain(&evicted).is_some() && lab.certain(&forgotten).is_some());
    assert!(lab.is_hot(&evicted) && lab.is_hot(&forgotten));

    lab.local.forget(&forgotten);
    for id in 3..3_000 {
        lab.keep(&key(&format!("user:{id}")), &"x".repeat(1_000));
    }

    assert!(lab.is_gone(&forgotten) && !lab.is_hot(&forgotten));
    assert!(lab.is_gone(&evicted) && !lab.is_hot(&evicted));
}

#[test]
fn a_value_that_is_evicted_while_it_becomes_hot_does_not_stay_so() {
    let lab = Lab::new();
    let user = key("user:1");
    let kept = lab.kept(&user, "Ada", lab.local.reading(&user, &[]));
    lab.local.forget(&user);

    // As a hit does that found it in the map just before.
    let values = lab.local.values.get().expect("a value was kept");
    values.promote(&kept, lab.local.now());

    assert!(!lab.is_hot(&user));
}

#[test]
fn another_value_of_the_key_is_found_at_once() {
    let lab = Lab::new();
    lab.keep(&key("user:1"), "Ada");
    assert_eq!(lab.certain(&key("user:1")).as_deref(), Some("Ada"));

    lab.keep(&key("user:1"), "Bob");

    assert_eq!(lab.certain(&key("user:1")).as_deref(), Some("Bob"));
}

#[test]
fn keys_that_share_a_slot_of_the_hot_table_take_turns() {
    let lab = Lab::new();
    let keys: Vec<_> = (0..1_000).map(|id| key(&format!("user:{id}"))).collect();
    let slot = |key: &Key| HotTable::index(lab.local.hash(key));
    let pairs = keys.iter().enumerate();
    let mut pairs = pairs.flat_map(|(at, one)| keys[..at].iter().map(move |other| (one, other)));
    let (one, other) = pairs
        .find(|(one, other)| slot(one) == slot(other))
        .expect("two of 1,000 keys share a slot");
    lab.keep(one, "Ada");
    lab.keep(other, "Bob");

    for _ in 0..3 {
        assert_eq!(lab.certain(one).as_deref(), Some("Ada"));
        assert_eq!(lab.certain(other).as_deref(), Some("Bob"));
        assert!(lab.is_hot(one));
    }
    lab.clock.advance(Duration::from_millis(HOT_MILLIS));

    assert_eq!(lab.certain(other).as_deref(), Some("Bob"));
    assert_eq!(lab.certain(one).as_deref(), Some("Ada"));
    assert!(lab.is_hot(other));
}
