//! Keys, patterns and tags whose placeholders are bound to a function's arguments.

use std::iter;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::{Expr, LitStr, Path};

use crate::function::Function;
use crate::report::{Report, nearest_name};
use crate::template::{self, Kind, Part, Placeholder};

/// A key, a pattern or a tag whose placeholders are expressions.
pub(crate) struct Template {
    pub(crate) kind: Kind,
    pub(crate) literal: LitStr,
    pub(crate) pieces: Vec<Piece>,
    /// The parameters that it names, including those that a misspelt placeholder probably means.
    pub(crate) named: Vec<Ident>,
    /// Whether all of its placeholders are known, so that parameters it does not name are left out.
    pub(crate) is_understood: bool,
}

/// A piece of a [`Template`].
pub(crate) enum Piece {
    Text(String),
    Any,
    One,
    Value(Value),
}

/// The value of a placeholder.
pub(crate) struct Value {
    pub(crate) source: Source,
    /// `event.organizer.id()`; for a [`Source::Type`], the type.
    pub(crate) expression: TokenStream,
    /// Whether the expression is already a reference: the returned value as a whole.
    pub(crate) is_reference: bool,
    /// The span for errors about the value: the template. Code that is generated around the expression must have the same
    /// span, or rustc underlines the whole attribute.
    pub(crate) span: Span,
    pub(crate) before: Option<char>,
}

/// Where the value of a placeholder comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The function's arguments, known before the body runs.
    Arguments,
    /// A constant, or the result of an associated function: the same before and after the body.
    Static,
    /// The name of a type.
    Type,
    /// The returned value, by reference, under the name [`RETURNED`].
    Returned,
}

/// The name of the returned value in generated code.
pub(crate) const RETURNED: &str = "__cache_return";

impl Template {
    /// Returns whether it can be rendered only after the body has returned.
    pub(crate) fn names_returned(&self) -> bool {
        self.values().any(|value| value.source == Source::Returned)
    }

    /// Returns the text before the first `:`, unless it contains a placeholder or is empty.
    pub(crate) fn family(&self) -> Option<&str> {
        match self.pieces.first()? {
            Piece::Text(text) => Some(text.split_once(':')?.0).filter(|family| !family.is_empty()),
            _ => None,
        }
    }

    /// Returns the values of its placeholders.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value(value) => Some(value),
            _ => None,
        })
    }
}

/// Turns the placeholders of templates into expressions.
pub(crate) struct Resolver<'a> {
    names: Names<'a>,
    /// Why `<return…>` is not allowed here, if it is not.
    refusal: Option<&'static str>,
    report: &'a mut Report,
    named: Vec<Ident>,
    is_understood: bool,
}

/// What placeholders can name.
#[derive(Clone, Copy)]
enum Names<'a> {
    /// The parameters of the function with the attribute.
    Function(&'a Function),
    /// These values, and what is in scope.
    Scope(&'a [Ident]),
}

impl<'a> Resolver<'a> {
    /// For an attribute of `function`.
    pub(crate) fn new(
        function: &'a Function,
        refusal: Option<&'static str>,
        report: &'a mut Report,
    ) -> Self {
        Self {
            names: Names::Function(function),
            refusal,
            report,
            named: Vec::new(),
            is_understood: true,
        }
    }

    /// For `key!` and `tag!`, which are given these values by name.
    pub(crate) fn in_scope(values: &'a [Ident], report: &'a mut Report) -> Self {
        Self {
            names: Names::Scope(values),
            refusal: Some(
                "is the returned value, which only attributes have; write a name and its value, such as `id = event.id`",
            ),
            report,
            named: Vec::new(),
            is_understood: true,
        }
    }

    pub(crate) fn resolve(mut self, literal: LitStr, kind: Kind) -> Template {
        let (parts, mistakes) = template::parse(&literal.value(), kind);
        self.is_understood = mistakes.is_empty();
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
            named: self.named,
            is_understood: self.is_understood,
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
        if let Some(mistake) = mismatch(source, placeholder) {
            self.report.at(literal, mistake);
            return None;
        }
        // The root has the span of the parameter. The rest has our span, so that rustc does not suggest edits to the
        // template.
        let steps = literal.span().resolved_at(Span::mixed_site());
        let written = LitStr::new(&format!("{root}{}", placeholder.steps), steps);
        let (Ok(tokens), Ok(_)) = (written.parse::<TokenStream>(), written.parse::<Expr>()) else {
            let written = placeholder.written();
            self.report.at(
                literal,
                format!("`{written}` is not a path of names; a keyword needs `r#` before it"),
            );
            self.is_understood = false;
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
        let written = placeholder.written();
        match placeholder.root.as_str() {
            "return" => match self.refusal {
                None => return Some((Source::Returned, Ident::new(RETURNED, Span::mixed_site()))),
                Some(refusal) => self.report.at(literal, format!("`{written}` {refusal}")),
            },
            "self" => match self.names {
                Names::Scope(_) => {
                    return Some((Source::Arguments, Ident::new("self", literal.span())));
                }
                Names::Function(function) => {
                    if let Some(receiver) = function.receiver() {
                        return Some((Source::Arguments, receiver));
                    }
                    let name = &function.signature.ident;
                    self.report.at(
                        literal,
                        format!("`{name}` has no `self` for `{written}`; add `&self`, or use a parameter"),
                    );
                }
            },
            root => {
                let found = match self.names {
                    Names::Function(function) => {
                        self.parameter(function, root, placeholder, literal)
                    }
                    Names::Scope(values) => self.value_or_local(values, root, placeholder, literal),
                };
                let is_path = placeholder.steps.starts_with("::");
                return found.map(|(source, name)| match source {
                    Source::Type if is_path => (Source::Static, name),
                    _ => (source, name),
                });
            }
        }
        // A parameter should replace it, so the key is not fully known.
        self.is_understood = false;
        None
    }

    fn value_or_local(
        &mut self,
        values: &[Ident],
        root: &str,
        placeholder: &Placeholder,
        literal: &LitStr,
    ) -> Option<(Source, Ident)> {
        let bare = root.trim_start_matches("r#");
        if let Some(name) = values.iter().find(|name| name.unraw() == bare) {
            self.named.push(name.clone());
            return Some((Source::Arguments, name.clone()));
        }
        if let Some(found) = self.elsewhere(root, placeholder, &[]) {
            return Some(found);
        }
        let name = syn::parse_str::<Ident>(root).or_else(|_| syn::parse_str(&format!("r#{root}")));
        let Ok(mut name) = name else {
            self.report.at(literal, format!("`<{root}>` is not a name"));
            self.is_understood = false;
            return None;
        };
        name.set_span(literal.span());
        Some((Source::Arguments, name))
    }

    fn parameter(
        &mut self,
        function: &Function,
        root: &str,
        placeholder: &Placeholder,
        literal: &LitStr,
    ) -> Option<(Source, Ident)> {
        let generics = &function.signature.generics;
        let arguments = function.parameters();
        let types = generics.type_params().map(|ty| ty.ident.clone());
        let constants = generics
            .const_params()
            .map(|constant| constant.ident.clone());
        let known: Vec<(Source, Ident)> = arguments
            .into_iter()
            .map(|name| (Source::Arguments, name))
            .chain(types.map(|name| (Source::Type, name)))
            .chain(constants.map(|name| (Source::Static, name)))
            .collect();
        let same = |(_, name): &&(Source, Ident)| name.unraw() == root.trim_start_matches("r#");
        let found = match known.iter().find(same) {
            Some((source, name)) => {
                self.named.push(name.clone());
                Some((*source, name.clone()))
            }
            None => self.elsewhere(root, placeholder, &known),
        };
        if found.is_some() {
            return found;
        }
        let names: Vec<Ident> = known.into_iter().map(|(_, name)| name).collect();
        let advice = match nearest_name(root, &names) {
            Some(near) => {
                self.named.push(near.clone());
                format!("did you mean `<{}>`?", near.unraw())
            }
            None => {
                self.is_understood = false;
                let names: Vec<String> =
                    names.iter().map(|name| name.unraw().to_string()).collect();
                match names.as_slice() {
                    [] => "it has none".to_owned(),
                    names => format!("it has `<{}>`", names.join(">`, `<")),
                }
            }
        };
        let function = &function.signature.ident;
        self.report.at(
            literal,
            format!("`<{root}>` is not a parameter of `{function}`; {advice}"),
        );
        None
    }

    /// A name that the function does not bind, but its surroundings may: `Self`, a parameter of the `impl`, a path. rustc
    /// reports it if it does not exist.
    fn elsewhere(
        &self,
        root: &str,
        placeholder: &Placeholder,
        known: &[(Source, Ident)],
    ) -> Option<(Source, Ident)> {
        let is_path = placeholder.steps.starts_with("::");
        let is_slip = |(_, name): &(Source, Ident)| {
            root.len() > 1 && name.unraw().to_string().eq_ignore_ascii_case(root)
        };
        let begins_as_a_type = root.starts_with(char::is_uppercase);
        if root != "Self" && !is_path && (!begins_as_a_type || known.iter().any(is_slip)) {
            return None;
        }
        // The macro cannot see which of the two a parameter of the `impl` is, but constants are spelled in capitals.
        let is_constant = root == "N" || root.len() > 1 && !root.contains(char::is_lowercase);
        let source = if is_constant && !is_path {
            Source::Static
        } else {
            Source::Type
        };
        let name = syn::parse_str::<Path>(root).ok()?.get_ident()?.clone();
        Some((source, name))
    }
}

/// Returns what is wrong with the steps that follow a name.
fn mismatch(source: Source, placeholder: &Placeholder) -> Option<String> {
    let Placeholder { root, steps, .. } = placeholder;
    let written = placeholder.written();
    match (source, steps.strip_prefix("::")) {
        (Source::Arguments | Source::Returned, Some(step)) => Some(format!(
            "`{root}` in `{written}` is a value; write `<{root}.{step}>`"
        )),
        (Source::Type, None) if !steps.is_empty() => Some(format!(
            "`{root}` in `{written}` is a type; write `<{root}>`, `<{root}::NAME>` or `<{root}::name()>`"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(function: &str, template: &str) -> Vec<(Source, String)> {
        let function = syn::parse_str(function).expect(function);
        let mut report = Report::default();
        let literal = LitStr::new(template, Span::call_site());
        let template = Resolver::new(&function, None, &mut report).resolve(literal, Kind::Key);
        assert!(report.into_tokens().is_none(), "no errors");
        template
            .values()
            .map(|value| (value.source, value.expression.to_string().replace(' ', "")))
            .collect()
    }

    #[test]
    fn parameters_of_the_function_and_its_surroundings_become_types_and_constants() {
        let function = "async fn find<T: Row, const SIZE: usize>(&self, id: i64) -> T {}";

        for (template, source, expression) in [
            ("<T>", Source::Type, "T"),
            ("<T::NAME>", Source::Static, "T::NAME"),
            ("<T::name().len()>", Source::Static, "T::name().len()"),
            ("<T::Out::NAME>", Source::Static, "T::Out::NAME"),
            ("<SIZE>", Source::Static, "SIZE"),
            ("<Self>", Source::Type, "Self"),
            ("<Self::NAME>", Source::Static, "Self::NAME"),
            ("<Row>", Source::Type, "Row"),
            ("<N>", Source::Static, "N"),
            ("<LIMIT>", Source::Static, "LIMIT"),
            ("<config::LIMIT>", Source::Static, "config::LIMIT"),
        ] {
            assert_eq!(
                values(function, template),
                [(source, expression.to_owned())],
                "{template}"
            );
        }
    }

    #[test]
    fn an_invalid_step_after_a_root_is_refused() {
        let function: Function =
            syn::parse_str("async fn find<T, const N: usize>(&self, id: i64) -> T {}")
                .expect("a function");

        for (template, expected) in [
            (
                "<id::NAME>",
                "`id` in `<id::NAME>` is a value; write `<id.NAME>`",
            ),
            (
                "<self::name()>",
                "`self` in `<self::name()>` is a value; write `<self.name()>`",
            ),
            (
                "<T.name()>",
                "`T` in `<T.name()>` is a type; write `<T>`, `<T::NAME>` or `<T::name()>`",
            ),
            (
                "<Id>",
                "`<Id>` is not a parameter of `find`; it has `<id>`, `<T>`, `<N>`",
            ),
        ] {
            let mut report = Report::default();
            let literal = LitStr::new(template, Span::call_site());
            Resolver::new(&function, None, &mut report).resolve(literal, Kind::Key);
            assert_eq!(report.messages(), [expected]);
        }
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
