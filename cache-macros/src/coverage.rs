//! Finds what a key leaves out: calls that differ only in that share one entry.

use std::collections::HashSet;

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{Expr, GenericParam, PatType, WherePredicate};

use crate::function::{Function, Inside, is_async_traits, visit_names};
use crate::report::{Report, nearest_name};
use crate::target::Template;

/// Reports every argument that is neither in the `key` nor `ignored`, and every mistake in `ignore`. If the key was not
/// understood, no argument is reported as missing.
///
/// Each name that the signature binds is an argument. A name that begins with `_` may be left out. So may the argument
/// that the attribute takes its `cache` from: another cache holds other entries.
///
/// Returns the arguments that are left out because of their `_` although the body reads them.
pub(crate) fn check_arguments(
    function: &Function,
    key: Option<&Template>,
    cache: Option<&Expr>,
    ignored: &[Ident],
    report: &mut Report,
) -> Vec<String> {
    let named = key.map_or(&[][..], |key| key.named.as_slice());
    let mut covered = check_ignored(function, named, ignored, report);
    let mut unkeyed = Vec::new();
    if key.is_none() {
        return unkeyed;
    }
    covered.extend(named.iter().chain(cache.and_then(root)).cloned());
    let mut visit = |name: &Ident| {
        if covered.contains(name) {
            // The names after its `@` are parts of it.
            return Inside::Skip;
        }
        let word = name.unraw().to_string();
        // Under `#[async_trait]` a name is found twice.
        if covered.insert(name.clone()) {
            if !word.starts_with('_') {
                report.at(name, left_out(name, &word, ignored));
            } else if !is_async_traits(name) && reads(function.body(), &word) {
                unkeyed.push(word);
            }
        }
        Inside::Visit
    };
    for pattern in function.patterns() {
        visit_names(pattern, &mut visit);
    }
    unkeyed
}

/// Returns whether a body names a variable, also in the text of a `format!`.
fn reads(body: TokenStream, name: &str) -> bool {
    body.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == name,
        TokenTree::Literal(text) => {
            let text = text.to_string();
            [format!("{{{name}}}"), format!("{{{name}:")]
                .iter()
                .any(|captured| text.contains(captured))
        }
        TokenTree::Group(group) => reads(group.stream(), name),
        TokenTree::Punct(_) => false,
    })
}

fn left_out(name: &Ident, word: &str, ignored: &[Ident]) -> String {
    let ignore = match ignored {
        [] => format!("write `ignore = [{name}]`"),
        _ => format!("add `{name}` to `ignore`"),
    };
    format!(
        "`{name}` is not in the key, so calls that differ only in `{name}` share one entry; \
         add `<{word}>` to the key, or {ignore} if the result does not depend on it"
    )
}

/// Returns the ignored parameters, including those that a misspelt name probably means.
fn check_ignored(
    function: &Function,
    named: &[Ident],
    ignored: &[Ident],
    report: &mut Report,
) -> HashSet<Ident> {
    let parameters = function.parameters();
    let function = &function.signature.ident;
    let mut covered = HashSet::new();
    for name in ignored {
        if name == "self" {
            report.at(name, "a key may always omit `self`; remove it here");
        } else if named.contains(name) {
            report.at(
                name,
                format!("`{name}` is in the key, so it cannot be ignored; remove it here, or from the key"),
            );
        } else if parameters.contains(name) {
            if !covered.insert(name.clone()) {
                report.at(
                    name,
                    format!("`{name}` is already ignored; leave one of the two out"),
                );
            }
        } else {
            let advice = match nearest_name(&name.unraw().to_string(), &parameters) {
                Some(near) => {
                    covered.insert(near.clone());
                    format!("did you mean `{near}`?")
                }
                None => "remove it here".to_owned(),
            };
            report.at(
                name,
                format!("`{name}` is not a parameter of `{function}`; {advice}"),
            );
        }
    }
    covered
}

/// Returns the variable that an expression such as `state.caches[0]` begins with.
fn root(expression: &Expr) -> Option<&Ident> {
    match expression {
        Expr::Path(path) => path.path.get_ident(),
        Expr::Field(field) => root(&field.base),
        Expr::Index(index) => root(&index.expr),
        Expr::MethodCall(call) => root(&call.receiver),
        Expr::Reference(reference) => root(&reference.expr),
        Expr::Unary(unary) => root(&unary.expr),
        Expr::Paren(inner) => root(&inner.expr),
        Expr::Group(inner) => root(&inner.expr),
        _ => None,
    }
}

/// Reports every type and const parameter of the function that its result may depend on and that the `key` does not name.
///
/// These are all constants, and all types except those that occur only in arguments that the key leaves out, such as the
/// `E` of an ignored `db: E`: the result does not depend on these. An argument in the key does not stand for its type,
/// because two types may have the same text. If the key was not understood, nothing is reported as missing.
pub(crate) fn check_generics(
    function: &Function,
    key: Option<&Template>,
    any_type: Option<&Ident>,
    report: &mut Report,
) {
    let Some(key) = key else { return };
    let nameless: Vec<&PatType> = (function.arguments())
        .filter(|argument| has_nameless_type(function, key, argument))
        .collect();
    let unnamed: Vec<&GenericParam> = (function.signature.generics.params.iter())
        .filter(|parameter| name(parameter).is_some_and(|name| !key.named.contains(name)))
        .collect();
    if let Some(any_type) = any_type {
        if unnamed.is_empty() && nameless.is_empty() {
            report.at(
                any_type,
                format!(
                    "the key omits no type or const parameter of `{}`; remove `any_type`",
                    function.signature.ident
                ),
            );
        }
        return;
    }
    for argument in nameless {
        report.at(
            &argument.ty,
            "calls that differ only in the type behind this `impl` share one entry; give it a name, as in `<T: Trait>`, and add \
             `<T>` to the key, or write `any_type` if the result does not depend on it",
        );
    }
    let left_out = types_left_out(function, key);
    for parameter in unnamed {
        match parameter {
            GenericParam::Const(constant) => {
                let name = &constant.ident;
                report.at(
                    name,
                    format!(
                        "`{name}` is not in the key, so calls that differ only in `{name}` share one entry; \
                         add `<{name}>` to the key, or write `any_type` if the result does not depend on it"
                    ),
                );
            }
            GenericParam::Type(ty)
                if is_returned(function, &ty.ident) || !left_out.contains(&ty.ident) =>
            {
                let name = &ty.ident;
                report.at(
                    name,
                    format!(
                        "`{name}` is not in the key, so calls that differ only in `{name}` share one entry; \
                         add `<{name}>`, `<{name}::NAME>` or `<{name}::name()>` to the key, or write `any_type` if the result does not depend on it"
                    ),
                );
            }
            _ => {}
        }
    }
}

/// Returns whether an argument in the key has a type that the key cannot name. A value that contains only its type is
/// never left out.
fn has_nameless_type(function: &Function, key: &Template, argument: &PatType) -> bool {
    let ty = || argument.ty.to_token_stream();
    let is_in_key = || {
        let names = function.names_of(argument);
        names.iter().any(|name| key.named.contains(name))
    };
    contains(ty(), "impl") && (contains(ty(), "PhantomData") || is_in_key())
}

/// Returns the name of a type or a constant.
fn name(parameter: &GenericParam) -> Option<&Ident> {
    match parameter {
        GenericParam::Type(ty) => Some(&ty.ident),
        GenericParam::Const(constant) => Some(&constant.ident),
        GenericParam::Lifetime(_) => None,
    }
}

fn is_returned(function: &Function, ty: &Ident) -> bool {
    let output = function.output().map(ToTokens::to_token_stream);
    // A macro in the place of a type may name any parameter.
    output.is_some_and(|output| mentions(output.clone(), ty) || calls_a_macro(output))
}

/// Returns the type parameters that occur in arguments that the key leaves out, or in the bounds of such a parameter,
/// such as `D` in `E: Executor<Database = D>`, and in no argument in the key.
fn types_left_out(function: &Function, key: &Template) -> HashSet<Ident> {
    let generics = &function.signature.generics;
    let mut sources = Vec::new();
    let mut in_key = Vec::new();
    for argument in function.arguments() {
        let is_named = |name: &Ident| key.named.contains(name);
        let ty = argument.ty.to_token_stream();
        // A value of this type contains only its type.
        let is_type = contains(ty.clone(), "PhantomData");
        if is_type || function.names_of(argument).iter().any(is_named) {
            in_key.push(ty);
        } else {
            sources.push(ty);
        }
    }
    sources.extend(function.signature.receiver().map(ToTokens::to_token_stream));
    let mut taken = HashSet::new();
    while let Some(source) = sources.pop() {
        for ty in generics.type_params() {
            if !mentions(source.clone(), &ty.ident) || !taken.insert(ty.ident.clone()) {
                continue;
            }
            sources.push(ty.bounds.to_token_stream());
            let predicates = generics
                .where_clause
                .iter()
                .flat_map(|clause| &clause.predicates);
            sources.extend(predicates.filter_map(|predicate| match predicate {
                WherePredicate::Type(bounded)
                    if mentions(bounded.bounded_ty.to_token_stream(), &ty.ident) =>
                {
                    Some(bounded.bounds.to_token_stream())
                }
                _ => None,
            }));
        }
    }
    taken.retain(|ty| !in_key.iter().any(|source| mentions(source.clone(), ty)));
    taken
}

/// Returns whether tokens name a parameter. `path::T` and `Iterator<T = u8>` do not.
fn mentions(tokens: TokenStream, name: &Ident) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |token: Option<&TokenTree>, punct: char| matches!(token, Some(TokenTree::Punct(found)) if found.as_char() == punct);
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Ident(word) => {
            let follows_path =
                at >= 2 && tokens[at - 2..at].iter().all(|token| is(Some(token), ':'));
            word == name && !follows_path && !is(tokens.get(at + 1), '=')
        }
        TokenTree::Group(group) => mentions(group.stream(), name),
        _ => false,
    })
}

fn contains(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(found) => found == word,
        TokenTree::Group(group) => contains(group.stream(), word),
        _ => false,
    })
}

fn calls_a_macro(tokens: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    tokens.windows(2).any(|pair| {
        matches!(pair, [TokenTree::Punct(bang), TokenTree::Group(_)] if bang.as_char() == '!')
    }) || tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => calls_a_macro(group.stream()),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;
    use syn::LitStr;
    use syn::parse::Parser;

    use super::*;
    use crate::target::Resolver;
    use crate::template::Kind;

    /// Returns the errors for a function with this signature, key, cache and `ignore`.
    fn reported(signature: &str, key: &str, cache: &str, ignore: &str) -> Vec<String> {
        let function: Function =
            syn::parse_str(&format!("async fn find({signature}) {{}}")).expect(signature);
        let mut report = Report::default();
        let literal = LitStr::new(key, Span::call_site());
        let key = Resolver::new(&function, None, &mut report).resolve(literal, Kind::Key);
        assert!(report.into_tokens().is_none(), "a valid key");
        let cache: Option<Expr> = (!cache.is_empty()).then(|| syn::parse_str(cache).expect(cache));
        let ignored: Vec<Ident> = ignore
            .split_terminator(", ")
            .map(|name| Ident::parse_any.parse_str(name).expect(name))
            .collect();
        let mut report = Report::default();
        check_arguments(&function, Some(&key), cache.as_ref(), &ignored, &mut report);
        report.messages()
    }

    fn left_out(signature: &str, key: &str) -> Vec<String> {
        reported(signature, key, "", "")
            .into_iter()
            .map(|message| message.split('`').nth(1).unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn every_argument_missing_from_the_key_is_reported() {
        for (signature, key, expected) in [
            ("kind: &str, page: u32", "list:<kind>", &["page"][..]),
            ("kind: &str, page: u32", "list", &["kind", "page"]),
            ("kind: &str, page: u32", "list:<kind>:{page}", &[]),
            ("&self, id: i64", "a", &["id"]),
            ("self: Arc<Self>, id: i64", "<self.tenant>:<id>", &[]),
            ("mut page: u32", "a", &["page"]),
            ("r#type: u8", "a", &["r#type"]),
            ("r#type: u8", "<type>", &[]),
        ] {
            assert_eq!(left_out(signature, key), expected, "{signature}, {key}");
        }
    }

    #[test]
    fn an_argument_with_an_underscore_is_returned_if_the_body_reads_it() {
        for (signature, key, ignore, body, expected) in [
            ("_page: u32", "list", "", "query(_page)", &["_page"][..]),
            (
                "_a: u32, _b: u32",
                "list",
                "",
                r#"format!("{_a} {_b:?}")"#,
                &["_a", "_b"],
            ),
            (
                "Page(_page): Page",
                "list",
                "",
                "{ query(&[_page]) }",
                &["_page"],
            ),
            ("_page: u32", "list:<_page>", "", "query(_page)", &[]),
            ("_page: u32", "list", "_page", "query(_page)", &[]),
            ("_page: u32", "list", "", r#"query("_page", _pages)"#, &[]),
        ] {
            let function: Function =
                syn::parse_str(&format!("async fn find({signature}) {{ {body} }}")).expect(body);
            let mut report = Report::default();
            let key = LitStr::new(key, Span::call_site());
            let key = Resolver::new(&function, None, &mut report).resolve(key, Kind::Key);
            let ignored: Vec<Ident> = ignore
                .split_terminator(", ")
                .map(|name| Ident::new(name, Span::call_site()))
                .collect();

            let unkeyed = check_arguments(&function, Some(&key), None, &ignored, &mut report);

            assert_eq!(unkeyed, expected, "{signature} {body}");
            assert!(report.into_tokens().is_none(), "{signature}");
        }
    }

    #[test]
    fn a_field_or_a_method_covers_its_argument() {
        assert!(left_out("query: Query, ids: &[i64]", "<query.page>:<ids.len()>").is_empty());
    }

    #[test]
    fn each_name_of_a_pattern_is_an_argument() {
        for (signature, key, expected) in [
            ("Path(id): Path<i64>", "a:<id>", &[][..]),
            ("Path((slug, id)): Path<(String, i64)>", "a:<id>", &["slug"]),
            ("Query { page, tag: t, .. }: Query", "a:<page>", &["t"]),
            ("[first, .., last]: [u8; 4]", "a", &["first", "last"]),
            ("&(a, ref b): &(u8, u8)", "a:<b>", &["a"]),
            ("_: u8, Path(_): Path<i64>", "a", &[]),
            // Both sides of an `@` bind the same value.
            ("whole @ Path(id): Path<i64>", "<whole.0>", &[]),
            ("whole @ Path(id): Path<i64>", "a", &["whole", "id"]),
        ] {
            assert_eq!(left_out(signature, key), expected, "{signature}, {key}");
        }
    }

    #[test]
    fn an_underscore_excludes_an_argument() {
        assert!(left_out("_db: &Db, __arg1: u8", "a").is_empty());
    }

    #[test]
    fn the_argument_with_the_cache_can_be_omitted() {
        for cache in [
            "app",
            "app.cache",
            "&app.caches[0]",
            "(*app).cache()",
            "app.cache().clone()",
        ] {
            assert!(reported("app: &App", "a", cache, "").is_empty(), "{cache}");
        }
        for cache in ["self.cache", "CACHE", "pick(app)"] {
            assert_eq!(
                reported("&self, app: &App", "a", cache, "").len(),
                1,
                "{cache}"
            );
        }
    }

    #[test]
    fn ignored_arguments_can_be_omitted() {
        assert!(reported("db: &Db, r#type: u8, id: u8", "<id>", "", "db, r#type").is_empty());
        assert!(reported("_db: &Db, app: App", "a", "app.cache", "_db, app").is_empty());
        let missing = reported("db: &Db, id: u8", "a", "", "db");
        let [missing] = missing.as_slice() else {
            panic!("{missing:?}")
        };
        assert!(
            missing.ends_with(
                "add `<id>` to the key, or add `id` to `ignore` if the result does not depend on it"
            ),
            "{missing}"
        );
    }

    #[test]
    fn an_invalid_ignore_is_reported_with_advice() {
        for (ignore, expected) in [
            (
                "db, dbb",
                "`dbb` is not a parameter of `find`; did you mean `db`?",
            ),
            (
                "db, clock",
                "`clock` is not a parameter of `find`; remove it here",
            ),
            (
                "db, db",
                "`db` is already ignored; leave one of the two out",
            ),
            (
                "db, id",
                "`id` is in the key, so it cannot be ignored; remove it here, or from the key",
            ),
            ("db, self", "a key may always omit `self`; remove it here"),
            // The argument that was probably meant is not also reported as missing.
            (
                "dbb",
                "`dbb` is not a parameter of `find`; did you mean `db`?",
            ),
        ] {
            assert_eq!(
                reported("&self, db: &Db, id: i64", "a:<id>", "", ignore),
                [expected],
                "{ignore}"
            );
        }
    }

    /// Returns the type and const parameters that are reported as missing from this key.
    fn generics_left_out(function: &str, key: &str, any_type: bool) -> Vec<String> {
        let parsed: Function =
            syn::parse_str(&format!("async fn find{function} {{}}")).expect(function);
        let mut report = Report::default();
        let literal = LitStr::new(key, Span::call_site());
        let key = Resolver::new(&parsed, None, &mut report).resolve(literal, Kind::Key);
        let flag = Ident::new("any_type", Span::call_site());
        check_generics(&parsed, Some(&key), any_type.then_some(&flag), &mut report);
        let messages = report.messages().into_iter();
        messages
            .map(|message| message.split('`').nth(1).unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn a_returned_type_must_be_in_the_key() {
        for output in [
            "T",
            "Vec<Option<T>>",
            "Result<Page<T>, Error>",
            "Answer<T>",
            "T::Out",
            "<T as Row>::Out",
            "[T; 3]",
            "(u8, T)",
            "Box<dyn Fn(T) -> u8>",
            "ids!(T)",
            "Option<ids!()>",
        ] {
            let function = format!("<'a, T: Row>(value: &'a T) -> {output}");
            assert_eq!(generics_left_out(&function, "a", false), ["T"], "{output}");
            for key in ["<T>", "<T::NAME>", "a:<T::name()>:b"] {
                assert!(
                    generics_left_out(&function, key, false).is_empty(),
                    "{output}, {key}"
                );
            }
            assert!(
                generics_left_out(&function, "a", true).is_empty(),
                "{output}"
            );
        }
        for output in ["u8", "other::T", "Box<dyn Iterator<T = u8>>", "TT"] {
            let function = format!("<T>(_value: T) -> {output}");
            assert!(
                generics_left_out(&function, "a", false).is_empty(),
                "{output}"
            );
        }
    }

    #[test]
    fn a_type_chosen_by_the_caller_must_be_in_the_key() {
        for (function, expected) in [
            ("<T: Table>(id: i64) -> i64", &["T"][..]),
            ("<T>(id: i64) -> i64 where T: Table", &["T"]),
            ("<T: Table>(rows: Vec<T>) -> i64", &[]),
            (
                "<E: Executor<Database = D>, D: Database>(db: E) -> i64",
                &[],
            ),
            (
                "<E, D>(db: &E) -> i64 where for<'a> &'a E: Executor<Database = D>, D: Database",
                &[],
            ),
            ("(db: impl Executor) -> i64", &[]),
            ("<T>(self: Handle<T>) -> i64", &[]),
        ] {
            assert_eq!(
                generics_left_out(function, "a", false),
                expected,
                "{function}"
            );
        }
    }

    #[test]
    fn an_argument_in_the_key_does_not_cover_its_type() {
        for function in [
            "<T>(id: T) -> i64",
            "<T>(id: &Id<T>) -> i64",
            "<T>(Id(id): Id<T>) -> i64",
            "<T: Table>(id: T::Id) -> i64",
            "<T>(_db: &Db<T>, id: Id<T>) -> i64",
        ] {
            assert_eq!(
                generics_left_out(function, "<id>", false),
                ["T"],
                "{function}"
            );
            assert!(generics_left_out(function, "<T>:<id>", false).is_empty());
        }
        for function in [
            "(id: impl KeyPart) -> i64",
            "(id: &Id<impl Table>) -> i64",
            "(_table: PhantomData<impl Table>, id: i64) -> i64",
        ] {
            assert_eq!(
                generics_left_out(function, "<id>", false).len(),
                1,
                "{function}"
            );
            assert!(generics_left_out(function, "<id>", true).is_empty());
        }
        assert!(generics_left_out("(_db: impl Db, id: i64) -> i64", "<id>", false).is_empty());
        for function in [
            "<T>(_table: PhantomData<T>, id: i64) -> i64",
            "<T>(_table: std::marker::PhantomData<fn() -> T>, id: i64) -> i64",
        ] {
            assert_eq!(
                generics_left_out(function, "<id>", false),
                ["T"],
                "{function}"
            );
        }
    }

    #[test]
    fn every_const_parameter_must_be_in_the_key() {
        let function = "<T, const N: usize>(values: [T; N]) -> u8";

        assert_eq!(generics_left_out(function, "a", false), ["N"]);
        assert!(generics_left_out(function, "a:<N>", false).is_empty());
        assert!(generics_left_out(function, "a:<N.to_string()>", false).is_empty());
        assert!(generics_left_out(function, "a", true).is_empty());
    }

    #[test]
    fn any_type_needs_a_parameter_missing_from_the_key() {
        for function in [
            "(id: i64) -> u8",
            "<'a>(id: &'a str) -> u8",
            "<T>(id: i64) -> T",
        ] {
            assert_eq!(
                generics_left_out(function, "<T>", true).len(),
                1,
                "{function}"
            );
        }
    }
}
