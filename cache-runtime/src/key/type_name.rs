//! `<T>`: the name of a type in a key.

use std::any;
use std::fmt;
use std::marker::PhantomData;

use super::{KeyPart, KeyWriter};

/// The name of a type: its path, with a `.` for each `::`.
/// The name comes from [`any::type_name`] and not from a [`TypeId`](any::TypeId), whose number may differ in another
/// build or compiler: a new build must read and evict the entries of the previous build. So two types with the same path
/// share a name, such as types that are declared in different blocks of one function. A type that moves to another path
/// gets a new name.
pub struct TypeName<T: ?Sized>(PhantomData<fn(&T)>);

impl<T: ?Sized> TypeName<T> {
    /// Of the type that it is given.
    #[expect(clippy::new_without_default, reason = "only generated code makes one")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: ?Sized> fmt::Display for TypeName<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No path contains a `.`, which needs no escape in a key.
        let mut segments = any::type_name::<T>().split("::");
        f.write_str(segments.next().unwrap_or_default())?;
        segments.try_for_each(|segment| write!(f, ".{segment}"))
    }
}

impl<T: ?Sized> fmt::Debug for TypeName<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: ?Sized> KeyPart for TypeName<T> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.display(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    struct Event<T>(PhantomData<T>);

    fn key<T: ?Sized>() -> String {
        let key = Key::render("", |key| {
            key.text("ids:").value(&TypeName::<T>::new());
        });
        key.as_str().to_owned()
    }

    #[test]
    fn a_type_is_named_by_its_path() {
        let module = module_path!().replace("::", ".");

        assert_eq!(key::<i64>(), "ids:i64");
        assert_eq!(key::<str>(), "ids:str");
        assert_eq!(key::<Event<u8>>(), format!("ids:{module}.Event%3Cu8%3E"));
    }

    #[test]
    fn different_types_have_different_names() {
        let keys = [
            key::<Event<u8>>(),
            key::<Event<u16>>(),
            key::<Option<u8>>(),
            key::<[u8]>(),
            key::<[u8; 3]>(),
            key::<(u8, u16)>(),
            key::<dyn Send>(),
        ];

        for (at, one) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(one), "{one}");
        }
    }
}
