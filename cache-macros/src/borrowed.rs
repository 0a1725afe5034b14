//! Finds borrowed arguments of a function, as far as its signature shows. A separate task cannot hold them.

use syn::{
    FnArg, GenericArgument, Lifetime, Path, PathArguments, Receiver, ReceiverKind, Type,
    TypeParamBound, TypePath,
};

use crate::function::{Function, bound_names};

/// An argument that is borrowed.
struct Borrowed {
    /// The argument as written.
    name: String,
    /// What to write instead.
    instead: String,
}

/// Returns what prevents the body of a function from running in a separate task, if anything does.
pub(crate) fn problem(function: &Function) -> Option<String> {
    let borrowed: Vec<Borrowed> = function
        .signature
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Receiver(receiver) => own_receiver(receiver),
            FnArg::Typed(argument) => {
                let mut names = Vec::new();
                bound_names(&argument.pat, &mut names);
                let name = names.first().map_or("_".to_owned(), ToString::to_string);
                own(&name, &argument.ty)
            }
        })
        .collect();
    let names: Vec<String> = borrowed.iter().map(|one| one.name.clone()).collect();
    let (last, before) = names.split_last()?;
    let (names, are) = match before {
        [] => (last.clone(), "is"),
        before => (format!("{} and {last}", before.join(", ")), "are"),
    };
    let instead: Vec<String> = borrowed.into_iter().map(|one| one.instead).collect();
    Some(format!(
        "`refresh = \"background\"` runs the body in a task of its own, which needs owned arguments: {names} {are} borrowed; \
         take {}, or leave `refresh` out",
        instead.join(", ")
    ))
}

fn own_receiver(receiver: &Receiver) -> Option<Borrowed> {
    let name = match &receiver.kind {
        ReceiverKind::Reference(_, lifetime, _) if lifetime.as_ref().is_some_and(is_static) => {
            return None;
        }
        ReceiverKind::Reference(_, _, None) => "`&self`",
        ReceiverKind::Reference(_, _, Some(_)) => "`&mut self`",
        ReceiverKind::Typed(_, ty) if borrows(ty) => "`self`",
        _ => return None,
    };
    Some(Borrowed {
        name: name.to_owned(),
        instead: "`self: Arc<Self>` (or `self` by value)".to_owned(),
    })
}

fn own(name: &str, ty: &Type) -> Option<Borrowed> {
    borrows(ty).then(|| Borrowed {
        name: format!("`{name}`"),
        instead: match owned(ty) {
            Some(ty) => format!("`{name}: {ty}`"),
            None => format!("an owned `{name}`"),
        },
    })
}

/// Returns the type that owns what a reference borrows, if its name is a single word.
fn owned(ty: &Type) -> Option<String> {
    let Type::Reference(reference) = ty else {
        return None;
    };
    match &*reference.elem {
        Type::Slice(slice) => word(&slice.elem).map(|element| format!("Vec<{element}>")),
        ty => word(ty).map(|word| match word.as_str() {
            "str" => "String".to_owned(),
            _ => word,
        }),
    }
}

/// Returns the type if it is a single word.
fn word(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(TypePath {
            qself: None, path, ..
        }) => path.get_ident().map(ToString::to_string),
        _ => None,
    }
}

/// Returns whether a value of this type borrows. A type may hide its lifetimes; rustc reports those.
fn borrows(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => {
            !reference.lifetime.as_ref().is_some_and(is_static) || borrows(&reference.elem)
        }
        Type::Path(TypePath { qself, path, .. }) => {
            qself.as_ref().is_some_and(|qself| borrows(&qself.ty)) || path_borrows(path)
        }
        Type::TraitObject(object) => object.bounds.iter().any(bound_borrows),
        Type::ImplTrait(hidden) => hidden.bounds.iter().any(bound_borrows),
        Type::Tuple(tuple) => tuple.elems.iter().any(borrows),
        Type::Array(array) => borrows(&array.elem),
        Type::Slice(slice) => borrows(&slice.elem),
        Type::Paren(inner) => borrows(&inner.elem),
        Type::Group(inner) => borrows(&inner.elem),
        // A function pointer does not contain its arguments and its result.
        _ => false,
    }
}

fn path_borrows(path: &Path) -> bool {
    path.segments
        .iter()
        .any(|segment| match &segment.arguments {
            PathArguments::AngleBracketed(arguments) => {
                arguments.args.iter().any(|argument| match argument {
                    GenericArgument::Lifetime(lifetime) => !is_static(lifetime),
                    GenericArgument::Type(ty) => borrows(ty),
                    GenericArgument::AssocType(argument) => borrows(&argument.ty),
                    _ => false,
                })
            }
            // `Fn(&str) -> bool`: as with function pointers.
            _ => false,
        })
}

fn bound_borrows(bound: &TypeParamBound) -> bool {
    match bound {
        // `async_trait` adds its own lifetime to the arguments.
        TypeParamBound::Lifetime(lifetime) => {
            !is_static(lifetime) && lifetime.ident != "async_trait"
        }
        // The lifetimes of its own `for<'a>` do not borrow from outside.
        TypeParamBound::Trait(bound) => bound.lifetimes.is_none() && path_borrows(&bound.path),
        _ => false,
    }
}

fn is_static(lifetime: &Lifetime) -> bool {
    lifetime.ident == "static"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(function: &str) -> Option<String> {
        problem(&syn::parse_str(function).expect(function))
    }

    #[test]
    fn borrowed_arguments_are_reported_with_a_replacement() {
        let problem = problem_of(
            "async fn find(&self, id: i64, name: &str, ids: &'a [i64], pool: &Pool, filter: Filter<'_>) {}",
        );

        let expected = "`refresh = \"background\"` runs the body in a task of its own, which needs owned arguments: \
            `&self`, `name`, `ids`, `pool` and `filter` are borrowed; take `self: Arc<Self>` (or `self` by value), \
            `name: String`, `ids: Vec<i64>`, `pool: Pool`, an owned `filter`, or leave `refresh` out";
        assert_eq!(problem.as_deref(), Some(expected));
    }

    #[test]
    fn borrows_are_found_anywhere_in_a_type() {
        for argument in [
            "&mut self",
            "self: &Self",
            "self: &Arc<Self>",
            "self: Pin<&mut Self>",
            "a: Option<&str>",
            "a: Vec<Cow<'a, str>>",
            "a: (u8, [&u8; 2])",
            "a: Box<dyn Read + 'a>",
            "a: impl Iterator<Item = &'a str>",
            "a: &'static [&'a str]",
        ] {
            let function = format!("async fn find({argument}) {{}}");
            assert!(problem_of(&function).is_some(), "{argument}");
        }
    }

    #[test]
    fn owned_types_are_not_reported() {
        for argument in [
            "self",
            "mut self",
            "self: Arc<Self>",
            "&'static self",
            "a: &'static str",
            "a: Cow<'static, str>",
            "a: fn(&str) -> &str",
            "a: Box<dyn Fn(&str) -> bool + Send>",
            "a: impl for<'a> Visitor<&'a str>",
            "a: Vec<(u8, String)>",
            "Path(a): Path<T>",
            "a: impl Into<String> + Send + 'static + 'async_trait",
        ] {
            let function = format!("async fn find({argument}) {{}}");
            assert_eq!(problem_of(&function), None, "{argument}");
        }
    }
}
