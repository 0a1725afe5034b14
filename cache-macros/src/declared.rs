//! What the signature declares about the arguments in a key, for the catalog of the program:
//!
//! - which may be any text: clients that choose the text fill the cache
//! - which are integers: `event:<id>` and `event:latest` then never name the same entry.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{GenericArgument, Pat, PathArguments, Type, WherePredicate};

use crate::function::Function;
use crate::target::Template;
use crate::template::{self, Part};

/// Wrappers of a text that can still be any text.
const TEXTS: [&str; 11] = [
    "as_deref()",
    "as_ref()",
    "as_str()",
    "clone()",
    "to_ascii_lowercase()",
    "to_ascii_uppercase()",
    "to_lowercase()",
    "to_owned()",
    "to_string()",
    "to_uppercase()",
    "trim()",
];

/// The types whose text consists of digits, and a `-` before them.
const NUMBERS: [&str; 12] = [
    "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64", "u128", "usize",
];

/// Returns the names of the arguments in `key` that are declared as texts.
pub(crate) fn texts(function: &Function, key: &Template) -> Vec<String> {
    placeholders(key, |name, steps| {
        let mut steps = steps.split('.').skip(1);
        let is_whole = steps.all(|step| TEXTS.contains(&step));
        is_whole && declared(function, name).is_some_and(|ty| is_text(ty, function))
    })
}

/// Returns the names of the arguments in `key` that are declared as integers.
pub(crate) fn numbers(function: &Function, key: &Template) -> Vec<String> {
    placeholders(key, |name, steps| {
        steps.is_empty() && declared(function, name).is_some_and(is_number)
    })
}

/// Returns the roots of the placeholders of which this holds, each once.
fn placeholders(key: &Template, holds: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let (parts, _) = template::parse(&key.literal.value(), key.kind);
    let mut names: Vec<String> = Vec::new();
    for part in parts {
        let Part::Value(placeholder) = part else {
            continue;
        };
        let name = placeholder.root.trim_start_matches("r#");
        if !names.iter().any(|known| known == name) && holds(name, &placeholder.steps) {
            names.push(name.to_owned());
        }
    }
    names
}

fn declared<'a>(function: &'a Function, name: &str) -> Option<&'a Type> {
    function
        .arguments()
        .find_map(|argument| bound_type(&argument.pat, &argument.ty, name))
}

fn is_number(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => is_number(&reference.elem),
        Type::Paren(inner) => is_number(&inner.elem),
        Type::Group(inner) => is_number(&inner.elem),
        Type::Path(path) => path
            .path
            .get_ident()
            .is_some_and(|name| NUMBERS.iter().any(|number| name == number)),
        _ => false,
    }
}

/// Returns the type of what a pattern binds under a name: `String` for `id` in `Path(id): Path<String>`.
fn bound_type<'a>(pattern: &Pat, ty: &'a Type, name: &str) -> Option<&'a Type> {
    match (pattern, ty) {
        (Pat::Ident(bound), ty) if bound.ident.unraw() == name => Some(ty),
        (Pat::Paren(inner), ty) => bound_type(&inner.pat, ty, name),
        (Pat::Reference(inner), Type::Reference(ty)) => bound_type(&inner.pat, &ty.elem, name),
        (Pat::Tuple(patterns), Type::Tuple(types)) if patterns.elems.len() == types.elems.len() => {
            let mut pairs = patterns.elems.iter().zip(&types.elems);
            pairs.find_map(|(pattern, ty)| bound_type(pattern, ty, name))
        }
        (Pat::TupleStruct(wrapper), ty) if wrapper.elems.len() == 1 => {
            bound_type(&wrapper.elems[0], last_argument(ty)?, name)
        }
        _ => None,
    }
}

/// Returns the `T` of `Wrapper<T>`.
fn last_argument(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else {
        return None;
    };
    arguments
        .args
        .iter()
        .rev()
        .find_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        })
}

fn is_text(ty: &Type, function: &Function) -> bool {
    match ty {
        Type::Reference(reference) => is_text(&reference.elem, function),
        Type::Paren(inner) => is_text(&inner.elem, function),
        Type::Group(inner) => is_text(&inner.elem, function),
        Type::ImplTrait(hidden) => gives_text(hidden.bounds.to_token_stream()),
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else {
                return false;
            };
            match last.ident.to_string().as_str() {
                "str" | "String" => true,
                "Option" | "Cow" | "Box" | "Arc" | "Rc" => {
                    last_argument(ty).is_some_and(|ty| is_text(ty, function))
                }
                _ => path.path.get_ident().is_some_and(|name| {
                    let generics = &function.signature.generics;
                    let inline = generics.type_params().filter(|ty| ty.ident == *name);
                    let predicates = generics
                        .where_clause
                        .iter()
                        .flat_map(|clause| &clause.predicates);
                    let bounded = predicates.filter_map(|predicate| match predicate {
                        WherePredicate::Type(bounded) => match &bounded.bounded_ty {
                            Type::Path(ty) if ty.path.is_ident(name) => Some(&bounded.bounds),
                            _ => None,
                        },
                        _ => None,
                    });
                    inline
                        .map(|ty| &ty.bounds)
                        .chain(bounded)
                        .any(|bounds| gives_text(bounds.to_token_stream()))
                }),
            }
        }
        _ => false,
    }
}

/// Returns whether bounds such as `AsRef<str>` and `Into<String>` name a text.
fn gives_text(bounds: TokenStream) -> bool {
    bounds.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == "str" || word == "String",
        TokenTree::Group(group) => gives_text(group.stream()),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;
    use syn::LitStr;

    use super::*;
    use crate::report::Report;
    use crate::target::Resolver;
    use crate::template::Kind;

    type Of = fn(&Function, &Template) -> Vec<String>;

    fn named(of: Of, function: &str, key: &str) -> Vec<String> {
        let function = syn::parse_str(&format!("async fn find{function} {{}}")).expect(function);
        let mut report = Report::default();
        let key = LitStr::new(key, Span::call_site());
        of(
            &function,
            &Resolver::new(&function, None, &mut report).resolve(key, Kind::Key),
        )
    }

    #[test]
    fn text_arguments_are_found_in_any_declaration() {
        for function in [
            "(a: &str)",
            "(a: String)",
            "(mut a: &'a std::string::String)",
            "(a: Option<&str>)",
            "(a: Cow<'_, str>)",
            "(a: Arc<str>)",
            "(a: impl AsRef<str> + Send)",
            "<T: Into<String>>(a: T)",
            "<T>(a: &T) where T: AsRef<str>",
            "(Path(a): Path<String>)",
            "(Path((id, a)): extract::Path<(i64, String)>)",
            "((a, b): (&str, u8))",
        ] {
            assert_eq!(named(texts, function, "x:<a>"), ["a"], "{function}");
        }
        assert_eq!(
            named(texts, "(a: &str, b: String)", "<a.to_lowercase()>:<b>:<a>"),
            ["a", "b"]
        );
    }

    #[test]
    fn other_arguments_and_parts_of_texts_are_not_reported() {
        for (function, key) in [
            ("(a: i64)", "<a>"),
            ("(a: Uuid)", "<a.to_string()>"),
            ("(a: &str)", "<a.len()>"),
            ("(a: &str)", "all"),
            ("(a: Query)", "<a.text>"),
            ("(Path(a): Path<i64>)", "<a>"),
            ("<T>(a: T)", "<a>"),
            ("(&self)", "<self.name>"),
        ] {
            assert!(named(texts, function, key).is_empty(), "{function}, {key}");
        }
    }
    #[test]
    fn integers_are_found_if_they_are_the_whole_placeholder() {
        for (function, key, expected) in [
            (
                "(a: i64, b: &u32, c: String)",
                "<a>:{b}:<c>:<a>",
                &["a", "b"][..],
            ),
            ("(Path(a): Path<usize>)", "<a>", &["a"]),
            ("(r#type: u8)", "<type>", &["type"]),
            ("(a: i64)", "<a.pow(2)>", &[]),
            ("(a: Option<i64>, b: Id)", "<a>:<b>", &[]),
        ] {
            assert_eq!(named(numbers, function, key), expected, "{function}");
        }
    }
}
