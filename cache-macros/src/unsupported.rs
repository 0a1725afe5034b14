//! Functions that cannot have an attribute, and advice for each.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Signature, Type};

use crate::function::{Form, Function};
use crate::report::Report;
use crate::written::Attribute::{self, CacheEvict, CachePut, Cacheable, RateLimit};

/// Reports what prevents the use of `attribute` on a function, whatever its arguments are.
pub(crate) fn refuse(attribute: Attribute, function: &Function, report: &mut Report) {
    let (written, signature) = (attribute.written(), &function.signature);
    let asked = match attribute {
        RateLimit => "limiter",
        Cacheable | CachePut | CacheEvict => "cache",
    };
    if let Some(constness) = &signature.constness {
        report.at(
            constness,
            format!(
                "a `const fn` cannot wait for a {asked}; remove `const`, or remove `{written}`"
            ),
        );
    } else if matches!(function.form, Form::Blocking) {
        report.at(
            signature.fn_token,
            format!(
                "`{written}` needs an `async fn`; write `async fn {}`",
                signature.ident
            ),
        );
    }
    let stores = matches!(attribute, Cacheable | CachePut);
    match function.output() {
        Some(output) if mentions_impl(output.to_token_stream()) => {
            let hidden = match attribute {
                Cacheable | CachePut => "what is to be stored",
                CacheEvict => "whether the function failed",
                RateLimit => "the error that a refused call returns",
            };
            report.at(
                output,
                format!("`impl Trait` hides {hidden}; name the type"),
            );
        }
        Some(Type::Reference(borrowed)) if stores => {
            report.at(borrowed, "a stored value cannot be borrowed; return one that owns what it holds, such as `String` for `&str`");
        }
        Some(Type::Tuple(unit)) if stores && unit.elems.is_empty() => {
            report.at(unit, nothing_returned(attribute, signature));
        }
        None if attribute != CacheEvict => {
            report.at(&signature.ident, nothing_returned(attribute, signature));
        }
        _ => {}
    }
}

fn nothing_returned(attribute: Attribute, signature: &Signature) -> String {
    let advice = match attribute {
        RateLimit => {
            "that could represent a refused call; return a `Result` whose error is `From<cache_runtime::limit::Limited>`"
        }
        Cacheable | CachePut | CacheEvict => {
            "that could be stored; give it a return type, or use `#[cache_evict]`"
        }
    };
    format!("`{}` returns nothing {advice}", signature.ident)
}

fn mentions_impl(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == "impl",
        TokenTree::Group(group) => mentions_impl(group.stream()),
        _ => false,
    })
}
