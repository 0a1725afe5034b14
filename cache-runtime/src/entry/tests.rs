mod deploys;
mod tags;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::header::*;
use super::*;
use crate::clock::whole_millis;

const LIMITS: Limits = Limits {
    max_value: 1 << 20,
    compress_above: 1 << 10,
    card_guard: false,
    checks: true,
};
const HERE: Origin = Origin {
    build: 7,
    of_type: 8,
    version: 9,
};
const NOW: u64 = 1_000_000;
const TTL: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Event {
    id: i64,
    title: String,
    price: f64,
}

fn event(title: &str) -> Event {
    Event {
        id: 42,
        title: title.to_owned(),
        price: 0.1 + 0.2,
    }
}

fn key(name: &str) -> Key {
    Key::render("dev_", |key| {
        key.text(name);
    })
}

fn draft(key: &Key) -> Draft<'_> {
    Draft {
        key,
        origin: HERE,
        layers: Layers::Nothing,
        now: NOW,
        fresh: Duration::from_secs(60),
        cost: Duration::from_millis(12),
        tags: &[],
    }
}

/// Reads an entry as its writer.
fn read<T: Serialize + DeserializeOwned>(bytes: &[u8], key: &Key, served_from: u64) -> Read<T> {
    read_from(HERE, bytes, key, served_from)
}

fn read_from<T: Serialize + DeserializeOwned>(
    origin: Origin,
    bytes: &[u8],
    key: &Key,
    served_from: u64,
) -> Read<T> {
    super::read_as(
        bytes,
        &Reader {
            key,
            origin,
            now: served_from,
            grace: 0,
            max_value: LIMITS.max_value,
        },
    )
}

#[test]
fn a_value_is_read_with_its_header() {
    let key = key("event:42");
    let entry = value(&draft(&key), &event("x"), &LIMITS).expect("stored");

    let read = read::<Event>(entry.as_bytes(), &key, NOW + 59_999);

    let meta = Meta {
        stamp: entry.stamp(),
        stored: NOW,
        fresh_until: NOW + 60_000,
        is_checked: false,
    };
    assert_eq!(read, Read::Value(event("x"), meta));
    assert_eq!(stamp_of(entry.as_bytes()), entry.stamp());
}

#[test]
fn the_layout_of_the_bytes_is_fixed() {
    let key = key("event:42");
    let entry = value(&draft(&key), &"x".to_owned(), &LIMITS).expect("stored");
    let fence = fence(&key, NOW, TTL);

    let bytes = entry.as_bytes();

    assert_eq!(bytes[..8], [0xca, 0xce, 0x45, 3, 1, 0, 4, 0]);
    assert_eq!(bytes[16..24], key.hash().to_le_bytes());
    assert_eq!(bytes[24..32], 7_u64.to_le_bytes());
    assert_eq!(bytes[32..40], 8_u64.to_le_bytes());
    assert_eq!(bytes[40..48], 9_u64.to_le_bytes());
    assert_eq!(bytes[48..56], 1_000_000_u64.to_le_bytes());
    assert_eq!(bytes[56..64], 1_060_000_u64.to_le_bytes());
    assert_eq!(bytes[64..72], [0; 8]);
    assert_eq!(bytes[72..76], 12_000_u32.to_le_bytes());
    assert_eq!(&bytes[80..], br#""x""#);
    assert_eq!(fence.as_bytes()[FENCE_COUNT_AT..], [1, 0, 0, 0]);
}

#[test]
fn a_value_is_stale_after_its_ttl_and_expired_after_its_grace() {
    let key = key("event:42");
    let value = value(&draft(&key), &event("x"), &LIMITS).expect("stored");
    let grace = 10_000;

    for entry in [value, none(&draft(&key))] {
        let stale = |now: u64| match read::<Event>(entry.as_bytes(), &key, now - grace) {
            Read::Value(_, meta) | Read::None(meta) => Some(meta.is_stale(now)),
            Read::Expired => None,
            read => panic!("{read:?}"),
        };

        assert_eq!(stale(NOW + 59_999), Some(false));
        assert_eq!(stale(NOW + 60_000), Some(true));
        assert_eq!(stale(NOW + 69_999), Some(true));
        assert_eq!(stale(NOW + 70_000), None);
        let without_grace = read::<Event>(entry.as_bytes(), &key, NOW + 60_000);
        assert_eq!(without_grace, Read::Expired);
    }
}

#[test]
fn a_flipped_bit_in_a_value_is_detected_except_in_the_refresh_lease() {
    let key = key("event:42");
    let value = value(&draft(&key), &event("x"), &LIMITS).expect("stored");

    for entry in [value, none(&draft(&key))] {
        let whole = read::<Event>(entry.as_bytes(), &key, NOW);
        for bit in 0..8 * entry.as_bytes().len() {
            let mut bytes = entry.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);

            let read = read::<Event>(&bytes, &key, NOW);

            match bit / 8 {
                REFRESH_AT..COST_AT => assert_eq!(read, whole, "bit {bit}"),
                _ => assert!(matches!(read, Read::Unreadable(_)), "bit {bit}: {read:?}"),
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_a_claim_is_detected_except_in_the_count() {
    let key = key("event:42");

    for claim in [lease(&key, NOW, TTL), fence(&key, NOW, TTL)] {
        let whole = read::<Event>(claim.as_bytes(), &key, NOW);
        for bit in 0..8 * claim.as_bytes().len() {
            let mut bytes = claim.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);

            let read = read::<Event>(&bytes, &key, NOW);

            match bit / 8 {
                REFRESH_AT..COST_AT | FENCE_COUNT_AT.. => assert_eq!(read, whole, "bit {bit}"),
                _ => assert!(matches!(read, Read::Unreadable(_)), "bit {bit}: {read:?}"),
            }
        }
    }
}

#[test]
fn a_claim_expires_at_its_end_plus_the_clock_skew() {
    let key = key("event:42");
    let last = NOW + whole_millis(TTL + CLOCK_SKEW);

    for claim in [lease(&key, NOW, TTL), fence(&key, NOW, TTL)] {
        let bytes = claim.as_bytes();
        let read = |now| read::<Event>(bytes, &key, now);

        assert!(matches!(read(last - 1), Read::Lease | Read::Fence));
        assert_eq!(read(last), Read::Expired);
        assert!(is_standing_claim(bytes, &key, NOW) && !is_standing_claim(bytes, &key, last));
        assert!(!is_dead(bytes, NOW, last) && is_dead(bytes, NOW, last + 1));
        assert!(is_dead(bytes, NOW, u64::MAX));
    }
    assert!(!is_standing_claim(b"42", &key, NOW));
}

#[test]
fn a_renewed_lease_keeps_its_stamp_and_ends_later() {
    let key = key("event:42");
    let first = lease(&key, NOW, TTL);

    let renewed = renewed_lease(first.stamp(), &key, NOW + 1_000, TTL);

    let last = NOW + whole_millis(TTL + CLOCK_SKEW);
    assert_eq!(renewed.stamp(), first.stamp());
    assert_eq!(read::<Event>(renewed.as_bytes(), &key, last), Read::Lease);
    assert_eq!(read::<Event>(first.as_bytes(), &key, last), Read::Expired);
}

#[test]
fn the_refresh_lease_is_at_its_documented_offset() {
    let key = key("event:42");
    let mut bytes = none(&draft(&key)).into_bytes();
    assert_eq!(refreshed_until(&bytes), Some(0));

    set_refreshed_until(&mut bytes, NOW);

    assert_eq!(bytes[64..72], NOW.to_le_bytes());
    assert_eq!(refreshed_until(&bytes), Some(NOW));
    for other in [&b""[..], b"42", &bytes[..71], &bytes[1..]] {
        let mut same = other.to_vec();
        assert_eq!(refreshed_until(other), None);
        set_refreshed_until(&mut same[..other.len().min(71)], 1);
        assert_eq!(same, other);
    }
}

#[test]
fn an_entry_with_a_changed_ttl_has_no_refresh_lease() {
    let key = key("event:42");
    let mut marked = value(&draft(&key), &event("x"), &LIMITS)
        .expect("stored")
        .into_bytes();
    set_refreshed_until(&mut marked, NOW + 3_000);

    let (seen, longer) =
        with_ttl(&marked, &key, NOW, Duration::from_secs(90)).expect("it is fresh");

    assert_eq!(seen, stamp_of(&marked));
    assert_ne!(longer.stamp(), seen);
    assert_eq!(refreshed_until(longer.as_bytes()), Some(0));
    let read = read::<Event>(longer.as_bytes(), &key, NOW + 89_999);
    assert!(matches!(read, Read::Value(..)), "{read:?}");
}

#[test]
fn none_leases_and_fences_are_distinguished() {
    let key = key("event:42");
    let (none, lease, mut fence) = (
        none(&draft(&key)),
        lease(&key, NOW, TTL),
        fence(&key, NOW, TTL).into_bytes(),
    );
    fence[FENCE_COUNT_AT] += 1;

    assert!(matches!(
        read::<Event>(none.as_bytes(), &key, NOW),
        Read::None(_)
    ));
    assert_eq!(read::<Event>(lease.as_bytes(), &key, NOW), Read::Lease);
    assert_eq!(read::<Event>(&fence, &key, NOW), Read::Fence);
    let kinds = [none.as_bytes(), lease.as_bytes(), &fence, b"x"]
        .map(|bytes| check_header(bytes, &key).ok());
    assert_eq!(
        kinds,
        [Some(Kind::None), Some(Kind::Lease), Some(Kind::Fence), None]
    );
}

#[test]
fn a_large_value_is_compressed_when_that_helps() {
    let key = key("event:42");
    let long = event(&"tickets ".repeat(500));
    let noise: String = (0..2_000_u32)
        .map(|n| char::from(b'0' + xxh3_64(&n.to_le_bytes()) as u8 % 75))
        .filter(|c| *c != '\\')
        .collect();

    let packed = value(&draft(&key), &long, &LIMITS).expect("stored");
    let plain = value(&draft(&key), &noise, &LIMITS).expect("stored");

    assert!(packed.as_bytes().len() < 300, "{}", packed.as_bytes().len());
    assert_eq!(packed.as_bytes()[FLAGS_AT], COMPRESSED);
    assert_eq!(plain.as_bytes()[FLAGS_AT], 0);
    assert!(
        matches!(read::<Event>(packed.as_bytes(), &key, NOW), Read::Value(read, _) if read == long)
    );
    assert!(
        matches!(read::<String>(plain.as_bytes(), &key, NOW), Read::Value(read, _) if read == noise)
    );
}

#[test]
fn an_oversized_value_is_refused_before_it_is_encoded_completely() {
    #[derive(Deserialize)]
    struct Endless;
    impl Serialize for Endless {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_seq(std::iter::repeat("x"))
        }
    }
    let (key, limits) = (
        key("event:42"),
        Limits {
            max_value: 100,
            ..LIMITS
        },
    );

    let refused = value(&draft(&key), &Endless, &limits);
    let fitting = value(&draft(&key), &"x".repeat(98), &limits);

    assert!(
        matches!(refused, Err(Refusal::TooLarge { bytes: 101 })),
        "{refused:?}"
    );
    assert!(fitting.is_ok());
}

#[test]
fn a_value_without_json_is_refused() {
    let key = key("event:42");
    let map = std::collections::HashMap::from([((1, 2), 3)]);

    assert!(matches!(
        value(&draft(&key), &map, &LIMITS),
        Err(Refusal::Encode(_))
    ));
}

#[test]
fn a_card_number_is_refused_if_the_guard_is_on() {
    let (key, guard) = (
        key("event:42"),
        Limits {
            card_guard: true,
            ..LIMITS
        },
    );
    let event = event("paid with 4111 1111 1111 1111");

    assert!(matches!(
        value(&draft(&key), &event, &guard),
        Err(Refusal::Card)
    ));
    assert!(value(&draft(&key), &event, &LIMITS).is_ok());
}

#[test]
fn an_unreadable_entry_has_a_reason() {
    let (key, other) = (key("event:42"), key("event:43"));
    let entry = value(&draft(&key), &event("x"), &LIMITS).expect("stored");
    let bytes = entry.as_bytes();
    let changed = |at: usize, by: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= by;
        bytes
    };
    let why = |bytes: &[u8], key: &Key| match read::<Event>(bytes, key, NOW) {
        Read::Unreadable(why) => why,
        read => panic!("{read:?}"),
    };

    assert_eq!(why(b"", &key), Unreadable::Foreign);
    assert_eq!(why(b"42", &key), Unreadable::Foreign);
    assert_eq!(why(&changed(0, 1), &key), Unreadable::Foreign);
    assert_eq!(why(&changed(3, 3), &key), Unreadable::Format);
    assert_eq!(why(&bytes[..40], &key), Unreadable::Corrupted);
    assert_eq!(why(&bytes[..bytes.len() - 1], &key), Unreadable::Corrupted);
    assert_eq!(why(&changed(HEADER + 3, 1), &key), Unreadable::Corrupted);
    assert_eq!(why(&changed(KIND_AT, 9), &key), Unreadable::Corrupted);
    assert_eq!(why(bytes, &other), Unreadable::OtherKey);
    assert_eq!(
        why(lease(&other, NOW, TTL).as_bytes(), &key),
        Unreadable::OtherKey
    );
    let text = value(&draft(&key), &"text".to_owned(), &LIMITS).expect("stored");
    let undecodable = why(text.as_bytes(), &key);
    assert!(
        matches!(&undecodable, Unreadable::Undecodable(serde) if serde.contains("expected struct Event")),
        "{undecodable:?}"
    );
}

#[test]
fn an_entry_under_another_prefix_has_another_key() {
    let name = |prefix: &str, text: &str| Key::parse(prefix, text).expect("a key");
    let (ours, theirs) = (name("shop_", "admin_x"), name("shop_admin_", "x"));
    assert_eq!(ours.as_str(), theirs.as_str());

    let entry = value(&draft(&theirs), &"x".to_owned(), &LIMITS).expect("stored");

    let read = read::<String>(entry.as_bytes(), &ours, NOW);
    assert_eq!(read, Read::Unreadable(Unreadable::OtherKey));
    assert_eq!(fresh_for(entry.as_bytes(), &ours, NOW), None);
    assert_eq!(
        fresh_for(&entry.as_bytes()[..HEADER], &theirs, NOW),
        Some(draft(&theirs).fresh)
    );
}

#[test]
fn a_false_length_is_not_trusted() {
    let key = key("event:42");
    let mut bytes = header(Kind::Value, &draft(&key)).to_vec();
    bytes[FLAGS_AT] = COMPRESSED;
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    bytes.extend_from_slice(b"0123456789");

    let read = read::<String>(seal(bytes).as_bytes(), &key, NOW);

    assert_eq!(read, Read::Unreadable(Unreadable::TooLarge));
}

#[test]
fn decompression_allocates_at_most_the_size_limit() {
    let key = key("event:42");
    let large = "x".repeat(LIMITS.max_value - 2);
    let entry = value(&draft(&key), &large, &LIMITS).expect("stored");
    let read = |bytes: &[u8], max_value| {
        let reader = Reader {
            key: &key,
            origin: HERE,
            now: NOW,
            grace: 0,
            max_value,
        };
        super::read_as::<String>(bytes, &reader)
    };
    let plain = value(&draft(&key), &"plain".to_owned(), &LIMITS).expect("stored");

    assert!(entry.as_bytes().len() < 10_000, "compressed");
    let whole = read(entry.as_bytes(), LIMITS.max_value);
    assert!(matches!(whole, Read::Value(value, _) if value == large));
    for (entry, length) in [(entry, LIMITS.max_value), (plain, 7)] {
        assert_eq!(
            read(entry.as_bytes(), length - 1),
            Read::Unreadable(Unreadable::TooLarge)
        );
    }
}

#[test]
fn a_value_nested_too_deeply_to_be_read_is_refused() {
    fn nested(depth: usize) -> serde_json::Value {
        (0..depth).fold(json!("[[\"{"), |inner, n| match n % 2 {
            0 => json!([inner]),
            _ => json!({ "in": inner }),
        })
    }
    let key = key("event:42");
    let limits = Limits {
        checks: false,
        ..LIMITS
    };

    for depth in [126, 127] {
        let entry = value(&draft(&key), &nested(depth), &limits).expect("stored");
        let read = read::<serde_json::Value>(entry.as_bytes(), &key, NOW);
        assert!(matches!(read, Read::Value(value, _) if value == nested(depth)));
    }
    for depth in [128, 200] {
        let refused = value(&draft(&key), &nested(depth), &limits);
        assert!(matches!(refused, Err(Refusal::TooDeep)), "{refused:?}");
    }
    let flat: Vec<_> = (0..1_000).map(|_| nested(2)).collect();
    assert!(value(&draft(&key), &flat, &limits).is_ok());
}

#[test]
fn a_value_that_serde_changes_is_refused() {
    #[derive(Default, Serialize, Deserialize)]
    struct Renamed {
        #[serde(rename(serialize = "id", deserialize = "key"))]
        id: i64,
    }
    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Forgotten {
        #[serde(rename(serialize = "id", deserialize = "key"))]
        id: i64,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Number {
        F(f64),
        I(i64),
    }
    #[derive(Serialize, Deserialize)]
    struct WriteOnly {
        #[serde(skip_deserializing)]
        id: i64,
    }
    let key = key("event:42");
    let unchecked = Limits {
        checks: false,
        ..LIMITS
    };
    fn outcome<T: Serialize + DeserializeOwned>(
        key: &Key,
        it: &T,
        limits: &Limits,
    ) -> &'static str {
        match value(&draft(key), it, limits) {
            Ok(_) => "stored",
            Err(Refusal::Undecodable(_)) => "undecodable",
            Err(Refusal::Changed) => "changed",
            Err(_) => "refused",
        }
    }

    assert_eq!(outcome(&key, &Renamed::default(), &LIMITS), "undecodable");
    assert_eq!(outcome(&key, &Forgotten { id: 1 }, &LIMITS), "changed");
    assert_eq!(outcome(&key, &Forgotten { id: 0 }, &LIMITS), "stored");
    assert_eq!(outcome(&key, &Number::I(1), &LIMITS), "changed");
    assert_eq!(outcome(&key, &Number::F(1.0), &LIMITS), "stored");
    assert_eq!(outcome(&key, &WriteOnly { id: 1 }, &LIMITS), "changed");
    assert_eq!(outcome(&key, &Number::I(1), &unchecked), "stored");
}

#[test]
fn an_endless_ttl_does_not_overflow() {
    let key = key("event:42");
    let draft = Draft {
        fresh: Duration::MAX,
        cost: Duration::MAX,
        ..draft(&key)
    };

    let entry = none(&draft);
    let read = read::<String>(entry.as_bytes(), &key, NOW);

    let Read::None(meta) = read else {
        panic!("{read:?}")
    };
    assert_eq!(meta.fresh_until, u64::MAX);
    assert_eq!(entry.as_bytes()[COST_AT..COST_AT + 4], [0xff; 4]);
}

#[test]
fn stamps_are_unique() {
    let stamps: std::collections::HashSet<Stamp> = (0..1_000).map(|_| new_stamp()).collect();

    assert_eq!(stamps.len(), 1_000);
}

/// Entries of every kind, including compressed ones.
fn any_entry() -> impl Strategy<Value = Vec<u8>> {
    ("\\PC{0,40}", 0..60_usize, 0..5_u8).prop_map(|(title, times, kind)| {
        let key = key("event:42");
        let entry = match kind {
            0 => none(&draft(&key)),
            1 => lease(&key, NOW, TTL),
            2 => fence(&key, NOW, TTL),
            _ => value(&draft(&key), &event(&title.repeat(times)), &LIMITS).expect("stored"),
        };
        entry.into_bytes()
    })
}

proptest! {
    #[test]
    fn any_value_is_read_back_unchanged(id: i64, title in "\\PC{0,2000}", price in any::<f64>().prop_filter("JSON knows no others", |price| price.is_finite())) {
        let (key, event) = (key("event:42"), Event { id, title, price });
        let entry = value(&draft(&key), &event, &LIMITS).expect("stored");

        let read = read::<Event>(entry.as_bytes(), &key, NOW);

        prop_assert!(matches!(read, Read::Value(read, _) if read == event));
    }

    #[test]
    fn random_bytes_are_never_a_value(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        start in 0..6_usize,
        kind in 0..6_u8,
    ) {
        // Without a valid beginning nearly all of them would be foreign.
        let mut bytes = bytes;
        let head = [0xca, 0xce, b'E', FORMAT, kind];
        let taken = start.min(bytes.len()).min(head.len());
        bytes[..taken].copy_from_slice(&head[..taken]);

        let read = read::<Event>(&bytes, &key("event:42"), NOW);

        prop_assert!(matches!(read, Read::Unreadable(_)), "{:?}", read);
    }

    #[test]
    fn a_damaged_entry_is_never_a_value(
        entry in any_entry(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..4),
        cut in any::<prop::sample::Index>(),
        cuts: bool,
        mark: u64,
    ) {
        let mut entry = entry;
        set_refreshed_until(&mut entry, mark);
        let mut bytes = entry.clone();
        for (at, bit) in flips {
            // All bytes except the 8 bytes of the refresh lease.
            let at = at.index(bytes.len() - 8);
            let at = if at < REFRESH_AT { at } else { at + 8 };
            bytes[at] ^= 1 << bit;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        prop_assume!(bytes != entry);

        let read = read::<Event>(&bytes, &key("event:42"), NOW);

        prop_assert!(!matches!(read, Read::Value(..) | Read::None(_) | Read::Expired), "{:?}", read);
    }

    #[test]
    fn any_refresh_lease_keeps_the_entry_readable(entry in any_entry(), mark: u64) {
        let mut marked = entry.clone();
        set_refreshed_until(&mut marked, mark);

        let read_as = |bytes: &[u8]| read::<Event>(bytes, &key("event:42"), NOW);
        prop_assert_eq!(read_as(&marked), read_as(&entry));
        prop_assert_eq!(refreshed_until(&marked), Some(mark));
    }

    #[test]
    fn an_entry_is_read_only_under_its_key_and_version(entry in any_entry(), name in "[a-z]{1,8}", version: u64, build: u64) {
        prop_assume!(version != HERE.version);

        let foreign = read::<Event>(&entry, &key(&name), NOW);
        let origin = Origin { build, version, ..HERE };
        let changed = read_from::<Event>(origin, &entry, &key("event:42"), NOW);

        prop_assert_eq!(foreign, Read::Unreadable(Unreadable::OtherKey));
        prop_assert!(!matches!(changed, Read::Value(..) | Read::None(_) | Read::Expired));
    }

    #[test]
    fn a_damaged_payload_with_a_valid_checksum_does_not_panic(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        length in 0..400_u32,
        compressed: bool,
    ) {
        let key = key("event:42");
        let mut bytes = header(Kind::Value, &draft(&key)).to_vec();
        bytes[FLAGS_AT] = compressed.into();
        if compressed {
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        bytes.extend_from_slice(&payload);

        let read = read::<Event>(seal(bytes).as_bytes(), &key, NOW);

        let is_unreadable = matches!(
            read,
            Read::Unreadable(Unreadable::Corrupted | Unreadable::Undecodable(_))
        );
        prop_assert!(is_unreadable, "{:?}", read);
    }
}

#[test]
fn only_entries_of_other_builds_are_checked() {
    /// A type that encodes to another value than it was decoded from.
    #[derive(Debug, PartialEq)]
    struct Lossy;
    impl Serialize for Lossy {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str("something else")
        }
    }
    impl<'de> Deserialize<'de> for Lossy {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            serde::de::IgnoredAny::deserialize(from).map(|_| Self)
        }
    }
    let key = key("event:42");
    let entry = value(&draft(&key), &event("x"), &LIMITS).expect("stored");
    let others = [
        Origin { build: 1, ..HERE },
        Origin { of_type: 1, ..HERE },
        Origin {
            build: Build::NONE,
            ..HERE
        },
    ];

    assert!(matches!(
        read::<Lossy>(entry.as_bytes(), &key, NOW),
        Read::Value(
            Lossy,
            Meta {
                is_checked: false,
                ..
            }
        )
    ));
    for origin in others {
        assert_eq!(
            read_from::<Lossy>(origin, entry.as_bytes(), &key, NOW),
            Read::Unreadable(Unreadable::OtherShape)
        );
        let read = read_from::<Event>(origin, entry.as_bytes(), &key, NOW);
        let is_served = matches!(
            &read,
            Read::Value(value, Meta { is_checked: true, .. }) if *value == event("x")
        );
        assert!(is_served, "{read:?}");
    }
}

#[test]
fn a_program_trusts_entries_from_before_it_knew_its_hash() {
    let early = Origin {
        build: Build::of_process(),
        ..HERE
    };
    let key = key("event:42");
    let draft = Draft {
        origin: early,
        ..draft(&key)
    };
    let entry = value(&draft, &event("x"), &LIMITS).expect("stored");

    for reader in [early, HERE] {
        let read = read_from::<Event>(reader, entry.as_bytes(), &key, NOW);

        assert!(
            matches!(read, Read::Value(_, meta) if !meta.is_checked),
            "{read:?}"
        );
    }
}

#[test]
fn a_none_is_accepted_from_other_builds_but_not_from_other_types() {
    let key = key("event:42");
    let entry = none(&draft(&key));
    let read = |origin| read_from::<Event>(origin, entry.as_bytes(), &key, NOW);

    assert!(matches!(read(HERE), Read::None(_)));
    assert!(matches!(read(Origin { build: 1, ..HERE }), Read::None(_)));
    let other_type = Origin { of_type: 1, ..HERE };
    assert_eq!(read(other_type), Read::Unreadable(Unreadable::OtherShape));
    for version in [0, 10] {
        let other_version = Origin {
            build: 1,
            version,
            ..HERE
        };
        assert_eq!(
            read(other_version),
            Read::Unreadable(Unreadable::OtherShape)
        );
    }
}
