//! Entries with tags.

use super::super::tags::TAGGED;
use super::*;

fn tagged(names: &[&str]) -> Vec<Tagged> {
    let stamps = 1_u64..;
    let tag = |(name, stamp): (&&str, u64)| Tagged {
        name: (*name).into(),
        stamp: stamp.to_be_bytes(),
    };
    names.iter().zip(stamps).map(tag).collect()
}

fn with_tags<'a>(key: &'a Key, tags: &'a [Tagged]) -> Draft<'a> {
    Draft { tags, ..draft(key) }
}

fn listed(bytes: &[u8]) -> Vec<Tagged> {
    let own = |(name, stamp): (&str, Stamp)| Tagged {
        name: name.into(),
        stamp,
    };
    super::super::tags(bytes).map(own).collect()
}

#[test]
fn the_layout_of_tags_is_fixed() {
    let (key, tags) = (key("event:42"), tagged(&["events", "é"]));
    let entry = value(&with_tags(&key, &tags), &"x".to_owned(), &LIMITS).expect("stored");

    let bytes = entry.as_bytes();

    assert_eq!(bytes[FLAGS_AT], 2);
    let section = b"\x1c\0\0\0\x06\0events\0\0\0\0\0\0\0\x01\x02\0\xc3\xa9\0\0\0\0\0\0\0\x02";
    assert_eq!(bytes[HEADER..HEADER + section.len()], section[..]);
    assert_eq!(&bytes[HEADER + section.len()..], br#""x""#);
}

#[test]
fn a_value_with_tags_is_read_back_with_them() {
    let (key, tags) = (key("event:42"), tagged(&["events", "organizer:7", ""]));
    let long = event(&"long ".repeat(1_000));

    for event in [event("x"), long] {
        let entry = value(&with_tags(&key, &tags), &event, &LIMITS).expect("stored");
        let plain = value(&draft(&key), &event, &LIMITS).expect("stored");

        assert_eq!(listed(entry.as_bytes()), tags);
        let read = read::<Event>(entry.as_bytes(), &key, NOW);
        assert!(
            matches!(&read, Read::Value(found, _) if *found == event),
            "{read:?}"
        );
        assert_eq!(json_bytes(entry.as_bytes()), json_bytes(plain.as_bytes()));
        assert_eq!(value_hash(entry.as_bytes()), value_hash(plain.as_bytes()));
    }
}

#[test]
fn a_none_has_tags_too() {
    let (key, tags) = (key("event:42"), tagged(&["events"]));

    let entry = none(&with_tags(&key, &tags));

    assert_eq!(listed(entry.as_bytes()), tags);
    let read = read::<Event>(entry.as_bytes(), &key, NOW);
    assert!(matches!(read, Read::None(_)), "{read:?}");
}

#[test]
fn an_entry_without_tags_has_no_section() {
    let key = key("event:42");
    let entry = value(&draft(&key), &"x".to_owned(), &LIMITS).expect("stored");

    assert_eq!(entry.as_bytes().len(), HEADER + br#""x""#.len());
    assert!(!has_tags(entry.as_bytes()));
    assert_eq!(listed(entry.as_bytes()), []);
}

#[test]
fn a_new_ttl_keeps_the_tags() {
    let (key, tags) = (key("event:42"), tagged(&["events"]));
    let entry = value(&with_tags(&key, &tags), &event("x"), &LIMITS).expect("stored");

    let longer = with_ttl(entry.as_bytes(), &key, NOW, TTL).expect("an entry");

    assert_eq!(listed(longer.1.as_bytes()), tags);
}

#[test]
fn a_damaged_section_is_not_read() {
    let (key, tags) = (key("event:42"), tagged(&["events", "organizer:7"]));
    let entry = value(&with_tags(&key, &tags), &event("x"), &LIMITS).expect("stored");
    let whole = entry.as_bytes();

    for length in 0..whole.len() {
        let cut = &whole[..length];

        assert!(listed(cut).len() <= tags.len());
        assert_eq!(read::<Event>(cut, &key, NOW), damaged(length));
    }
    for at in HEADER..whole.len() {
        let mut changed = whole.to_vec();
        changed[at] ^= 0xff;

        listed(&changed);
        let read = read::<Event>(&changed, &key, NOW);
        assert_eq!(read, Read::Unreadable(Unreadable::Corrupted), "byte {at}");
    }
}

fn damaged(length: usize) -> Read<Event> {
    Read::Unreadable(match length {
        0..=3 => Unreadable::Foreign,
        _ => Unreadable::Corrupted,
    })
}

#[test]
fn tags_without_the_flag_are_part_of_a_damaged_value() {
    let (key, tags) = (key("event:42"), tagged(&["events"]));
    let entry = value(&with_tags(&key, &tags), &event("x"), &LIMITS).expect("stored");
    let mut bytes = entry.into_bytes();

    bytes[FLAGS_AT] ^= TAGGED;

    let read = read::<Event>(&bytes, &key, NOW);
    assert_eq!(read, Read::Unreadable(Unreadable::Corrupted));
}

#[test]
fn the_stamp_of_a_tag_is_text_and_nothing_else_is_one() {
    let stamp = *b"\x00\x1f\xa0stamp";

    let text = stamp_text(stamp);

    assert_eq!(&text, b"001fa07374616d70");
    assert_eq!(stamp_in(&text), Some(stamp));
    for other in [FENCED, b"", b"001fa07374616d7", b"001fa07374616d700"] {
        assert_eq!(stamp_in(other), None);
    }
}
