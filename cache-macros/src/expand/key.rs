//! The code that `key!` and `tag!` generate.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;

use super::{private_path, writes};
use crate::key::{self, KeyText};
use crate::report::Report;
use crate::template::Kind;

/// Input:
///
/// ```text
/// key!("event:<id>:<name>", name = event.name())
/// ```
///
/// Output, where `p` is `::cache_runtime::__private`:
///
/// ```text
/// match (&(event.name()),) {
///     (name,) => p::key_text(&mut |__cache_key| { __cache_key.text("event:").value(&id).text(":").value(&name); }),
/// }
/// ```
///
/// `tag!` calls `tag_text` instead.
pub(crate) fn text(arguments: TokenStream, kind: Kind) -> TokenStream {
    let mut report = Report::default();
    let read = key::read(arguments, kind, &mut report);
    match (report.into_tokens(), read) {
        (None, Some(key)) => rendered(&key),
        // A `String`, so that rustc reports nothing about its type.
        (errors, _) => quote!({ #errors ::std::string::String::new() }),
    }
}

fn rendered(key: &KeyText) -> TokenStream {
    let KeyText {
        runtime,
        template,
        values,
    } = key;
    let p = private_path(runtime.as_ref());
    let writes = writes(&p, template, &template.pieces, &mut 0);
    let text = match template.kind {
        Kind::Tag => quote!(#p::tag_text),
        _ => quote!(#p::key_text),
    };
    let text = quote!(#text(&mut |__cache_key| { __cache_key #writes; }));
    if values.is_empty() {
        return text;
    }
    let names = values.iter().map(|(name, _)| name);
    let values = values.iter().map(|(_, value)| value);
    // A `match`, so that temporary values live until the key is written.
    quote!(match (#(&(#values),)*) { (#(#names,)*) => #text })
}
