//! Checks the annotated functions of a program against each other. It finds evictions that match no stored entry, and keys
//! that a client may choose.

use std::collections::BTreeSet;

use tracing::warn;

use super::policy_check::nearest;
use crate::site::{Role, Site};

/// The characters that a value never adds to a name, because they are escaped.
const ESCAPED: &str = ":*?[]{}<>\\";

/// Warns about functions whose templates look like a mistake.
pub(super) fn report(sites: impl Iterator<Item = &'static Site>) {
    // A generic function is one site; the same line in two places is one warning.
    let sites: Vec<&Site> = sites.collect();
    for unmatched in unmatched(&sites) {
        warn!(
            function = unmatched.function,
            target = unmatched.target,
            nearest = unmatched.nearest,
            "this eviction matches no entry of an annotated function; check its spelling, unless the entry is stored by hand \
             or by another program"
        );
    }
    for site in sites.iter().filter(|site| !site.free_text.is_empty()) {
        warn!(
            function = site.name,
            key = site.template,
            argument = site.free_text,
            "this key contains text: if clients choose it, every text that they send is stored; add `unless` for results that \
             are not worth an entry, or check before the call that the text is a known value"
        );
    }
}

/// A target of an eviction that no stored entry can have.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Unmatched<'a> {
    function: &'a str,
    target: &'a str,
    nearest: Option<&'a str>,
}

/// Returns the targets that no function of any cache stores, because functions with their own caches may share a cache. A
/// program that stores nothing evicts entries of another program, so it is not checked.
fn unmatched<'a>(sites: &[&'a Site]) -> BTreeSet<Unmatched<'a>> {
    let templates = |role| {
        let sites = sites.iter().filter(move |site| site.role == role);
        // A template cannot contain white space.
        sites.flat_map(|site| site.template.split(", ").map(|text| (site.name, text)))
    };
    let stored: Vec<(&str, Vec<Token>)> = templates(Role::Stores)
        .map(|(_, template)| (template, tokens(template)))
        .collect();
    if stored.is_empty() {
        return BTreeSet::new();
    }
    templates(Role::Evicts)
        .filter_map(|(function, target)| {
            let wanted = tokens(target);
            let found = stored.iter().any(|(_, stored)| overlap(&wanted, stored));
            (!found).then(|| Unmatched {
                function,
                target,
                nearest: nearest_template(&wanted, &stored),
            })
        })
        .collect()
}

/// Returns the stored template that is spelled most like the target, without regard to the contents of placeholders.
fn nearest_template<'a>(wanted: &[Token], stored: &[(&'a str, Vec<Token>)]) -> Option<&'a str> {
    let outlines: Vec<(String, &str)> = stored
        .iter()
        .map(|(template, tokens)| (outline(tokens), *template))
        .collect();
    let near = nearest(
        &outline(wanted),
        outlines.iter().map(|(outline, _)| outline.as_str()),
    )?;
    outlines
        .iter()
        .find(|(outline, _)| outline == near)
        .map(|(_, template)| *template)
}

fn outline(tokens: &[Token]) -> String {
    tokens
        .iter()
        .map(|token| match token {
            Token::Literal(c) => *c,
            Token::One => '?',
            Token::Value | Token::Any => '*',
        })
        .collect()
}

/// A piece of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// A placeholder: any text without what every value escapes.
    Value,
    /// `?`
    One,
    /// `*`
    Any,
}

/// Reads a template that the macro has checked.
fn tokens(template: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = template.chars().peekable();
    // A closing character outside a placeholder belongs to one that `<<` or `{{` has made plain.
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '<' | '{' if rest.next_if_eq(&c).is_none() => {
                let close = if c == '<' { '>' } else { '}' };
                rest.by_ref().find(|c| *c == close);
                Token::Value
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
    matches!(token, Token::Any | Token::Value)
}

/// Returns whether one character can be of both.
fn fit(one: Token, other: Token) -> bool {
    match (one, other) {
        (Token::Literal(one), Token::Literal(other)) => one == other,
        (Token::Literal(c), Token::Value) | (Token::Value, Token::Literal(c)) => {
            !ESCAPED.contains(c)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(one: &str, other: &str) -> bool {
        let (one, other) = (tokens(one), tokens(other));
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
        ] {
            assert!(!meet(target, stored), "{target}, {stored}");
        }
    }

    static ARTICLE: Site = Site::new("app::article", "article:<id>").stores();
    static PAGE: Site = Site::new("app::page", "articles:page:<page>")
        .stores()
        .own_cache();
    static RIGHT: Site = Site::new("app::update", "article:<id>, articles:*").evicts();
    static WRONG: Site = Site::new("app::remove", "artcle:*, articles:<id>, feeds:*")
        .evicts()
        .own_cache();
    static CLEAR: Site = Site::new("app::clear", "all_entries");

    #[test]
    fn an_unmatched_eviction_is_reported_with_the_nearest_template() {
        let found = unmatched(&[&ARTICLE, &PAGE, &RIGHT, &WRONG, &CLEAR]);

        let wrong = |target, nearest| Unmatched {
            function: "app::remove",
            target,
            nearest,
        };
        let expected = [
            wrong("artcle:*", Some("article:<id>")),
            wrong("articles:<id>", Some("article:<id>")),
            wrong("feeds:*", None),
        ];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_program_that_stores_nothing_is_not_checked() {
        assert!(unmatched(&[&WRONG, &CLEAR]).is_empty());
    }
}
