use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher};

use proptest::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::*;

/// Returns whether `json` is served to a reader of `T`.
fn is_served<T: Serialize + serde::de::DeserializeOwned>(json: &Value) -> bool {
    let json = json.to_string();
    serde_json::from_str::<T>(&json)
        .is_ok_and(|value| is_encoded(&value, json.as_bytes(), Layers::Nothing))
}

#[test]
fn a_payload_that_encodes_to_itself_is_served() {
    #[derive(Serialize, Deserialize)]
    struct Row {
        id: i64,
        name: Option<String>,
    }

    assert!(is_served::<Row>(&json!({"id": 1, "name": "a"})));
    assert!(is_served::<Row>(&json!({"id": 1, "name": null})));
    assert!(is_served::<f64>(&json!(0.1)));
}

#[test]
fn a_missing_unknown_or_changed_field_is_not_served() {
    #[derive(Serialize, Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Row {
        id: i64,
        name: Option<String>,
    }

    assert!(!is_served::<Row>(&json!({"id": 1})));
    assert!(!is_served::<Row>(&json!({"id": 1, "name": null, "age": 3})));
    assert!(!is_served::<Row>(&json!({"id": 1, "title": "a"})));
    assert!(!is_served::<f64>(&json!(1)));
    assert!(!is_served::<Vec<f64>>(&json!([1.0, 2])));
}

fn sorted_text(json: &[u8]) -> Option<Vec<u8>> {
    Node::parse(json, &mut iter::repeat(Array::Sequence)).map(|node| node.sorted)
}

#[test]
fn maps_and_sets_are_served_in_any_order() {
    let map: HashMap<String, u32> = (0..50).map(|n| (format!("key {n}"), n)).collect();
    let set: HashSet<String> = map.keys().cloned().collect();

    for _ in 0..10 {
        assert!(is_served::<HashMap<String, u32>>(&json!(map)));
        assert!(is_served::<Vec<HashSet<String>>>(&json!([set, set])));
    }
    assert!(!is_served::<HashSet<u8>>(&json!([1, 1])));
}

/// A set whose hash is the same in every process.
type FixedSet = HashSet<u64, BuildHasherDefault<DefaultHasher>>;

#[test]
fn a_set_with_a_fixed_hash_is_served_in_any_order() {
    for count in (2..60).chain([500, 5_000]) {
        let parts = (0..count).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7));
        let set: FixedSet = parts.clone().collect();
        let other: FixedSet = parts.rev().collect();

        assert!(is_served::<FixedSet>(&json!(set)), "{count}");
        assert!(is_served::<FixedSet>(&json!(other)), "{count}");
    }
}

/// Reads its members in another order than it writes them.
#[derive(Serialize)]
#[serde(transparent)]
struct Turned<T>(T);

impl<'de> Deserialize<'de> for Turned<(i64, i64)> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (latitude, longitude) = Deserialize::deserialize(deserializer)?;
        Ok(Self((longitude, latitude)))
    }
}

impl<'de> Deserialize<'de> for Turned<[i64; 3]> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [a, b, c] = Deserialize::deserialize(deserializer)?;
        Ok(Self([b, c, a]))
    }
}

#[test]
fn a_tuple_that_changes_its_order_is_not_served() {
    type Pair = Turned<(i64, i64)>;
    type Places = HashMap<String, (HashSet<u8>, Pair)>;
    let pairs = json!([[1, 2], [2, 1], [3, 3]]);

    assert!(!is_served::<Pair>(&json!([52, 13])));
    assert!(is_served::<Pair>(&json!([13, 13])));
    assert!(!is_served::<Turned<[i64; 3]>>(&json!([1, 2, 3])));
    assert!(!is_served::<Option<Vec<Pair>>>(&json!([[52, 13], [1, 1]])));
    for _ in 0..10 {
        assert!(is_served::<HashSet<(i64, i64)>>(&pairs));
        assert!(is_served::<(HashSet<u8>, (i64, i64))>(&json!([
            [1, 2, 3],
            [52, 13]
        ])));
        let place = json!([[1, 2, 3], [52, 13]]);
        let places = json!({"a": place, "b": place, "c": place});
        assert!(!is_served::<Places>(&places));
    }
}

#[test]
fn duplicate_members_are_not_merged() {
    let twice = br#"{"a":1,"a":2}"#;
    let map: HashMap<String, u8> = serde_json::from_slice(twice).expect("the last member counts");

    assert!(!is_encoded(&map, twice, Layers::Nothing));
    assert_ne!(sorted_text(twice), sorted_text(br#"{"a":2,"a":2}"#));
}

#[test]
fn large_numbers_are_compared_digit_by_digit() {
    let (first, second) = (
        br#"{"a":18446744073709551617,"b":18446744073709551619}"#,
        br#"{"b":18446744073709551619,"a":18446744073709551619}"#,
    );

    assert_ne!(sorted_text(first), sorted_text(second));
}

#[test]
fn invalid_json_is_not_sorted() {
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "[",
        "[1",
        "{\"a\"",
        "{\"a\":",
        "\"a",
        "\"\\",
        "[1}",
        "1 2,",
        deep.as_str(),
    ] {
        assert_eq!(sorted_text(text.as_bytes()), None, "{text:.20}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[\\PC\"\\\\{}\\[\\],:]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map("[a-c\"\\\\:,{}]{0,2}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Returns the value with every array reversed.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().rev().map(reversed).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| (key.clone(), reversed(value)))
            .collect(),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn sorting_changes_only_the_order(first in any_json(), second in any_json()) {
        let sort = |value: &Value| sorted_text(value.to_string().as_bytes()).expect("JSON");

        prop_assert_eq!(sort(&first), sort(&reversed(&first)));
        prop_assert_eq!(sort(&first).len(), first.to_string().len());
        if sort(&first) == sort(&second) {
            prop_assert_eq!(first.to_string().len(), second.to_string().len());
        }
        prop_assert_eq!(sorted_text(&sort(&first)), Some(sort(&first)));
    }
}
