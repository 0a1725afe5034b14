//! The code that `#[rate_limit]` generates: a call that may return, before a body that is unchanged.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;

use super::{at, framed, full_name, output, private_path, respanned, target};
use crate::args::limit::Limiting;
use crate::function::{Boxed, Form, Function};

/// Input:
///
/// ```text
/// #[rate_limit(policy = "payment", key = "<user>", cost = 5)]
/// async fn pay(user: i64, payment: Payment) -> Result<Receipt, Error> { BODY }
/// ```
///
/// Output, where `p` is `::cache_runtime::__private`:
///
/// ```text
/// async fn pay(user: i64, payment: Payment) -> Result<Receipt, Error> {
///     if let Some(limited) = {
///         static __LIMIT_SITE: p::LimitSite = p::LimitSite::new("my_crate::pay", &["payment"]);
///         p::register_limit!(__LIMIT_SITE);
///         let call = p::LimitCall::new(&__LIMIT_SITE, |key| { key.value(&user); }).cost(|| 5);
///         p::limited(call).await
///     } { return p::refused::<Result<Receipt, Error>>(limited); }
///     BODY
/// }
/// ```
///
/// All generated code ends with the `if`: none of it is in the body's scope, or held while the body waits.
pub(super) fn frame(plan: &Limiting, function: &Function) -> Option<TokenStream> {
    let (Form::Async { body } | Form::Boxed(Boxed { body, .. })) = &function.form else {
        return None;
    };
    Some(framed(function, gate(plan, function), body))
}

fn gate(plan: &Limiting, function: &Function) -> TokenStream {
    let Limiting {
        runtime,
        limiter,
        policies,
        client,
        cost,
    } = plan;
    let p = private_path(runtime.as_ref());
    let name = full_name(&function.signature.ident);
    let own_limiter = limiter.as_ref().map(|_| quote!(.own_limiter()));
    let client = target(&p, client, &mut 0);
    let call = match limiter {
        Some(limiter) => {
            let (at, p) = (at(limiter), respanned(&p, at(limiter)));
            let limiter =
                quote_spanned!(at=> ::core::convert::AsRef::<#p::RateLimiter>::as_ref(&(#limiter)));
            quote!(by(&__LIMIT_SITE, #limiter, #client))
        }
        None => quote!(new(&__LIMIT_SITE, #client)),
    };
    let cost = cost.as_ref().map(|cost| quote!(.cost(|| { #cost })));
    let refused = refused(&p, &output(function));
    quote! {
        if let ::core::option::Option::Some(__limit_limited) = {
            static __LIMIT_SITE: #p::LimitSite = #p::LimitSite::new(#name, &[#(#policies),*])#own_limiter;
            #p::register_limit!(__LIMIT_SITE);
            let __limit_call = #p::LimitCall::#call #cost;
            #p::limited(__limit_call).await
        } {
            return #refused;
        }
    }
}

/// Returns the result of a rejected call. Errors about its type underline the return type.
fn refused(p: &TokenStream, output: &TokenStream) -> TokenStream {
    let (at, p) = (at(output), respanned(p, at(output)));
    quote_spanned!(at=> #p::refused::<#output>(__limit_limited))
}
