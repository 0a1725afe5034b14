#![expect(
    dead_code,
    clippy::use_self,
    reason = "these types are asked for their shape and never made; a macro holds them, in which `Self` reads worse"
)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use super::*;

/// Declares types of one module, so that two of the same name can stand side by side.
macro_rules! types {
    ($($module:ident { $($item:item)* })*) => {$(
        mod $module {
            use super::*;
            $(#[derive(Deserialize)] $item)*
        }
    )*};
}

types! {
    plain { pub(super) struct S { a: i32, b: Option<String>, c: Vec<u8> } }
    same { pub(super) struct S { a: i32, b: Option<String>, c: Vec<u8> } }
    added { pub(super) struct S { a: i32, b: Option<String>, c: Vec<u8>, d: bool } }
    renamed { pub(super) struct S { a: i32, #[serde(rename = "bb")] b: Option<String>, c: Vec<u8> } }
    retyped { pub(super) struct S { a: i64, b: Option<String>, c: Vec<u8> } }
    deep { pub(super) struct S { a: i32, b: Option<String>, c: Vec<u16> } }
    wrapped { pub(super) struct S { a: Option<i32>, b: Option<String>, c: Vec<u8> } }
    ordered { pub(super) struct S { b: Option<String>, a: i32, c: Vec<u8> } }
    called { pub(super) struct T { a: i32, b: Option<String>, c: Vec<u8> } }
    mapped { pub(super) struct S { a: i32, b: Option<String>, c: HashMap<u8, u8> } }
}

#[test]
fn a_shape_is_that_of_the_names_and_leaves_and_not_of_the_module() {
    assert_eq!(of::<plain::S>(0), of::<same::S>(0));
    assert_eq!(of::<Arc<plain::S>>(0), of::<Box<same::S>>(0));
}

#[test]
fn every_change_of_a_struct_changes_its_shape() {
    let shapes = [
        of::<plain::S>(0),
        of::<plain::S>(1),
        of::<added::S>(0),
        of::<renamed::S>(0),
        of::<retyped::S>(0),
        of::<deep::S>(0),
        of::<wrapped::S>(0),
        of::<ordered::S>(0),
        of::<called::T>(0),
        of::<mapped::S>(0),
    ];

    all_differ(&shapes);
}

fn all_differ(shapes: &[u64]) {
    for (at, shape) in shapes.iter().enumerate() {
        assert!(
            !shapes[..at].contains(shape),
            "number {at} is like one before it"
        );
    }
}

#[test]
fn a_shape_is_the_same_in_every_build() {
    assert_eq!(format!("{:016x}", of::<plain::S>(0)), "ccbb75e3712e7c58");
}

#[test]
fn leaves_differ() {
    all_differ(&[
        of::<bool>(0),
        of::<char>(0),
        of::<String>(0),
        of::<()>(0),
        of::<i8>(0),
        of::<u8>(0),
        of::<i128>(0),
        of::<u128>(0),
        of::<f32>(0),
        of::<f64>(0),
        of::<(u8, u8)>(0),
        of::<[u8; 3]>(0),
        of::<Vec<u8>>(0),
        of::<Option<u8>>(0),
        of::<BTreeMap<u8, u8>>(0),
        of::<std::net::IpAddr>(0),
        of::<std::net::SocketAddr>(0),
        of::<std::time::Duration>(0),
        of::<serde_json::Value>(0),
    ]);
}

types! {
    variants { pub(super) enum E { A, B(i32), C(u8, u8), D { x: Inner, y: u8 } } pub(super) enum Inner { P, Q(String) } }
    inside { pub(super) enum E { A, B(i32), C(u8, u8), D { x: Inner, y: u8 } } pub(super) enum Inner { P, Q(char) } }
    last { pub(super) enum E { A, B(i32), C(u8, u8), D { x: Inner, y: u16 } } pub(super) enum Inner { P, Q(String) } }
    middle { pub(super) enum E { A, B(i32), C(u8, u16), D { x: Inner, y: u8 } } pub(super) enum Inner { P, Q(String) } }
    fewer { pub(super) enum E { A, B(i32), C(u8, u8) } }
}

#[test]
fn every_variant_is_seen_with_what_is_in_it() {
    all_differ(&[
        of::<variants::E>(0),
        of::<inside::E>(0),
        of::<last::E>(0),
        of::<middle::E>(0),
        of::<fewer::E>(0),
    ]);
}

types! {
    tagged {
        #[serde(tag = "kind")]
        pub(super) enum E { A { x: i32 }, B { y: String, z: bool }, C }
    }
    tagged_leaf {
        #[serde(tag = "kind")]
        pub(super) enum E { A { x: i32 }, B { y: String, z: u8 }, C }
    }
    tagged_name {
        #[serde(tag = "kind")]
        pub(super) enum E { A { x: i32 }, B { y: String, zz: bool }, C }
    }
    tagged_variant {
        #[serde(tag = "kind")]
        pub(super) enum E { A { x: i32 }, B { y: String, z: bool }, D }
    }
    tagged_tag {
        #[serde(tag = "type")]
        pub(super) enum E { A { x: i32 }, B { y: String, z: bool }, C }
    }
    beside {
        #[serde(tag = "kind", content = "of")]
        pub(super) enum E { A { x: i32 }, B { y: String, z: bool }, C }
    }
    beside_leaf {
        #[serde(tag = "kind", content = "of")]
        pub(super) enum E { A { x: i32 }, B { y: String, z: u8 }, C }
    }
}

#[test]
fn a_tagged_enum_is_seen_through_its_tag() {
    all_differ(&[
        of::<tagged::E>(0),
        of::<tagged_leaf::E>(0),
        of::<tagged_name::E>(0),
        of::<tagged_variant::E>(0),
        of::<tagged_tag::E>(0),
        of::<beside::E>(0),
        of::<beside_leaf::E>(0),
    ]);
}

types! {
    flat { pub(super) struct S { id: i64, #[serde(flatten)] inner: Inner, end: u8 } pub(super) struct Inner { x: i32, y: String } }
    flat_leaf { pub(super) struct S { id: i64, #[serde(flatten)] inner: Inner, end: u8 } pub(super) struct Inner { x: i32, y: bool } }
    flat_name { pub(super) struct S { id: i64, #[serde(flatten)] inner: Inner, end: u8 } pub(super) struct Inner { x: i32, yy: String } }
    flat_outer { pub(super) struct S { id: i64, #[serde(flatten)] inner: Inner, end: u16 } pub(super) struct Inner { x: i32, y: String } }
    flat_map { pub(super) struct S { id: i64, #[serde(flatten)] inner: HashMap<String, i32>, end: u8 } }
    flat_tag {
        pub(super) struct S { id: i64, #[serde(flatten)] inner: Inner, end: u8 }
        #[serde(tag = "kind")] pub(super) enum Inner { A { x: i32 }, B { y: u8 } }
    }
    flat_tag_leaf {
        pub(super) struct S { id: i64, #[serde(flatten)] inner: Inner, end: u8 }
        #[serde(tag = "kind")] pub(super) enum Inner { A { x: i32 }, B { y: String } }
    }
}

#[test]
fn a_flattened_struct_is_seen_field_by_field() {
    all_differ(&[
        of::<flat::S>(0),
        of::<flat_leaf::S>(0),
        of::<flat_name::S>(0),
        of::<flat_outer::S>(0),
        of::<flat_map::S>(0),
        of::<flat_tag::S>(0),
        of::<flat_tag_leaf::S>(0),
    ]);
}

types! {
    tree { pub(super) struct Tree { value: i32, left: Option<Box<Tree>>, children: Vec<Tree>, by: HashMap<String, Tree> } }
    tree_leaf { pub(super) struct Tree { value: i64, left: Option<Box<Tree>>, children: Vec<Tree>, by: HashMap<String, Tree> } }
    terms { pub(super) enum Term { Sum(Box<Term>, Box<Term>), Not(Box<Term>), Number(i32), Name(String) } }
    terms_leaf { pub(super) enum Term { Sum(Box<Term>, Box<Term>), Not(Box<Term>), Number(i32), Name(char) } }
    endless { pub(super) struct Endless { next: Box<Endless> } }
    list { #[serde(transparent)] pub(super) struct List(Vec<List>); }
    page { pub(super) struct Page<T> { items: Vec<T>, of: u32 } }
}

#[test]
fn a_type_that_contains_itself_has_a_shape() {
    all_differ(&[
        of::<tree::Tree>(0),
        of::<tree_leaf::Tree>(0),
        of::<terms::Term>(0),
        of::<terms_leaf::Term>(0),
        of::<endless::Endless>(0),
        of::<list::List>(0),
    ]);
}

#[test]
fn the_same_struct_around_another_type_has_another_shape() {
    use page::Page;

    all_differ(&[
        of::<Page<u8>>(0),
        of::<Page<i8>>(0),
        of::<Page<Page<u8>>>(0),
        of::<Page<Page<i8>>>(0),
        of::<(Page<u8>, Page<i8>)>(0),
        of::<(Result<u8, u8>, Result<u8, i8>)>(0),
        of::<(Result<u8, u8>, Result<u8, u8>)>(0),
    ]);
}

/// A leaf that takes none of the texts.
struct Picky;

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "open sesame" {
            Ok(Self)
        } else {
            Err(de::Error::custom("no"))
        }
    }
}

/// A leaf that takes one of the texts, and the smallest numbers only.
struct Date;

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "1970-01-01" {
            Ok(Self)
        } else {
            Err(de::Error::custom("no"))
        }
    }
}

struct Panicking;

impl<'de> Deserialize<'de> for Panicking {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let n = u32::deserialize(from)?;
        assert!(n > 9, "this type is not careful");
        Ok(Self)
    }
}

types! {
    picky { pub(super) struct S { a: Picky, b: Picky, c: i32, d: Date } }
    picky_same { pub(super) struct S { a: Picky, b: Picky, c: i32, d: Date } }
    picky_leaf { pub(super) struct S { a: Picky, b: Picky, c: i64, d: Date } }
    picky_last { pub(super) struct S { a: Picky, b: Picky, c: i32, d: String } }
    dates { pub(super) struct S { a: Date, b: Vec<Date>, c: Option<Date>, d: HashMap<Date2, i32> } #[derive(PartialEq, Eq, Hash)] pub(super) struct Date2(String); }
    dates_leaf { pub(super) struct S { a: Date, b: Vec<Date>, c: Option<Date>, d: HashMap<Date2, i64> } #[derive(PartialEq, Eq, Hash)] pub(super) struct Date2(String); }
    panicking { pub(super) struct S { a: Panicking } }
}

#[test]
fn a_leaf_that_takes_no_answer_does_not_hide_its_neighbours() {
    all_differ(&[
        of::<picky::S>(0),
        of::<picky_leaf::S>(0),
        of::<picky_last::S>(0),
        of::<dates::S>(0),
        of::<dates_leaf::S>(0),
        of::<panicking::S>(0),
        of::<Picky>(0),
    ]);
    assert_eq!(of::<picky::S>(0), of::<picky_same::S>(0));
}

types! {
    aliased { pub(super) struct S { #[serde(alias = "x", alias = "y")] a: i32, b: u8 } }
    aliased_leaf { pub(super) struct S { #[serde(alias = "x", alias = "y")] a: i32, b: u16 } }
    strict { #[serde(deny_unknown_fields)] pub(super) struct S { a: i32, #[serde(default)] b: u8, #[serde(skip)] c: u8 } }
    strict_leaf { #[serde(deny_unknown_fields)] pub(super) struct S { a: i32, #[serde(default)] b: u16, #[serde(skip)] c: u8 } }
    free { #[serde(untagged)] pub(super) enum E { A(i32), B { x: String } } }
    through { #[serde(try_from = "i32")] pub(super) struct S { pub(super) a: u8 } }
}

impl TryFrom<i32> for through::S {
    type Error = String;

    fn try_from(n: i32) -> Result<Self, String> {
        u8::try_from(n)
            .map(|a| Self { a })
            .map_err(|error| error.to_string())
    }
}

#[test]
fn the_attributes_of_serde_are_taken_in_stride() {
    all_differ(&[
        of::<aliased::S>(0),
        of::<aliased_leaf::S>(0),
        of::<strict::S>(0),
        of::<strict_leaf::S>(0),
        of::<free::E>(0),
    ]);
    assert_eq!(of::<through::S>(0), of::<i32>(0));
}

#[test]
fn an_own_name_has_no_modules() {
    for (name, own) in [
        ("i32", "i32"),
        ("a::b::C", "C"),
        ("alloc::vec::Vec<a::b::C<x::D>, e::F>", "Vec<C<D>, F>"),
        ("(a::B, &[c::D; 3])", "(B, &[D; 3])"),
    ] {
        assert_eq!(own_name(name), own);
    }
}
