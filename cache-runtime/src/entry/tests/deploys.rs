//! 400 types in families: a deploy may turn a type into any other of its family. Each type reads what every other type stored,
//! as another program. It must never get a value that it would store as different JSON, and its code must never see a number
//! that was not stored.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Draft, HERE, LIMITS, NOW, Origin, Read, Reader, key};
use crate::entry::{self, Refusal, Unreadable};

thread_local! {
    /// The numbers that user code has seen while it read.
    static GIVEN: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

fn given(number: i64) -> i64 {
    GIVEN.with_borrow_mut(|given| given.push(number));
    number
}

/// Creates a value of the type for each number.
trait Sample {
    fn sample(n: i64) -> Self;
}

macro_rules! samples {
    ($($ty:ty: $n:ident => $value:expr;)*) => {$(
        impl Sample for $ty {
            fn sample($n: i64) -> Self { $value }
        }
    )*};
}

samples! {
    i64: n => 1_000 + n;
    u8: n => 100 + (n % 100) as u8;
    f64: n => n as f64 + 0.25;
    bool: n => n % 2 == 0;
    String: n => format!("text {n}");
    char: n => char::from(b'a' + (n % 20) as u8);
    (i64, String): n => (1_500 + n, format!("second {n}"));
    HashMap<String, i64>: n => (0..n % 4).map(|key| (format!("key {key}"), 1_700 + key)).collect();
    BTreeMap<u8, bool>: n => (0..n % 4).map(|key| (key as u8, key > 1)).collect();
    Inner: n => Self { x: 2_000 + n, y: Sample::sample(n) };
    Wrapped: n => Self(3_000 + n);
    Even: n => Self(4_000 + 2 * n);
    Month: n => Self(1 + (n % 12) as u8);
    Odd: n => Self(5_001 + 2 * n);
    Status: n => match n % 2 { 0 => Self::Pending, _ => Self::Priced(6_000 + n) };
}

impl<T: Sample> Sample for Option<T> {
    fn sample(n: i64) -> Self {
        (n % 3 > 0).then(|| T::sample(n))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(n: i64) -> Self {
        (0..n % 3).map(T::sample).collect()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Inner {
    x: i64,
    #[serde(default)]
    y: Option<u8>,
}

#[derive(Default, Serialize, Deserialize)]
struct Wrapped(i64);

/// Refuses odd numbers.
#[derive(Default, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
struct Even(i64);

impl TryFrom<i64> for Even {
    type Error = &'static str;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        (given(number) % 2 == 0)
            .then_some(Self(number))
            .ok_or("odd")
    }
}

impl From<Even> for i64 {
    fn from(Even(number): Even) -> Self {
        number
    }
}

impl Clone for Even {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

/// Panics if the number is not a month.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
struct Month(u8);

impl From<u8> for Month {
    fn from(number: u8) -> Self {
        if !(1..=12).contains(&given(number.into())) {
            PANICS.set(PANICS.get() + 1);
            panic!("{number} is not a month");
        }
        Self(number)
    }
}

impl From<Month> for u8 {
    fn from(Month(number): Month) -> Self {
        number
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Odd(#[serde(deserialize_with = "odd")] i64);

fn odd<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    match given(i64::deserialize(from)?) {
        number if number % 2 == 1 => Ok(number),
        _ => Err(serde::de::Error::custom("even")),
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Status {
    #[default]
    Pending,
    Priced(i64),
}

/// A type of a family.
struct Member {
    name: &'static str,
    /// Returns the entry of the nth sample, if it can be stored.
    write: fn(i64) -> Option<Vec<u8>>,
    /// Returns the value that is read from an entry, in the form in which the reader would store it.
    read: fn(&[u8], u64) -> Result<Value, Unreadable>,
}

const OLD: u64 = 11;
const NEW: u64 = 12;

fn write<T: Sample + Serialize + for<'de> Deserialize<'de>>(n: i64) -> Option<Vec<u8>> {
    let key = key("event:42");
    let draft = Draft {
        origin: Origin::of::<T>(OLD, HERE.version),
        ..super::draft(&key)
    };
    match entry::value(&draft, &T::sample(n), &LIMITS) {
        Ok(entry) => Some(entry.into_bytes()),
        // An earlier variant of an untagged enum also fits.
        Err(Refusal::Changed) => None,
        Err(refusal) => panic!("{refusal:?}"),
    }
}

fn read<T: Serialize + for<'de> Deserialize<'de>>(
    bytes: &[u8],
    build: u64,
) -> Result<Value, Unreadable> {
    let reader = Reader {
        key: &key("event:42"),
        origin: Origin::of::<T>(build, HERE.version),
        now: NOW,
        grace: 0,
        max_value: LIMITS.max_value,
    };
    match entry::read_as::<T>(bytes, &reader) {
        Read::Value(value, _) => Ok(serde_json::to_value(value).expect("JSON")),
        Read::Unreadable(reason) => Err(reason),
        _ => panic!("neither a value nor a reason"),
    }
}

macro_rules! member {
    ($($name:ident)*) => {
        vec![$(Member { name: stringify!($name), write: write::<$name>, read: read::<$name> }),*]
    };
}

macro_rules! record {
    ($([$container:meta])* $name:ident { $($([$attribute:meta])* $field:ident: $ty:ty,)* }) => {
        #[derive(Default, Serialize, Deserialize)]
        $(#[$container])*
        struct $name { $($(#[$attribute])* $field: $ty,)* }

        impl Sample for $name {
            fn sample(n: i64) -> Self {
                Self { $($field: Sample::sample(n),)* }
            }
        }
    };
}

/// A family of eight structs.
macro_rules! structs {
    ($($family:ident: [$($container:meta),*] $({$attribute:meta})* $a:ty, $b:ty, $c:ty;)*) => {
        $(mod $family {
            use super::*;

            record! { $([$container])* Base { first: $a, $([$attribute])* second: $b, third: $c, } }
            record! { $([$container])* Renamed { first: $a, $([$attribute])* other: $b, third: $c, } }
            record! { $([$container])* Reordered { third: $c, first: $a, $([$attribute])* second: $b, } }
            record! { $([$container])* Removed { first: $a, third: $c, } }
            record! { $([$container])* Added { first: $a, $([$attribute])* second: $b, third: $c, [serde(default)] fourth: Option<Even>, } }
            record! { $([$container])* Retyped { first: $c, $([$attribute])* second: $b, third: $a, } }
            record! { $([$container])* Nullable { first: $a, $([$attribute])* second: $b, third: Option<$c>, } }
            record! { $([$container])* Retagged { [serde(rename = "third")] first: $a, $([$attribute])* second: $b, [serde(rename = "first", alias = "fourth")] third: $c, } }

            pub(super) fn members() -> Vec<Member> {
                member! { Base Renamed Reordered Removed Added Retyped Nullable Retagged }
            }
        })*

        fn families_of_structs() -> Vec<Vec<Member>> {
            vec![$($family::members()),*]
        }
    };
}

structs! {
    plain: [] i64, u8, String;
    optional: [] Option<u8>, Option<u8>, Option<u8>;
    optional_numbers: [] Option<i64>, Option<f64>, Option<bool>;
    lists: [] Vec<i64>, Vec<String>, Vec<Option<u8>>;
    maps: [] HashMap<String, i64>, BTreeMap<u8, bool>, String;
    nested: [] Inner, Option<Inner>, Vec<Inner>;
    newtypes: [] Wrapped, Option<Wrapped>, i64;
    tuples: [] (i64, String), char, Option<(i64, String)>;
    hooks: [] Even, Month, Odd;
    optional_hooks: [] Option<Even>, Option<Month>, Option<Odd>;
    lists_of_hooks: [] Vec<Even>, Vec<Month>, Vec<Odd>;
    statuses: [] Status, Option<Status>, Vec<Status>;
    defaulted: [serde(default)] i64, Option<u8>, String;
    defaulted_hooks: [serde(default)] Even, Option<Month>, Odd;
    defaulted_nested: [serde(default)] Inner, Vec<Inner>, Option<Inner>;
    defaulted_maps: [serde(default)] HashMap<String, i64>, Option<i64>, bool;
    field_defaulted: [] {serde(default)} i64, Vec<i64>, String;
    field_defaulted_hooks: [] {serde(default)} Even, Option<Even>, Month;
    skipped: [] {serde(skip_serializing_if = "Option::is_none", default)} i64, Option<u8>, String;
    skipped_hooks: [serde(default)] {serde(skip_serializing_if = "Option::is_none")} Even, Option<Even>, Odd;
    flattened: [] {serde(flatten)} i64, Inner, String;
    flattened_map: [] {serde(flatten)} u8, HashMap<String, i64>, f64;
    flattened_option: [] {serde(flatten)} String, Option<Inner>, Option<u8>;
    flattened_status: [] {serde(flatten)} Even, Status, Option<i64>;
    closed: [serde(deny_unknown_fields)] i64, Option<Even>, String;
    camel: [serde(rename_all = "SCREAMING-KEBAB-CASE")] Option<i64>, Month, Vec<u8>;
}

macro_rules! choice {
    ($([$container:meta])* $name:ident { $($variant:ident { $($field:ident: $ty:ty,)* })* ; $($unit:ident)* ; $($newtype:ident($inner:ty))* }) => {
        #[derive(Serialize, Deserialize)]
        $(#[$container])*
        enum $name {
            $($variant { $($field: $ty,)* },)*
            $($unit,)*
            $($newtype($inner),)*
        }

        impl Sample for $name {
            fn sample(n: i64) -> Self {
                let mut all = vec![
                    $(Self::$variant { $($field: Sample::sample(n),)* },)*
                    $(Self::$unit,)*
                    $(Self::$newtype(Sample::sample(n)),)*
                ];
                let at = usize::try_from(n).expect("few") % all.len();
                all.swap_remove(at)
            }
        }
    };
}

/// A family of 24 enums: six enums, each with four kinds of tags.
macro_rules! enums {
    (@tagged $a:ty, $b:ty, $($way:ident: [$($tag:meta)?];)*) => {
        $(mod $way {
            use super::*;

            choice! { $([$tag])? Base { First { one: $a, two: $b, } Second { three: $b, } ; Third ; Fourth(Inner) } }
            choice! { $([$tag])? Renamed { First { one: $a, other: $b, } Second { three: $b, } ; Third ; Fourth(Inner) } }
            choice! { $([$tag])? Reordered { Second { three: $b, } First { two: $b, one: $a, } ; Third ; Fourth(Inner) } }
            choice! { $([$tag])? Removed { Second { three: $b, } ; Third ; Fourth(Inner) } }
            choice! { $([$tag])? Added { First { one: $a, two: $b, more: Option<$a>, } Second { three: $b, } Fifth { four: Option<$b>, } ; Third ; Fourth(Inner) } }
            choice! { $([$tag])? Retyped { First { one: $b, two: $a, } Second { three: Option<$a>, } ; Fourth ; Third(Inner) } }

            pub(super) fn members() -> Vec<Member> {
                member! { Base Renamed Reordered Removed Added Retyped }
            }
        })*

        pub(super) fn members() -> Vec<Member> {
            [$($way::members()),*].into_iter().flatten().collect()
        }
    };
    ($($family:ident: $a:ty, $b:ty;)*) => {
        $(mod $family {
            use super::*;

            enums! { @tagged $a, $b,
                external: [];
                internal: [serde(tag = "type")];
                adjacent: [serde(tag = "type", content = "one")];
                untagged: [serde(untagged)];
            }
        })*

        fn families_of_enums() -> Vec<Vec<Member>> {
            vec![$($family::members()),*]
        }
    };
}

enums! {
    of_options: Option<u8>, Option<i64>;
    of_numbers: i64, f64;
    of_texts: String, Option<String>;
    of_hooks: Even, Option<Month>;
    of_lists: Vec<Odd>, Option<Vec<i64>>;
    of_maps: HashMap<String, i64>, Option<u8>;
    of_structs: Inner, Option<Inner>;
    of_enums: Status, Option<Wrapped>;
}

/// Returns the numbers in a JSON text.
fn numbers(json: &Value, found: &mut Vec<i64>) {
    match json {
        Value::Number(number) => found.extend(number.as_i64()),
        Value::Array(items) => items.iter().for_each(|item| numbers(item, found)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            found.extend(name.parse::<i64>());
            numbers(value, found);
        }),
        _ => {}
    }
}

#[test]
fn four_hundred_types_read_entries_of_each_other() {
    let mut families = families_of_structs();
    families.extend(families_of_enums());
    let types: usize = families.iter().map(Vec::len).sum();
    assert_eq!(types, 400);
    let (mut reads, mut served, mut refused) = (0, 0, 0);
    let (mut wrong, mut invented) = (Vec::new(), Vec::new());

    for family in &families {
        for (writer, n) in family
            .iter()
            .flat_map(|writer| (0..8).map(move |n| (writer, n)))
        {
            GIVEN.take();
            let Some(entry) = (writer.write)(n) else {
                refused += 1;
                continue;
            };
            let seen = GIVEN.take();
            let stored: Value =
                serde_json::from_slice(&entry[entry::HEADER..]).expect("a small payload");
            let mut known = Vec::new();
            numbers(&stored, &mut known);
            assert!(seen.iter().all(|number| known.contains(number)), "{seen:?}");
            // A reader in the same program has another type, unless it is the writer.
            for (reader, build) in family
                .iter()
                .flat_map(|reader| [(reader, OLD), (reader, NEW)])
            {
                GIVEN.take();
                let read = (reader.read)(&entry, build);
                reads += 1;
                served += u32::from(read.is_ok());
                let call = || format!("{} for {}: {stored}", reader.name, writer.name);
                match read {
                    Ok(value) if value != stored => wrong.push((call(), value)),
                    Err(reason) if reader.name == writer.name && std::ptr::eq(reader, writer) => {
                        panic!(
                            "{} cannot read its own entry: {reason:?}, {stored}",
                            reader.name
                        )
                    }
                    Err(Unreadable::OtherShape) | Ok(_) => {}
                    Err(reason) => panic!("{}: {reason:?}", call()),
                }
                invented.extend(
                    GIVEN
                        .take()
                        .into_iter()
                        .filter(|number| !known.contains(number))
                        .map(|number| (call(), number)),
                );
            }
        }
    }

    assert!(
        reads > 40_000 && served > reads / 10 && refused < 400,
        "{served} served of {reads}, {refused} not stored"
    );
    assert_eq!(wrong, []);
    assert_eq!(invented, []);
    assert_eq!(PANICS.take(), 0);
}
