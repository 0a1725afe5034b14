//! The code that an attribute generates. Only this file and `expand/` generate Rust.
//!
//! The signature stays as it is. The body becomes a future of the declared type, and one call into the runtime's
//! `__private` decides what to do with it; under `#[rate_limit]` it stays in its place, behind such a call.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::spanned::Spanned;
use syn::{Expr, ExprClosure, Path};

use crate::args::{self, EvictArgs, Plan, RefreshArg, StoreArgs, Targets, TtlArg, Work};
use crate::function::{Boxed, Form, Function};
use crate::report::Report;
use crate::target::{Piece, RETURNED, Source, Template, Value};
use crate::template::Kind;
use crate::unsupported;
use crate::written::Attribute;

/// Like quote's own macro, but names that are bound here cannot collide with the user's names.
macro_rules! quote {
    ($($tokens:tt)*) => { quote_spanned!(Span::mixed_site()=> $($tokens)*) };
}

pub(crate) mod key;
pub(crate) mod key_part;
mod rate_limit;
mod site;

/// Returns the annotated function with its new body. If the attribute has mistakes, returns the function as written, and
/// the errors.
pub(crate) fn attribute(
    attribute: Attribute,
    arguments: TokenStream,
    item: TokenStream,
) -> TokenStream {
    let mut report = Report::default();
    let framed = match syn::parse2(item.clone()) {
        Ok(function) => {
            unsupported::refuse(attribute, &function, &mut report);
            match attribute {
                Attribute::RateLimit => args::limit::check(arguments, &function, &mut report)
                    .and_then(|plan| rate_limit::frame(&plan, &function)),
                _ => args::check(attribute, arguments, &function, &mut report)
                    .and_then(|plan| frame(&plan, &function)),
            }
        }
        Err(error) => {
            report.add(error);
            None
        }
    };
    match (report.into_tokens(), framed) {
        (None, Some(framed)) => framed,
        (errors, _) => quote!(#errors #item),
    }
}

/// Input:
///
/// ```text
/// #[cacheable(key = "event:<id>", ttl = 1800)]
/// async fn find(&self, id: i64) -> Result<Event, Error> { BODY }
/// ```
///
/// Output, where `p` is `::cache_runtime::__private`:
///
/// ```text
/// async fn find(&self, id: i64) -> Result<Event, Error> {
///     static __CACHE_SITE: p::Site = p::Site::new("my_crate::find", "event:<id>").reads().value("Event").ttl_millis(1_800_000)
///         .numbers("id");
///     p::register!(__CACHE_SITE);
///     let __cache_call = {
///         let mut __cache_call = p::ReadCall::new(&__CACHE_SITE);
///         if let Some(mut __cache_key) = __cache_call.key("event:") { __cache_key.value(&id); }
///         __cache_call
///     };
///     let __cache_body = pin!(async move {
///         if false { if let Some(never) = None::<Result<Event, Error>> { return never; } }
///         BODY
///     });
///     let outcome = if false { Some(p::storable(p::Returns::<Result<Event, Error>>::new().__outcome())) } else { None };
///     let mut __cache_call = p::cacheable(__cache_call, outcome);
///     p::Bodied { call: &mut __cache_call, body: __cache_body }.await
/// }
/// ```
fn frame(plan: &Plan, function: &Function) -> Option<TokenStream> {
    let Plan {
        runtime,
        cache,
        condition,
        unkeyed: _,
        work,
    } = plan;
    let p = private_path(runtime.as_ref());
    let output = output(function);

    let site = site::site(&p, plan, function);
    let held = held(work);
    let call = call(&p, cache.as_ref(), condition.as_ref(), work);
    let body = body(&p, function, &output, work)?;
    let answer = answer(&p, work, &output);
    Some(framed(
        function,
        quote!(#site #held #call),
        &quote!(#body #answer),
    ))
}

/// The path of the runtime's `__private`.
fn private_path(runtime: Option<&Path>) -> TokenStream {
    match runtime {
        Some(path) => quote!(#path::__private),
        None => quote!(::cache_runtime::__private),
    }
}

fn full_name(function: &Ident) -> TokenStream {
    let name = format!("::{function}");
    quote!(::core::concat!(::core::module_path!(), #name))
}

fn output(function: &Function) -> TokenStream {
    function
        .output()
        .map_or_else(|| quote!(()), ToTokens::to_token_stream)
}

/// Inserts these statements into the function. The statements of `first` are resolved in the scope of the user's
/// signature.
fn framed(function: &Function, first: TokenStream, then: &TokenStream) -> TokenStream {
    let Function {
        attributes,
        inner_attributes,
        visibility,
        signature,
        brace,
        form,
    } = function;
    let frame = match form {
        Form::Boxed(Boxed { pin, bindings, .. }) => {
            // The bindings have moved `self`.
            let first = match function.receiver() {
                Some(name) => rename_self(first, &name),
                None => first,
            };
            quote!(#pin(async move { #(#bindings)* #first #then }))
        }
        _ => quote!(#first #then),
    };
    let mut framed = quote!(#(#attributes)* #visibility #signature);
    brace.surround(&mut framed, |inside| {
        inside.extend(quote!(#(#inner_attributes)* #frame));
    });
    framed
}

fn rename_self(tokens: TokenStream, name: &Ident) -> TokenStream {
    tokens
        .into_iter()
        .map(|token| match token {
            TokenTree::Ident(word) if word == "self" => {
                TokenTree::Ident(Ident::new(&name.to_string(), name.span()))
            }
            TokenTree::Group(group) => {
                let mut renamed = Group::new(group.delimiter(), rename_self(group.stream(), name));
                renamed.set_span(group.span());
                TokenTree::Group(renamed)
            }
            other => other,
        })
        .collect()
}

/// Returns the arguments that a target or a tag needs after the body has run, because it also names the returned value.
fn held(work: &Work) -> Option<TokenStream> {
    let values: Vec<TokenStream> = returned_templates(work)
        .flat_map(Template::values)
        .filter(|value| value.source == Source::Arguments)
        .map(
            |Value {
                 expression, span, ..
             }| quote_spanned!(*span=> ::std::borrow::ToOwned::to_owned(&#expression)),
        )
        .collect();
    (!values.is_empty()).then(|| quote!(let __cache_held = (#(#values,)*);))
}

/// Returns what the call needs from the arguments before the body may move them.
fn call(
    p: &TokenStream,
    cache: Option<&Expr>,
    condition: Option<&Expr>,
    work: &Work,
) -> TokenStream {
    let (new, cache) = match cache {
        Some(cache) => {
            let (at, p) = (at(cache), respanned(p, at(cache)));
            let cache = quote_spanned!(at=> ::core::convert::AsRef::<#p::Cache>::as_ref(&(#cache)));
            (quote!(by), Some(quote!(, #cache)))
        }
        None => (quote!(new), None),
    };
    let condition = condition.map(|condition| quote!(.when(|| { #condition })));
    match work {
        Work::Cacheable(key, storing) | Work::Put(key, storing) => {
            let ttl = match &storing.ttl {
                Some(TtlArg::Asked(ttl)) => {
                    let (at, p) = (at(ttl), respanned(p, at(ttl)));
                    Some(quote_spanned!(at=> .ttl(|| ::core::convert::Into::<#p::Ttl>::into(#ttl))))
                }
                _ => None,
            };
            let key = written(p, &quote!(key), key);
            let tags: TokenStream = storing
                .tags
                .iter()
                .filter(|tag| !tag.names_returned())
                .map(|tag| written(p, &quote!(tag), tag))
                .collect();
            // A block, since a future holds what was borrowed up to the end of its block.
            quote! {
                let __cache_call = {
                    let mut __cache_call = #p::ReadCall::#new(&__CACHE_SITE #cache) #condition #ttl;
                    #key
                    #tags
                    __cache_call
                };
            }
        }
        Work::Evict(EvictArgs {
            what,
            before,
            always,
            fence,
        }) => {
            let targets = match what {
                Targets::AllEntries => quote!(.all_entries()),
                Targets::Matching(templates) => templates
                    .iter()
                    .filter(|template| !template.names_returned())
                    .map(|template| target(p, template, &mut 0))
                    .collect(),
            };
            let before = before.then(|| quote!(.before()));
            let always = always.then(|| quote!(.always()));
            let fence = fence.then(|| quote!(.fence()));
            quote! {
                let __cache_call = #p::EvictCall::#new(&__CACHE_SITE #cache)
                    #condition #targets #before #always #fence;
            }
        }
    }
}

/// Returns the statement that writes the key or a tag of what is stored.
fn written(p: &TokenStream, method: &TokenStream, template: &Template) -> TokenStream {
    let (text, pieces) = match template.pieces.split_first() {
        Some((Piece::Text(text), rest)) => (text.as_str(), rest),
        _ => ("", template.pieces.as_slice()),
    };
    let writes = writes(p, template, pieces, &mut 0);
    quote! {
        if let ::core::option::Option::Some(mut __cache_key) = __cache_call.#method(#text) {
            __cache_key #writes;
        }
    }
}

/// Returns `.key(…)`, `.tag(…)` or `.pattern(…)`; for a client, only the closure that writes it.
fn target(p: &TokenStream, template: &Template, held: &mut usize) -> TokenStream {
    let writes = writes(p, template, &template.pieces, held);
    match template.kind {
        Kind::Key => quote!(.key(&mut |__cache_key| { __cache_key #writes; })),
        Kind::Tag => quote!(.tag(&mut |__cache_key| { __cache_key #writes; })),
        Kind::Client => quote!(|__limit_key| { __limit_key #writes; }),
        Kind::Pattern => quote!(.pattern(&mut |__cache_pattern| { __cache_pattern #writes; })),
    }
}

/// Returns the calls that write the pieces of a template.
fn writes(p: &TokenStream, template: &Template, pieces: &[Piece], held: &mut usize) -> TokenStream {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => quote!(.text(#text)),
            Piece::Any => quote!(.any()),
            Piece::One => quote!(.one()),
            Piece::Value(value)
                if template.names_returned() && value.source == Source::Arguments =>
            {
                let index = syn::Index::from(*held);
                *held += 1;
                write_value(value, quote!(&__cache_held.#index))
            }
            Piece::Value(value) if value.is_reference => {
                write_value(value, value.expression.clone())
            }
            Piece::Value(value) if value.source == Source::Type => {
                let (ty, span) = (&value.expression, value.span);
                let p = respanned(p, span);
                write_value(value, quote_spanned!(span=> &#p::TypeName::<#ty>::new()))
            }
            Piece::Value(value) => {
                let Value {
                    expression, span, ..
                } = value;
                write_value(value, quote_spanned!(*span=> &#expression))
            }
        })
        .collect()
}

fn write_value(value: &Value, reference: TokenStream) -> TokenStream {
    match value.before {
        None => quote_spanned!(value.span=> .value(#reference)),
        Some(separator) => quote_spanned!(value.span=> .value_before(#reference, #separator)),
    }
}

/// Returns the body as a future. The `return` that is never reached tells rustc the type, so that `?`, literals and a
/// bare `None` are inferred from the signature and a mismatch is reported at the line that caused it.
fn body(
    p: &TokenStream,
    function: &Function,
    output: &TokenStream,
    work: &Work,
) -> Option<TokenStream> {
    let (Form::Async { body } | Form::Boxed(Boxed { body, .. })) = &function.form else {
        return None;
    };
    let at = at(output);
    let never = quote_spanned! {at=>
        if false {
            if let ::core::option::Option::Some(__cache_never) = ::core::option::Option::None::<#output> {
                return __cache_never;
            }
        }
    };
    let body = match refresh(work) {
        // Pinned here: if the body's future were passed by value, every function on its way would hold another copy.
        RefreshArg::Caller => quote!(::core::pin::pin!(async move { #never #body })),
        RefreshArg::Background(word) => {
            let (at, p) = (inside(word), respanned(p, inside(word)));
            quote_spanned!(at=> #p::background(async move { #never #body }))
        }
    };
    Some(quote!(let __cache_body = #body;))
}

/// Returns the call into the runtime. Errors about the stored type underline the return type.
fn answer(p: &TokenStream, work: &Work, output: &TokenStream) -> TokenStream {
    let (at, p) = (at(output), respanned(p, at(output)));
    let outcome = quote_spanned!(at=> #p::Returns::<#output>::new().__outcome());
    let storable = quote_spanned!(at=> #p::storable(#outcome));
    let (entry, outcome, rules) = match work {
        Work::Cacheable(_, storing) => {
            let storable = match storing.local {
                Some(_) => quote_spanned!(at=> #p::locally_storable(#outcome)),
                None => storable,
            };
            if let RefreshArg::Background(word) = storing.refresh {
                return background(at, &p, work, storing, word, &storable);
            }
            let (variant, rules) = variant(&p, work, storing);
            (format!("cacheable{variant}"), storable, rules)
        }
        Work::Put(_, storing) => {
            let (variant, rules) = variant(&p, work, storing);
            (format!("cache_put{variant}"), storable, rules)
        }
        Work::Evict(_) => ("cache_evict".to_owned(), outcome, Some(more(&p, work))),
    };
    let entry = Ident::new(&entry, at);
    let rules = rules.into_iter();
    // Only the type of the outcome counts. What is never evaluated is not compiled either.
    quote_spanned! {at=>
        let mut __cache_call = #p::#entry(
            __cache_call,
            if false { ::core::option::Option::Some(#outcome) } else { ::core::option::Option::None },
            #(#rules,)*
        );
        #p::Bodied { call: &mut __cache_call, body: __cache_body }.await
    }
}

/// The same for a body that may run in its own task. If that task cannot hold something, rustc underlines the argument that asks
/// for the task, once. For a value that cannot be `local` it underlines the return type instead.
fn background(
    output: Span,
    p: &TokenStream,
    work: &Work,
    storing: &StoreArgs,
    word: Span,
    storable: &TokenStream,
) -> TokenStream {
    let (rules, tags) = (rules(p, storing), tags(p, work, storing));
    let (at, entry) = match storing.local {
        Some(_) => (output, "cacheable_background_local"),
        None => (inside(word), "cacheable_background"),
    };
    let (entry, p) = (Ident::new(entry, at), respanned(p, at));
    quote_spanned!(at=> #p::#entry(__cache_call, { #storable }, #rules, #tags, __cache_body).await)
}

/// A span where the user wrote something, for generated code: rustc underlines it, and suggests no edits.
fn at(written: &impl ToTokens) -> Span {
    inside(written.span())
}

fn inside(span: Span) -> Span {
    span.resolved_at(Span::mixed_site())
}

/// rustc underlines an expression as a whole only if all code that is generated for it has the same span.
fn respanned(tokens: &TokenStream, span: Span) -> TokenStream {
    let respanned = tokens.clone().into_iter().map(|mut token| {
        token.set_span(span.resolved_at(token.span()));
        token
    });
    respanned.collect()
}

/// Where a stale value is refreshed.
fn refresh(work: &Work) -> RefreshArg {
    match work {
        Work::Cacheable(_, storing) => storing.refresh,
        Work::Put(..) | Work::Evict(_) => RefreshArg::Caller,
    }
}

/// Returns the end of the name of the entry point, and what the attribute decides for each value, if it decides anything.
fn variant(
    p: &TokenStream,
    work: &Work,
    storing: &StoreArgs,
) -> (&'static str, Option<TokenStream>) {
    let decides = storing.unless.is_some()
        || matches!(storing.ttl, Some(TtlArg::OfValue(_)))
        || storing.tags.iter().any(Template::names_returned);
    let variant = match storing.local {
        Some(_) => "_local",
        None if decides => "_with_rules",
        None => return ("", None),
    };
    let (rules, tags) = (rules(p, storing), tags(p, work, storing));
    (variant, Some(quote!(#rules, #tags)))
}

/// Returns the closure that adds the tags over the returned value.
fn tags(p: &TokenStream, work: &Work, storing: &StoreArgs) -> TokenStream {
    let mut held = 0;
    let tags: TokenStream = returned_templates(work)
        .map(|template| target(p, template, &mut held))
        .collect();
    if tags.is_empty() {
        return quote!(#p::no_tags);
    }
    let owning = match storing.refresh {
        RefreshArg::Background(_) => Some(quote!(move)),
        RefreshArg::Caller => None,
    };
    let returned = Ident::new(RETURNED, Span::mixed_site());
    quote!(#owning |#returned, __cache_tags| { __cache_tags #tags; })
}

/// Returns what is decided for each value: whether it is excluded from storing, and its TTL.
fn rules(p: &TokenStream, storing: &StoreArgs) -> TokenStream {
    let unless = match &storing.unless {
        Some(Expr::Closure(closure)) => {
            let owning = owning(closure, storing.refresh).filter(|_| closure.capture.is_none());
            quote!(#owning #closure)
        }
        Some(function) => function.to_token_stream(),
        None => quote!(#p::keep),
    };
    let ttl = match &storing.ttl {
        Some(TtlArg::OfValue(closure)) => {
            let owning = owning(closure, storing.refresh);
            let ExprClosure {
                inputs_begin,
                inputs,
                inputs_end,
                output,
                body,
                ..
            } = closure;
            let (at, p) = (at(body), respanned(p, at(body)));
            // A `return` in it must return a `Ttl`.
            quote_spanned!(at=> #owning #inputs_begin #inputs #inputs_end #p::ttl_of((|| #output #body)()))
        }
        _ => quote!(#p::no_own_ttl),
    };
    quote!(#unless, #ttl)
}

/// Returns the `move` of a closure: the user wrote it, or the closure moves into a separate task.
fn owning(closure: &ExprClosure, refresh: RefreshArg) -> Option<TokenStream> {
    let at = inside(closure.inputs_begin.span);
    match (&closure.capture, refresh) {
        (Some(owning), _) => Some(owning.to_token_stream()),
        (None, RefreshArg::Background(_)) => Some(quote_spanned!(at=> move)),
        (None, RefreshArg::Caller) => None,
    }
}

/// Returns the targets that name the returned value.
fn more(p: &TokenStream, work: &Work) -> TokenStream {
    let mut held = 0;
    let targets: TokenStream = returned_templates(work)
        .map(|template| target(p, template, &mut held))
        .collect();
    if targets.is_empty() {
        return quote!(#p::no_more);
    }
    let returned = Ident::new(RETURNED, Span::mixed_site());
    quote!(|#returned, __cache_call| __cache_call #targets)
}

/// Returns the targets of an eviction, or the tags of what is stored, that name the returned value.
fn returned_templates(work: &Work) -> impl Iterator<Item = &Template> {
    let templates = match work {
        Work::Cacheable(_, storing) | Work::Put(_, storing) => storing.tags.as_slice(),
        Work::Evict(EvictArgs {
            what: Targets::Matching(templates),
            ..
        }) => templates.as_slice(),
        Work::Evict(_) => &[],
    };
    templates
        .iter()
        .filter(|template| template.names_returned())
}

#[cfg(test)]
mod tests;
