//! The deserializer that has no data: it notes what it is asked for and answers with something harmless.

use serde::de::{Deserializer, Expected, Visitor};

use super::access::{Elements, Entries, Fields, Nothing, Variant};
use super::{Failure, Role, Trace};

/// Texts of the usual leaves that parse one.
const TEXTS: [&str; 16] = [
    "",
    "0",
    "1970-01-01T00:00:00Z",
    "1970-01-01",
    "1970-01-01T00:00:00",
    "00:00:00",
    "00000000-0000-0000-0000-000000000000",
    "127.0.0.1",
    "::1",
    "127.0.0.1:80",
    "http://a.b/",
    "a@b.c",
    "1s",
    "a",
    "true",
    "UTC",
];

/// Answers to a type that asks for anything.
const ANYTHING: usize = 7 + TEXTS.len();

/// One question of a type.
pub(super) struct Probe<'t> {
    trace: &'t mut Trace,
    key: Key,
}

/// Whether the question is for the key of a map.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    No,
    /// Of whatever type.
    Any,
    /// Of this name.
    Named(&'static str),
}

impl<'t> Probe<'t> {
    pub(super) fn new(trace: &'t mut Trace) -> Self {
        Self {
            trace,
            key: Key::No,
        }
    }

    pub(super) fn of_key(trace: &'t mut Trace, key: Key) -> Self {
        Self { trace, key }
    }

    /// Notes a leaf and tries the answers, one in each pass.
    fn leaf<V>(
        self,
        what: &str,
        answers: usize,
        answer: impl FnOnce(usize) -> Result<V, Failure>,
    ) -> Result<V, Failure> {
        let trace = self.trace;
        trace.note(what)?;
        let taken = trace.visit(Role::Leaf, answers);
        let visit = trace.visits.len() - 1;
        answer(taken).inspect_err(|_| trace.failed_leaf = Some(visit))
    }

    fn text<'de, V: Visitor<'de>>(self, what: &str, visitor: V) -> Result<V::Value, Failure> {
        if let Key::Named(name) = self.key {
            self.trace.note(format_args!("key {name}"))?;
            return visitor.visit_str(name);
        }
        self.leaf(what, TEXTS.len(), |taken| visitor.visit_str(TEXTS[taken]))
    }
}

macro_rules! numbers {
    ($($ask:ident $answer:ident $what:literal)*) => {$(
        fn $ask<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            // One first, for those that must not be zero.
            self.leaf($what, 3, |taken| visitor.$answer([1_u8, 0, 2][taken].into()))
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Failure;

    numbers! {
        deserialize_i8 visit_i16 "i8"
        deserialize_i16 visit_i16 "i16"
        deserialize_i32 visit_i32 "i32"
        deserialize_i64 visit_i64 "i64"
        deserialize_i128 visit_i128 "i128"
        deserialize_u8 visit_u8 "u8"
        deserialize_u16 visit_u16 "u16"
        deserialize_u32 visit_u32 "u32"
        deserialize_u64 visit_u64 "u64"
        deserialize_u128 visit_u128 "u128"
        deserialize_f32 visit_f32 "f32"
        deserialize_f64 visit_f64 "f64"
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.leaf("bool", 2, |taken| visitor.visit_bool(taken == 1))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.leaf("char", 1, |_| visitor.visit_char('a'))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.text("str", visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.text("str", visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.leaf("bytes", 2, |taken| match taken {
            0 => visitor.visit_bytes(&[]),
            _ => visitor.visit_seq(Nothing),
        })
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.leaf("unit", 1, |_| visitor.visit_unit())
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.trace.note(format_args!("unit {name}"))?;
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.key != Key::No {
            return self.deserialize_identifier(visitor);
        }
        let trace = self.trace;
        trace.note(format_args!("any {}", &visitor as &dyn Expected))?;
        let taken = trace.visit(Role::Any, ANYTHING);
        match taken {
            0 => visitor.visit_map(Entries::new(trace, false)),
            1 => visitor.visit_u64(1),
            2 => visitor.visit_u64(0),
            3 => visitor.visit_f64(1.0),
            4 => visitor.visit_bool(false),
            5 => visitor.visit_seq(Nothing),
            6 => visitor.visit_unit(),
            text => visitor.visit_str(TEXTS[text - 7]),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let trace = self.trace;
        match self.key {
            Key::Named(name) => {
                trace.note(format_args!("key {name}"))?;
                return visitor.visit_str(name);
            }
            Key::Any => {
                trace.note("keys")?;
                return visitor.visit_str("");
            }
            Key::No => {}
        }
        let names = trace.place().names.clone();
        trace.note(format_args!("tag {names:?}"))?;
        let taken = trace.visit(Role::Tag, names.len());
        let answer = visitor.visit_str(names.get(taken).copied().unwrap_or_default());
        if let (Err(Failure::Variants(variants)), true) = (&answer, names.is_empty()) {
            trace.place().names = variants.to_vec();
            trace.learned = true;
        }
        answer
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let trace = self.trace;
        trace.note("option")?;
        if trace.is_deep() {
            return visitor.visit_none();
        }
        trace.inside(0, |trace| visitor.visit_some(Probe::new(trace)))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let Self { trace, key } = self;
        trace.note(format_args!("newtype {name}"))?;
        trace.named(name, |trace| {
            trace.inside(0, |trace| {
                visitor.visit_newtype_struct(Probe { trace, key })
            })
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let trace = self.trace;
        trace.note("seq")?;
        let left = usize::from(!trace.is_deep());
        visitor.visit_seq(Elements::new(trace, left))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let trace = self.trace;
        trace.note(format_args!("tuple {length}"))?;
        visitor.visit_seq(Elements::new(trace, length))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let trace = self.trace;
        trace.note(format_args!("tuple {name} {length}"))?;
        trace.named(name, |trace| {
            visitor.visit_seq(Elements::new(trace, length))
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let trace = self.trace;
        trace.note("map")?;
        trace.visit(Role::Keys, 1);
        let generic = !trace.is_deep() && !trace.place().closed;
        visitor.visit_map(Entries::new(trace, generic))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let trace = self.trace;
        trace.note(format_args!("struct {name} {fields:?}"))?;
        trace.named(name, |trace| visitor.visit_map(Fields::new(trace, fields)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let trace = self.trace;
        trace.note(format_args!("enum {name} {variants:?}"))?;
        let depth = trace.depth_of(name);
        let index = if depth < 2 {
            trace.visit(Role::Variant, variants.len())
        } else {
            // Inside itself it must come to an end, not be explored.
            trace
                .simplest
                .get(name)
                .copied()
                .unwrap_or(depth % variants.len().max(1))
        };
        let variant = variants.get(index).copied().ok_or(Failure::Other)?;
        trace.note(format_args!("variant {variant}"))?;
        let questions = trace.notes.len();
        let answer = trace.named(name, |trace| {
            trace.inside(index, |trace| {
                visitor.visit_enum(Variant::new(trace, variant))
            })
        });
        if answer.is_ok() && !trace.notes[questions..].contains(&format!("enum {name} ")) {
            trace.simplest.entry(name).or_insert(index);
        }
        answer
    }
}
