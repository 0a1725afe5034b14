use std::iter;

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
        let kept = Arc::new(Held::new(facts, Some(value.to_owned())));
        self.local.keep(key, kept.clone());
        kept
    }

    fn find(&self, key: &Key, shape: Shape) -> Found {
        let now = self.local.now();
        self.local.find(key.as_str(), iter::empty(), shape, now)
    }

    fn keep(&self, key: &Key, value: &str) {
        self.kept(key, value, self.local.reading(key, &[]));
    }

    /// Returns the value, if it is certain.
    fn certain(&self, key: &Key) -> Option<String> {
        match self.find(key, SHAPE) {
            Found::Certain(kept) => kept.value::<Option<String>>().cloned().flatten(),
            _ => None,
        }
    }

    fn is_doubtful(&self, key: &Key) -> bool {
        matches!(self.find(key, SHAPE), Found::Doubtful(_))
    }

    fn is_gone(&self, key: &Key) -> bool {
        matches!(self.find(key, SHAPE), Found::Nothing)
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
            local.doubts.ear().hears(vec!["dev_".to_owned()]);
        }),
        ("another server", |local| local.doubts.lost_track()),
    ];
    for (what, change) in changes {
        let lab = Lab::new();
        lab.keep(&key("user:1"), "Ada");

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
    let of_newer = lab
        .local
        .answer_to_another(&key, &newer, answer.clone(), PERIOD);
    assert!(matches!(of_newer.await, Doubt::Confirmed));
    let of_older = lab.local.answer_to_another(&key, &older, answer, PERIOD);
    assert!(matches!(of_older.await, Doubt::Changed));
}

#[test]
fn a_value_of_another_type_or_version_is_not_found() {
    let lab = Lab::new();
    lab.keep(&key("user:1"), "Ada");

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

    local.doubts.ear().hears(vec!["dev_user:".to_owned()]);

    assert!(local.keeps(&key("user:1"), &[]) && !local.keeps(&key("event:1"), &[]));
}
