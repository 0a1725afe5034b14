//! What is written in `key!(…)` and `tag!(…)`: a template, and the values of placeholders that are not in scope by their name.

use proc_macro2::{Ident, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, LitStr, Path, Token};

use crate::report::Report;
use crate::target::{Resolver, Template};
use crate::template::Kind;

/// A key or a tag by hand.
pub(crate) struct KeyText {
    /// The path of the runtime; `None` is `::cache_runtime`.
    pub(crate) runtime: Option<Path>,
    pub(crate) template: Template,
    pub(crate) values: Vec<(Ident, Expr)>,
}

/// Reads the arguments of `key!`, or of `tag!` for a tag, and reports every mistake in them.
pub(crate) fn read(arguments: TokenStream, kind: Kind, report: &mut Report) -> Option<KeyText> {
    let noun = kind.noun();
    let written = |input: ParseStream<'_>| {
        let Ok(literal) = input.parse::<LitStr>() else {
            return Err(input.error(format!(
                "`{noun}!` begins with the template of a {noun} in quotes, such as `{noun}!(\"event:<id>\")`",
            )));
        };
        let (mut runtime, mut values) = (None, Vec::new());
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            if input.peek(Token![crate]) && input.peek2(Token![=]) {
                input.parse::<Token![crate]>()?;
                input.parse::<Token![=]>()?;
                runtime = Some(input.call(Path::parse_mod_style)?);
                continue;
            }
            let name = input.parse::<Ident>()?;
            if !input.peek(Token![=]) {
                let text = format!(
                    "a value has a name; write `{name} = …`, or leave it out if `{name}` is in scope"
                );
                return Err(syn::Error::new(name.span(), text));
            }
            input.parse::<Token![=]>()?;
            values.push((name, input.parse::<Expr>()?));
        }
        Ok((literal, runtime, values))
    };
    let (literal, runtime, values) = match written.parse2(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            report.add(error);
            return None;
        }
    };
    let names: Vec<Ident> = values.iter().map(|(name, _)| name.clone()).collect();
    let template = Resolver::in_scope(&names, report).resolve(literal, kind);
    for (at, name) in names.iter().enumerate() {
        let shown = name.unraw();
        if names[..at].contains(name) {
            report.at(
                name,
                format!("`{shown}` has two values; remove one of them"),
            );
        } else if template.is_understood && !template.named.contains(name) {
            report.at(
                name,
                format!(
                    "the {noun} has no `<{shown}>`; add it to the {noun}, or remove this value"
                ),
            );
        }
    }
    Some(KeyText {
        runtime,
        template,
        values,
    })
}
