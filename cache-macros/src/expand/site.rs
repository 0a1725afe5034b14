//! What is known about a function at compile time: a static, for its calls and for the catalog of the program.

use proc_macro2::{Delimiter, Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::ext::IdentExt;
use syn::{GenericArgument, PathArguments, Type};

use super::full_name;
use crate::args::{EvictArgs, LocalArg, Plan, RefreshArg, StoreArgs, Targets, TtlArg, Work};
use crate::declared;
use crate::function::Function;
use crate::target::Template;
use crate::template::Kind;

/// The static of a function.
pub(super) fn site(p: &TokenStream, plan: &Plan, function: &Function) -> TokenStream {
    let Plan {
        runtime: _,
        cache,
        condition,
        unkeyed,
        work,
    } = plan;
    let name = full_name(&function.signature.ident);
    let own_cache = cache.as_ref().map(|_| quote!(.own_cache()));
    let (template, settings) = match work {
        Work::Cacheable(key, storing) => {
            let free_text = match condition {
                None => free_text(key, storing, function),
                Some(_) => None,
            };
            let settings = settings(key, storing, function);
            let unkeyed = names(quote!(unkeyed), unkeyed);
            (
                key.literal.value(),
                quote!(.reads() #settings #free_text #unkeyed),
            )
        }
        Work::Put(key, storing) => {
            let settings = settings(key, storing, function);
            (key.literal.value(), quote!(.puts() #settings))
        }
        Work::Evict(EvictArgs { what, .. }) => (what.to_string(), evicts(what)),
    };
    quote! {
        static __CACHE_SITE: #p::Site =
            #p::Site::new(#name, #template)#settings #own_cache;
        #p::register!(__CACHE_SITE);
    }
}

fn evicts(what: &Targets) -> TokenStream {
    let Targets::Matching(templates) = what else {
        return TokenStream::new();
    };
    let keys = templates
        .iter()
        .filter(|template| template.kind == Kind::Key);
    let keys = Literal::usize_unsuffixed(keys.count());
    let tags = templates
        .iter()
        .filter(|template| template.kind == Kind::Tag);
    let tags = names(quote!(tags), &literals(tags));
    quote!(.evicts(#keys) #tags)
}

/// Returns the templates as written.
fn literals<'a>(templates: impl Iterator<Item = &'a Template>) -> Vec<String> {
    templates.map(|template| template.literal.value()).collect()
}

/// Returns the texts in the key, if a result is stored for every text that a client sends. A function that returns an
/// `Option` does not store an entry for a text that finds nothing.
fn free_text(key: &Template, storing: &StoreArgs, function: &Function) -> Option<TokenStream> {
    let is_option = |ty: &Type| is_named(ty, "Option");
    let finds_nothing =
        |output: &Type| is_option(output) || first_argument(output).is_some_and(is_option);
    let may_find_nothing =
        function.output().is_some_and(finds_nothing) && storing.none_ttl.is_none();
    if storing.unless.is_some() || may_find_nothing {
        return None;
    }
    names(quote!(free_text), &declared::texts(function, key))
}

/// Returns the call with this list of names, unless it is empty.
fn names(method: TokenStream, names: &[String]) -> Option<TokenStream> {
    let names = names.join(", ");
    (!names.is_empty()).then(|| quote!(.#method(#names)))
}

/// Returns the name of the type that is stored. It is judged by how it is written, because only the catalog shows it.
fn value(function: &Function) -> String {
    let Some(mut value) = function.output() else {
        return "()".to_owned();
    };
    for wrapper in ["Result", "Option"] {
        if is_named(value, wrapper) {
            value = first_argument(value).unwrap_or(value);
        }
    }
    let mut name = String::new();
    write_type(value.to_token_stream(), &mut name);
    name
}

fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

/// Returns the `T` of `Result<T, E>`.
fn first_argument(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    match &path.path.segments.last()?.arguments {
        PathArguments::AngleBracketed(arguments) => match arguments.args.first()? {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        },
        _ => None,
    }
}

/// Writes a type without the paths before its names: `events::Page<crate::Event>` as `Page<Event>`.
fn write_type(tokens: TokenStream, name: &mut String) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) => {
                let is = |mark| move |next: &TokenTree| matches!(next, TokenTree::Punct(next) if next.as_char() == mark);
                if tokens.next_if(is(':')).is_some() {
                    tokens.next_if(is(':'));
                    // The name before a turbofish is not a path.
                    if !tokens.peek().is_some_and(is('<')) {
                        continue;
                    }
                }
                if name.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                    name.push(' ');
                }
                name.push_str(&word.unraw().to_string());
            }
            TokenTree::Punct(mark) => match mark.as_char() {
                ',' => name.push_str(", "),
                ':' => {}
                mark => name.push(mark),
            },
            TokenTree::Literal(number) => name.push_str(&number.to_string()),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                name.push_str(open);
                write_type(group.stream(), name);
                name.push_str(close);
            }
        }
    }
}

fn settings(key: &Template, storing: &StoreArgs, function: &Function) -> TokenStream {
    let value = value(function);
    let numbers = names(quote!(numbers), &declared::numbers(function, key));
    let StoreArgs {
        ttl,
        none_ttl,
        grace,
        ttl_jitter,
        policy,
        version,
        unless: _,
        refresh,
        tags,
        local,
    } = storing;
    let ttl = match ttl {
        Some(TtlArg::Millis(millis)) => {
            let millis = Literal::u64_unsuffixed(*millis);
            Some(quote!(.ttl_millis(#millis)))
        }
        Some(TtlArg::Asked(_) | TtlArg::OfValue(_)) => Some(quote!(.computed_ttl())),
        None => None,
    };
    let background = match refresh {
        RefreshArg::Background(_) => Some(quote!(.background())),
        RefreshArg::Caller => None,
    };
    let none_ttl = none_ttl
        .map(Literal::u64_unsuffixed)
        .map(|millis| quote!(.none_ttl_millis(#millis)));
    let grace = grace
        .map(Literal::u64_unsuffixed)
        .map(|millis| quote!(.grace_millis(#millis)));
    let ttl_jitter = ttl_jitter
        .map(Literal::u8_unsuffixed)
        .map(|percent| quote!(.ttl_jitter(#percent)));
    let policy = policy.as_ref().map(|policy| quote!(.policy(#policy)));
    let version = version
        .map(Literal::u64_unsuffixed)
        .map(|version| quote!(.version(#version)));
    let mut families: Vec<&str> = tags
        .iter()
        .filter(|tag| tag.names_returned())
        .filter_map(Template::family)
        .collect();
    families.sort_unstable();
    families.dedup();
    let families = (!families.is_empty()).then(|| quote!(.tag_families(&[#(#families),*])));
    let tags = names(quote!(tags), &literals(tags.iter()));
    let local = local.map(|local| {
        let LocalArg {
            millis,
            serves_in_outage,
        } = local;
        let millis = Literal::u64_unsuffixed(millis);
        let serve = serves_in_outage.then(|| quote!(.local_outage_serve()));
        quote!(.local_millis(#millis) #serve)
    });
    quote!(.value(#value) #policy #ttl #none_ttl #grace #ttl_jitter #background #version #tags #families #local #numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_type_is_named_without_wrappers_and_paths() {
        for (output, expected) in [
            ("", "()"),
            ("-> i64", "i64"),
            ("-> Result<Option<crate::events::Event>, Error>", "Event"),
            ("-> io::Result<Vec<events::Event>>", "Vec<Event>"),
            ("-> Option<Option<u8>>", "Option<u8>"),
            (
                "-> Result<(i64, &'static str), Error>",
                "(i64, &'static str)",
            ),
            ("-> ::std::vec::Vec::<[u8; 4]>", "Vec<[u8;4]>"),
            (
                "-> HashMap<String, Box<dyn Row>>",
                "HashMap<String, Box<dyn Row>>",
            ),
            ("-> Page<Event>", "Page<Event>"),
        ] {
            let function = syn::parse_str(&format!("async fn find() {output} {{}}")).expect(output);
            assert_eq!(value(&function), expected);
        }
    }
}
