//! Templates of keys and targets: which of them can name the same entry.

use super::finding::nearest;

/// The characters that a value never adds to a name, because they are escaped.
const ESCAPED: &str = ":*?[]{}<>\\";

/// The characters that the text of an integer consists of; a `-` may be escaped.
const OF_NUMBERS: &str = "0123456789-%D";

/// The template of one key or target.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) text: &'static str,
    tokens: Vec<Token>,
}

impl Template {
    /// `numbers` lists the placeholders that are integers.
    pub(crate) fn new(text: &'static str, numbers: &str) -> Self {
        Self {
            text,
            tokens: tokens(text, numbers),
        }
    }

    /// Returns whether some name fits both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        overlap(&self.tokens, &other.tokens)
    }

    /// Returns the first template that a name is written from.
    #[cfg(feature = "admin")]
    pub(crate) fn of_name<'a>(templates: &'a [Self], name: &str) -> Option<&'a Self> {
        let name: Vec<_> = name.chars().map(Token::Literal).collect();
        templates
            .iter()
            .find(|template| overlap(&template.tokens, &name))
    }

    /// Returns a pattern that matches all names that are written from it. It also matches names with more separators.
    #[cfg(feature = "admin")]
    pub(crate) fn pattern(&self) -> String {
        outline(&self.tokens)
    }

    /// Returns whether both differ at most in the contents of their placeholders.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        outline(&self.tokens) == outline(&other.tokens)
    }

    /// Returns the template that is spelled most like this one, without regard to the contents of placeholders.
    pub(super) fn nearest<'a>(
        &self,
        others: impl Iterator<Item = &'a Self>,
    ) -> Option<&'static str> {
        let others: Vec<(String, &str)> = others
            .map(|other| (outline(&other.tokens), other.text))
            .collect();
        let outlines = others.iter().map(|(outline, _)| outline.as_str());
        let near = nearest(&outline(&self.tokens), outlines)?;
        others
            .iter()
            .find(|(outline, _)| outline == near)
            .map(|(_, text)| *text)
    }
}

fn outline(tokens: &[Token]) -> String {
    tokens
        .iter()
        .map(|token| match token {
            Token::Literal(c) => *c,
            Token::One => '?',
            Token::Value | Token::Number | Token::Any => '*',
        })
        .collect()
}

/// A piece of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// A placeholder: any text without what every value escapes.
    Value,
    /// A placeholder for an integer.
    Number,
    /// `?`
    One,
    /// `*`
    Any,
}

/// Reads a template that the macro has checked.
fn tokens(template: &str, numbers: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = template.chars().peekable();
    // A closing character outside a placeholder belongs to one that `<<` or `{{` has made plain.
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '<' | '{' if rest.next_if_eq(&c).is_none() => {
                let close = if c == '<' { '>' } else { '}' };
                let name: String = rest.by_ref().take_while(|c| *c != close).collect();
                let name = name.trim_start_matches("r#");
                match numbers.split(", ").any(|number| number == name) {
                    true => Token::Number,
                    false => Token::Value,
                }
            }
            '*' => Token::Any,
            '?' => Token::One,
            c => Token::Literal(c),
        });
    }
    tokens
}

/// Returns whether some name fits both.
fn overlap(one: &[Token], other: &[Token]) -> bool {
    // Most pairs differ before their first placeholder.
    for pair in one.iter().zip(other) {
        match pair {
            (Token::Literal(one), Token::Literal(other)) if one == other => {}
            (Token::Literal(_), Token::Literal(_)) => return false,
            _ => break,
        }
    }
    // `reached[i][j]`: whether some prefix of a name matches the first `i` parts of one and the first `j` parts of the
    // other.
    let mut reached = vec![vec![false; other.len() + 1]; one.len() + 1];
    reached[0][0] = true;
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            if !reached[i][j] {
                continue;
            }
            let (mine, theirs) = (one.get(i), other.get(j));
            // A run may end, or be empty.
            if mine.is_some_and(is_run) {
                reached[i + 1][j] = true;
            }
            if theirs.is_some_and(is_run) {
                reached[i][j + 1] = true;
            }
            // One character of both; after it a run goes on.
            if let (Some(mine), Some(theirs)) = (mine, theirs)
                && fit(*mine, *theirs)
            {
                reached[i + usize::from(!is_run(mine))][j + usize::from(!is_run(theirs))] = true;
            }
        }
    }
    reached[one.len()][other.len()]
}

fn is_run(token: &Token) -> bool {
    matches!(token, Token::Any | Token::Value | Token::Number)
}

/// Returns whether one character can be of both.
fn fit(one: Token, other: Token) -> bool {
    match (one, other) {
        (Token::Literal(one), Token::Literal(other)) => one == other,
        (Token::Literal(c), Token::Value) | (Token::Value, Token::Literal(c)) => {
            !ESCAPED.contains(c)
        }
        (Token::Literal(c), Token::Number) | (Token::Number, Token::Literal(c)) => {
            OF_NUMBERS.contains(c)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(one: &str, other: &str) -> bool {
        let (one, other) = (tokens(one, "number"), tokens(other, "number"));
        let found = overlap(&one, &other);
        assert_eq!(
            found,
            overlap(&other, &one),
            "the order of the arguments does not matter"
        );
        found
    }

    #[test]
    fn templates_overlap_if_a_name_matches_both() {
        for (target, stored) in [
            ("event:<id>", "event:<id>"),
            ("event:<event.id>", "event:{id}"),
            ("event:7", "event:<id>"),
            ("event:<id>", "event:7"),
            ("event:*", "event:<id>"),
            ("*", "event:<id>"),
            ("*:<id>", "event:<id>:<page>"),
            (
                "events:location:<return.location>:*",
                "events:location:<location>:page:<page>",
            ),
            ("event:?", "event:<id>"),
            ("event:??", "event:42"),
            ("a<<b:*", "a<<b:<id>"),
            ("{{user}:<id>", "{{user}:<id>"),
            ("<T>:*", "<T::TABLE>:<id>"),
            ("<a>-<b>", "<a>"),
            ("a*c", "ab<x>"),
            ("all", "all"),
            ("event:42", "event:<number>"),
            ("event:<id>", "event:<number>"),
            ("event:{number}", "event:<number>"),
            ("event:*", "event:<number>"),
        ] {
            assert!(meet(target, stored), "{target}, {stored}");
        }
    }

    #[test]
    fn templates_without_a_common_name_do_not_overlap() {
        for (target, stored) in [
            ("artcle:*", "article:<id>"),
            ("artcle:<id>", "article:<id>"),
            ("event:<id>", "event:<id>:<page>"),
            ("event:<id>:<page>", "event:<id>"),
            ("event:?", "event:42"),
            ("event:*:page", "event:<id>"),
            ("event", "events"),
            ("a<<b:*", "a<b>:<id>"),
            ("*x", "event:y"),
            ("event:latest", "event:<number>"),
            ("event:<number>:<page>", "event:<number>"),
        ] {
            assert!(!meet(target, stored), "{target}, {stored}");
        }
    }

    #[test]
    fn templates_are_alike_if_only_their_placeholders_differ() {
        let is_alike = |one, other| Template::new(one, "id").is_like(&Template::new(other, ""));

        assert!(is_alike("event:<id>:x", "event:<event.id>:x"));
        assert!(!is_alike("event:<id>", "events:<id>"));
        assert!(!is_alike("event:<id>", "event:<id>:<page>"));
    }

    #[cfg(feature = "admin")]
    #[test]
    fn a_name_belongs_to_the_template_that_it_is_written_from() {
        let is_of_template =
            |template, name| Template::of_name(&[Template::new(template, "")], name).is_some();
        for (template, name, is_of) in [
            ("event:<id>", "event:7", true),
            ("event:<id>", "event:", true),
            ("event:<id>", "event:7:analytics", false),
            ("event:{id}:analytics", "event:7:analytics", true),
            ("near:<place>:page:<page>", "near:Bad%20Ems:page:2", true),
            ("<a>-<b>", "x-y-z", true),
            ("<a>-<b>", "xyz", false),
            ("a<<b:<id>", "a<b:1", true),
            ("all", "all", true),
            ("all", "al", false),
        ] {
            assert_eq!(is_of_template(template, name), is_of, "{template} {name}");
        }
    }
}
