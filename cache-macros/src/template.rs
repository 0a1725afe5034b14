//! The key language: the text of `key`, `pattern` and `tag`.
//!
//! Works on plain strings. Other modules decide whether `<id>` is a parameter.

use std::mem;

/// What a template names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One entry.
    Key,
    /// A client of a rate limit.
    Client,
    /// Every entry that matches: `*` is any run of characters, `?` is one.
    Pattern,
    /// A group of entries.
    Tag,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Literal characters.
    Text(String),
    /// `*`
    Any,
    /// `?`
    One,
    /// A placeholder.
    Value(Placeholder),
}

/// `<event.organizer.id()>`, or `<T::NAME>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placeholder {
    /// `event`, or `self`, or `return`, or `T`.
    pub(crate) root: String,
    /// `.organizer.id()`, or `::NAME`
    pub(crate) steps: String,
    /// The character that ends this value, if it is not a character that every value escapes. This value must escape it
    /// too.
    pub(crate) before: Option<char>,
}

/// Roots of the framework's own records, which are not entries.
const RESERVED: [&str; 4] = ["session", "sessions", "ratelimit", "cache"];

/// The characters that every value escapes and no escape contains. `%` is also escaped, but it begins every escape, so it
/// cannot be a separator.
const ESCAPED: &str = ":*?[]{}<>\\";

/// Parses a template into its parts and its mistakes.
pub(crate) fn parse(text: &str, kind: Kind) -> (Vec<Part>, Vec<String>) {
    let mut reader = Reader {
        kind,
        rest: text,
        text: String::new(),
        plain: Vec::new(),
        parts: Vec::new(),
        errors: Vec::new(),
    };
    reader.read();
    let Reader {
        mut parts,
        mut errors,
        ..
    } = reader;
    if text.is_empty() {
        errors.push(match kind {
            Kind::Key => "the key is empty; write one such as `\"event:<id>\"`".to_owned(),
            Kind::Client => "the key is empty; write one such as `\"<user_id>\"`, or `\"all\"` to count all clients together".to_owned(),
            Kind::Pattern => {
                "the pattern is empty; write one such as `\"event:*\"`, or `all_entries`".to_owned()
            }
            Kind::Tag => "the tag is empty; write one such as `\"events\"` or `\"user:<user_id>\"`".to_owned(),
        });
    }
    // The names of clients and of tags are not names of entries.
    if !matches!(kind, Kind::Client | Kind::Tag) {
        reserved_root(&parts, &mut errors);
    }
    // A part that could not be parsed may separate its neighbours.
    if errors.is_empty() {
        separate(&mut parts, kind, &mut errors);
    }
    (parts, errors)
}

impl Kind {
    /// Returns the word for it in messages.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Key | Self::Client | Self::Pattern => "key",
            Self::Tag => "tag",
        }
    }
}

struct Reader<'a> {
    kind: Kind,
    rest: &'a str,
    text: String,
    /// The closing characters of `<<` and `{{`, which are plain.
    plain: Vec<char>,
    parts: Vec<Part>,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self) {
        while let Some(c) = self.next() {
            match c {
                '<' => self.opened('<', '>'),
                '{' => self.opened('{', '}'),
                '>' | '}' => self.closed(c),
                '*' | '?' => self.wildcard(c),
                _ if c.is_whitespace() || c.is_control() => self.errors.push(format!(
                    "a {} cannot contain white space or control characters (found `{}`); use `:`, `-` or `_`",
                    self.kind.noun(),
                    c.escape_debug()
                )),
                _ => self.text.push(c),
            }
        }
        self.end_text();
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        Some(c)
    }

    fn wildcard(&mut self, c: char) {
        match self.kind {
            Kind::Key => self.errors.push(format!("`{c}` is a wildcard and a key names one entry; use `pattern` to evict many, or another character")),
            Kind::Client => self.errors.push(format!("`{c}` is a wildcard and a key names one client; write `\"all\"` to count all clients together, or another character")),
            Kind::Tag => self.errors.push(format!("`{c}` is a wildcard and a tag has one name; write a list of tags, or another character")),
            Kind::Pattern => self.push(if c == '*' { Part::Any } else { Part::One }),
        }
    }

    fn push(&mut self, part: Part) {
        self.end_text();
        self.parts.push(part);
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.parts.push(Part::Text(mem::take(&mut self.text)));
        }
    }

    /// Parses a placeholder, or a plain character if it is doubled.
    fn opened(&mut self, open: char, close: char) {
        if let Some(rest) = self.rest.strip_prefix(open) {
            self.rest = rest;
            self.text.push(open);
            self.plain.push(close);
            return;
        }
        let (content, rest) = self.rest.split_at(content_length(self.rest, open, close));
        let Some(rest) = rest.strip_prefix(close) else {
            self.rest = rest;
            self.errors.push(format!(
                "`{open}{content}` is never closed; write `{open}{content}{close}`, or `{open}{open}` for a plain `{open}`"
            ));
            return;
        };
        self.rest = rest;
        match placeholder(content) {
            Some(placeholder) => self.push(Part::Value(placeholder)),
            None if content.is_empty() => self.errors.push(format!(
                "`{open}{close}` is empty; name a parameter, such as `{open}id{close}`, or write `{open}{open}` for a plain `{open}`"
            )),
            None => self.errors.push(format!(
                "`{open}{content}{close}` is not a placeholder; write `{open}name{close}`, `{open}name.field{close}` or `{open}name.method(){close}`"
            )),
        }
    }

    /// Parses a closing character that closes no placeholder. Unless it belongs to a doubled character it is a mistake,
    /// and a dangerous one: `event:id>` would be one key for all events.
    fn closed(&mut self, close: char) {
        if let Some(at) = self.plain.iter().rposition(|plain| *plain == close) {
            self.plain.truncate(at);
            self.text.push(close);
            return;
        }
        let open = if close == '>' { '<' } else { '{' };
        self.errors.push(format!("`{close}` closes nothing; a placeholder begins with `{open}`, such as `{open}id{close}`"));
    }
}

/// Returns where a placeholder ends: at a bracket, or at a `:` that is not half of a `::` between two names.
fn content_length(text: &str, open: char, close: char) -> usize {
    let mut begin = 0;
    while let Some(at) = text[begin..].find([close, open, ':']).map(|at| begin + at) {
        let begins_name = |c: char| c.is_alphabetic() || c == '_';
        match text[at..].strip_prefix("::") {
            Some(rest) if at > 0 && rest.starts_with(begins_name) => begin = at + 2,
            _ => return at,
        }
    }
    text.len()
}

fn placeholder(content: &str) -> Option<Placeholder> {
    let (root, steps) = content.split_at(content.find(['.', ':']).unwrap_or(content.len()));
    let valid = is_name(root) && are_steps(steps);
    valid.then(|| Placeholder {
        root: root.to_owned(),
        steps: steps.to_owned(),
        before: None,
    })
}

/// `::Out::name()`, then `.field.0.method()`
fn are_steps(steps: &str) -> bool {
    let (path, fields) = steps.split_at(steps.find('.').unwrap_or(steps.len()));
    let mut path = path.split("::").skip(1).peekable();
    while let Some(segment) = path.next() {
        let name = match path.peek() {
            None => segment.strip_suffix("()").unwrap_or(segment),
            Some(_) => segment,
        };
        if !is_name(name) {
            return false;
        }
    }
    fields.split('.').skip(1).all(|step| {
        let number = !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
        number || is_name(step.strip_suffix("()").unwrap_or(step))
    })
}

fn is_name(word: &str) -> bool {
    let word = word.strip_prefix("r#").unwrap_or(word);
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && word.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn reserved_root(parts: &[Part], errors: &mut Vec<String>) {
    if let Some(Part::Text(text)) = parts.first()
        && let Some((root, _)) = text.split_once(':')
        && RESERVED.contains(&root)
    {
        errors.push(format!(
            "`{root}:` is reserved for the framework's own records; begin with another word"
        ));
    }
}

/// Checks that two values cannot run together: the text after a value begins with a character that the value cannot
/// contain, because every value escapes it or because this value will.
fn separate(parts: &mut [Part], kind: Kind, errors: &mut Vec<String>) {
    let Some(last) = parts
        .iter()
        .rposition(|part| matches!(part, Part::Value(_)))
    else {
        return;
    };
    for at in 0..=last {
        let first = match parts.get(at + 1) {
            Some(Part::Text(text)) => text.chars().next(),
            Some(Part::Any) => Some('*'),
            Some(Part::One) => Some('?'),
            Some(Part::Value(_)) | None => None,
        };
        let next = parts[at + 1..].iter().find_map(|part| match part {
            Part::Value(next) => Some(next.written()),
            _ => None,
        });
        let Part::Value(value) = &mut parts[at] else {
            continue;
        };
        match (first, next) {
            (Some(c), _) if ESCAPED.contains(c) => {}
            // The last value, too: the pattern `<a>-*` must name the keys of `<a>-<b>` and of `<a>-x`.
            (Some(c), _) if c.is_ascii_punctuation() && c != '%' => value.before = Some(c),
            (_, Some(next)) => errors.push(format!(
                "put a `:` between `{}` and `{next}`, so that different arguments cannot make the same {}",
                value.written(),
                kind.noun()
            )),
            (_, None) => {}
        }
    }
}

impl Placeholder {
    /// Returns the placeholder as written, in angle brackets.
    pub(crate) fn written(&self) -> String {
        format!("<{}{}>", self.root, self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    fn value(root: &str, steps: &str) -> Part {
        value_before(root, steps, None)
    }

    fn value_before(root: &str, steps: &str, before: impl Into<Option<char>>) -> Part {
        Part::Value(Placeholder {
            root: root.to_owned(),
            steps: steps.to_owned(),
            before: before.into(),
        })
    }

    fn key(template: &str) -> Vec<Part> {
        let (parts, errors) = parse(template, Kind::Key);
        assert!(errors.is_empty(), "{template}: {errors:?}");
        parts
    }

    fn error(template: &str) -> String {
        parse(template, Kind::Key).1.join("\n")
    }

    #[test]
    fn angle_and_curly_brackets_are_equivalent() {
        assert_eq!(key("event:<id>"), [text("event:"), value("id", "")]);
        assert_eq!(key("event:{id}"), key("event:<id>"));
    }

    #[test]
    fn placeholders_accept_fields_and_methods() {
        assert_eq!(key("a:<x.y.0.z()>"), [text("a:"), value("x", ".y.0.z()")]);
        assert_eq!(
            key("a:<self.tenant>"),
            [text("a:"), value("self", ".tenant")]
        );
        assert_eq!(
            key("a:<r#type.r#fn>"),
            [text("a:"), value("r#type", ".r#fn")]
        );
    }

    #[test]
    fn placeholders_accept_items_of_types() {
        for steps in ["", "::NAME", "::name()", "::Out::NAME", "::name().len()"] {
            assert_eq!(
                key(&format!("a:<T{steps}>:b")),
                [text("a:"), value("T", steps), text(":b")]
            );
        }
        for content in [
            "T::",
            "T::a()::b",
            "T::1",
            "T::<u8>",
            "T::a::",
            "T:a",
            "::a",
        ] {
            assert!(!error(&format!("a:<{content}>")).is_empty(), "{content}");
        }
        assert!(error("a:<id::<page>").starts_with("`<id` is never closed"));
    }

    #[test]
    fn doubled_brackets_are_literal_and_can_be_closed() {
        assert_eq!(key("a<<b"), [text("a<b")]);
        assert_eq!(key("{{user}:<id>"), [text("{user}:"), value("id", "")]);
    }

    #[test]
    fn an_unmatched_closing_bracket_is_refused() {
        assert!(error("event:id>").starts_with("`>` closes nothing"));
        assert!(error("event:<id>>").starts_with("`>` closes nothing"));
        assert!(error("event:{{id>").starts_with("`>` closes nothing"));
    }

    #[test]
    fn an_unclosed_placeholder_ends_at_the_next_segment() {
        assert_eq!(
            error("a:<id:page"),
            "`<id` is never closed; write `<id>`, or `<<` for a plain `<`"
        );
        assert!(error("a:{id:<page>").starts_with("`{id` is never closed"));
    }

    #[test]
    fn a_placeholder_must_be_a_path_of_names() {
        for content in [
            "1", "x.", ".x", "x..y", "x y", "x-1", "x()", "x.y(1)", "x.()",
        ] {
            assert!(
                error(&format!("a:<{content}>")).contains("is not a placeholder"),
                "{content}"
            );
        }
    }

    #[test]
    fn wildcards_are_accepted_only_in_patterns() {
        assert!(error("event:*").contains("use `pattern`"));
        let (parts, errors) = parse("event:<id>:?*", Kind::Pattern);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(
            parts,
            [
                text("event:"),
                value("id", ""),
                text(":"),
                Part::One,
                Part::Any
            ]
        );
    }

    #[test]
    fn reserved_roots_are_refused() {
        for root in RESERVED {
            assert!(error(&format!("{root}:x")).contains("reserved"), "{root}");
            assert!(
                !parse(&format!("{root}:*"), Kind::Pattern).1.is_empty(),
                "{root}"
            );
        }
        key("sessionless:<id>");
        key("event:session:<id>");
    }

    #[test]
    fn a_tag_accepts_reserved_words_and_no_wildcards() {
        for template in ["session:<id>", "cache:tag", "<a>:<b>", "events"] {
            let (_, errors) = parse(template, Kind::Tag);
            assert!(errors.is_empty(), "{template}: {errors:?}");
        }
        for (template, advice) in [
            ("", "`\"events\"`"),
            ("events:*", "write a list of tags"),
            ("<a><b>", "the same tag"),
            ("a b", "a tag cannot contain white space"),
        ] {
            let errors = parse(template, Kind::Tag).1.join("\n");
            assert!(errors.contains(advice), "{template}: {errors}");
        }
    }

    #[test]
    fn a_client_key_accepts_reserved_words_and_must_be_valid() {
        for template in ["session:<id>", "cache:x", "<a>:<b>", "all"] {
            let (_, errors) = parse(template, Kind::Client);
            assert!(errors.is_empty(), "{template}: {errors:?}");
        }
        for (template, advice) in [
            ("", "`\"all\"`"),
            ("*", "`\"all\"`"),
            ("<a><b>", "put a `:`"),
            ("a b", "use `:`"),
        ] {
            let errors = parse(template, Kind::Client).1.join("\n");
            assert!(errors.contains(advice), "{template}: {errors}");
        }
    }

    #[test]
    fn a_value_escapes_the_next_separator() {
        assert_eq!(
            key("<a>-<b>"),
            [value_before("a", "", '-'), text("-"), value("b", "")]
        );
        assert_eq!(
            key("<a>:<b>-x"),
            [
                value("a", ""),
                text(":"),
                value_before("b", "", '-'),
                text("-x")
            ]
        );
        assert_eq!(
            parse("<a>-*", Kind::Pattern).0,
            [value_before("a", "", '-'), text("-"), Part::Any]
        );
        assert_eq!(key("<a>x"), [value("a", ""), text("x")]);
    }

    #[test]
    fn adjacent_values_without_a_separator_are_refused() {
        for between in ["", "x", "0", "é", "%"] {
            assert!(
                error(&format!("<a>{between}<b>")).starts_with("put a `:` between `<a>` and `<b>`"),
                "{between}"
            );
        }
    }

    #[test]
    fn all_mistakes_are_reported() {
        assert_eq!(parse("cache:<>:<1>:a b", Kind::Key).1.len(), 4);
    }
}
