//! The code that `#[derive(KeyPart)]` generates.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{DeriveInput, Member, Type};

use super::{at, private_path, respanned};
use crate::key_part::{self, Derived, Shape};
use crate::report::Report;

/// Input:
///
/// ```text
/// #[derive(KeyPart)]
/// struct Page { kind: Kind, number: u32 }
/// ```
///
/// Output, where `p` is `::cache_runtime::__private`:
///
/// ```text
/// impl p::KeyPart for Page {
///     fn write_key(&self, key: &mut p::KeyWriter<'_>) {
///         key.value(&self.kind).value(&self.number);
///     }
/// }
/// ```
///
/// The implementation is also generated if there are mistakes, so that rustc does not report it as missing.
pub(crate) fn derive(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut report = Report::default();
    let derived = key_part::read(input, &mut report);
    let errors = report.into_tokens();
    let body = match &errors {
        None => body(&derived.shape),
        Some(_) => quote!(),
    };
    let implementation = implementation(&derived, &body);
    quote!(#errors #implementation)
}

fn implementation(derived: &Derived, body: &TokenStream) -> TokenStream {
    let Derived {
        runtime,
        name,
        generics,
        bounds,
        shape: _,
    } = derived;
    let p = private_path(runtime.as_ref());
    let mut generics = generics.clone();
    if !bounds.is_empty() {
        let bounds = bounds.iter().map(|ty| {
            let p = respanned(&p, at(ty));
            let bound: syn::WherePredicate = syn::parse_quote_spanned!(at(ty)=> #ty: #p::KeyPart);
            bound
        });
        generics.make_where_clause().predicates.extend(bounds);
    }
    let (parameters, arguments, bounds) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #parameters #p::KeyPart for #name #arguments #bounds {
            fn write_key(&self, __cache_key: &mut #p::KeyWriter<'_>) {
                #body
            }
        }
    }
}

fn body(shape: &Shape) -> TokenStream {
    match shape {
        Shape::Fields(fields) if fields.is_empty() => quote!(let _ = __cache_key;),
        Shape::Fields(fields) => {
            let values = values(fields);
            quote!(__cache_key #values;)
        }
        Shape::Hash(fields) => {
            let values = values(fields);
            quote!(__cache_key.hashed(|__cache_key| { __cache_key #values; });)
        }
        Shape::Variants(variants) => {
            let names = variants.iter().map(|variant| variant.unraw().to_string());
            quote!(__cache_key.value(match self { #(Self::#variants => #names,)* });)
        }
    }
}

/// Names the type, and gives the call the user's span: an error about the type underlines it and does not mention the
/// derive.
fn values(fields: &[(Member, Type)]) -> TokenStream {
    let values = fields.iter().map(|(member, ty)| {
        let field = quote!(&self.#member);
        quote_spanned!(ty.span()=> .value::<#ty>(#field))
    });
    values.collect()
}
