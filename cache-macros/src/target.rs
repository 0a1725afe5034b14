//! Keys and patterns whose placeholders are bound to a function's arguments.

use std::iter;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::{Expr, LitStr};

use crate::function::Function;
use crate::report::{Report, nearest};
use crate::template::{self, Kind, Part, Placeholder};

/// A key or a pattern whose placeholders are expressions.
pub(crate) struct Template {
    pub(crate) kind: Kind,
    pub(crate) literal: LitStr,
    pub(crate) pieces: Vec<Piece>,
}

/// A piece of a [`Template`].
pub(crate) enum Piece {
    Text(String),
    Any,
    One,
    Value(Value),
}

/// What stands in the place of a placeholder.
pub(crate) struct Value {
    pub(crate) source: Source,
    /// `event.organizer.id()`
    pub(crate) expression: TokenStream,
    /// Whether that is a reference already: what the body returned, as a whole.
    pub(crate) is_reference: bool,
    /// Where errors about the value belong: at the template. What is put around the expression must bear the same span,
    /// or rustc underlines the whole attribute.
    pub(crate) span: Span,
    pub(crate) before: Option<char>,
}

/// Where the value of a placeholder comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The function's arguments: known before the body runs.
    Arguments,
    /// What the body returned, by reference under the name [`RETURNED`].
    Returned,
}

/// What the returned value is called in generated code.
pub(crate) const RETURNED: &str = "__cache_return";

impl Template {
    /// Whether it can only be rendered once the body has returned.
    pub(crate) fn names_returned(&self) -> bool {
        self.values().any(|value| value.source == Source::Returned)
    }

    /// What stands in its placeholders.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value(value) => Some(value),
            _ => None,
        })
    }
}

/// Turns the placeholders of templates into expressions.
pub(crate) struct Resolver<'a> {
    pub(crate) function: &'a Function,
    /// Why `<return…>` cannot stand here, where it cannot.
    pub(crate) refusal: Option<&'static str>,
    pub(crate) report: &'a mut Report,
}

impl Resolver<'_> {
    pub(crate) fn resolve(&mut self, literal: LitStr, kind: Kind) -> Template {
        let (parts, mistakes) = template::parse(&literal.value(), kind);
        for mistake in mistakes {
            self.report.at(&literal, mistake);
        }
        let pieces = parts
            .into_iter()
            .filter_map(|part| self.piece(part, &literal))
            .collect();
        Template {
            kind,
            literal,
            pieces,
        }
    }

    fn piece(&mut self, part: Part, literal: &LitStr) -> Option<Piece> {
        Some(match part {
            Part::Text(text) => Piece::Text(text),
            Part::Any => Piece::Any,
            Part::One => Piece::One,
            Part::Value(placeholder) => Piece::Value(self.value(&placeholder, literal)?),
        })
    }

    fn value(&mut self, placeholder: &Placeholder, literal: &LitStr) -> Option<Value> {
        let (source, mut root) = self.root(placeholder, literal)?;
        // The root means what the parameter means; what follows is ours, so that rustc does not offer to edit the template.
        let steps = literal.span().resolved_at(Span::mixed_site());
        let written = LitStr::new(&format!("{root}{}", placeholder.steps), steps);
        let (Ok(tokens), Ok(_)) = (written.parse::<TokenStream>(), written.parse::<Expr>()) else {
            let written = placeholder.written();
            self.report.at(
                literal,
                format!("`{written}` is not a path of names; a keyword needs `r#` before it"),
            );
            return None;
        };
        root.set_span(literal.span().resolved_at(root.span()));
        let expression: TokenStream = iter::once(TokenTree::Ident(root))
            .chain(tokens.into_iter().skip(1))
            .collect();
        let span = expression
            .clone()
            .into_iter()
            .last()
            .map_or(steps, |last| last.span());
        let is_reference = source == Source::Returned && placeholder.steps.is_empty();
        Some(Value {
            source,
            expression,
            is_reference,
            span,
            before: placeholder.before,
        })
    }

    fn root(&mut self, placeholder: &Placeholder, literal: &LitStr) -> Option<(Source, Ident)> {
        let function = &self.function.signature.ident;
        let written = placeholder.written();
        match placeholder.root.as_str() {
            "return" => match self.refusal {
                None => return Some((Source::Returned, Ident::new(RETURNED, Span::mixed_site()))),
                Some(refusal) => self.report.at(literal, format!("`{written}` {refusal}")),
            },
            "self" => match self.function.receiver() {
                Some(receiver) => return Some((Source::Arguments, receiver)),
                None => self.report.at(
                    literal,
                    format!("`{function}` has no `self` for `{written}`; add `&self`, or use a parameter"),
                ),
            },
            root => {
                let parameters = self.function.parameters();
                if let Some(name) = parameters.iter().find(|name| name.unraw() == root.trim_start_matches("r#")) {
                    return Some((Source::Arguments, name.clone()));
                }
                let names: Vec<String> = parameters.iter().map(|name| name.unraw().to_string()).collect();
                let advice = match nearest(root, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `<{near}>`?"),
                    None if names.is_empty() => "it has none".to_owned(),
                    None => format!("it has `<{}>`", names.join(">`, `<")),
                };
                self.report.at(literal, format!("`<{root}>` is not a parameter of `{function}`; {advice}"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(function: &str, template: &str) -> Vec<(Source, String)> {
        let function = syn::parse_str(function).expect(function);
        let mut report = Report::default();
        let literal = LitStr::new(template, Span::call_site());
        let template = Resolver {
            function: &function,
            refusal: None,
            report: &mut report,
        }
        .resolve(literal, Kind::Key);
        assert!(report.into_tokens().is_none(), "there is no mistake");
        template
            .values()
            .map(|value| (value.source, value.expression.to_string().replace(' ', "")))
            .collect()
    }

    #[test]
    fn placeholders_become_expressions() {
        let function = "async fn find(&self, id: i64, Path(name): Path<String>, r#type: Type) {}";

        for (template, expression) in [
            ("<id>", "id"),
            ("<name.len()>", "name.len()"),
            ("<self.tenant.0.1>", "self.tenant.0.1"),
            ("<type.r#fn>", "r#type.r#fn"),
        ] {
            assert_eq!(
                values(function, template),
                [(Source::Arguments, expression.to_owned())],
                "{template}"
            );
        }
        let returned = (Source::Returned, "__cache_return.id".to_owned());
        assert_eq!(values(function, "<return.id>"), [returned]);
    }
}
