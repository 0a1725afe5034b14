#![deny(warnings, clippy::all, clippy::pedantic, missing_docs, unused)]
//! A derive under denied lints.

use std::marker::PhantomData;

mod reexported {
    pub use cache_runtime::__private;
}

/// An identifier of a table's row.
#[derive(cache_runtime::KeyPart)]
pub struct Id<T>(i64, #[key_part(skip)] PhantomData<T>);

/// Everything that a search names.
#[derive(cache_runtime::KeyPart)]
#[key_part(hash, crate = crate::reexported)]
pub struct Filter<'a> {
    kind: Option<Kind>,
    r#type: &'a str,
}

/// Kinds of events.
#[derive(cache_runtime::KeyPart)]
pub enum Kind {
    /// With music.
    Concert,
}

/// All events.
#[derive(cache_runtime::KeyPart)]
pub struct All;

fn main() {
    fn is_key_part(_: &impl cache_runtime::KeyPart) {}
    is_key_part(&Id::<f64>(1, PhantomData));
    is_key_part(&Filter { kind: Some(Kind::Concert), r#type: "x" });
    is_key_part(&All);
}
