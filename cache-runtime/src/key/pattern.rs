//! Sets of names, for evictions by pattern.

use std::borrow::Cow;
use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use super::{
    Key, KeyPart, KeyWriter, check_text, is_reserved, keep_off_roots, reserved, reserved_root,
};
use crate::error::Error;
use crate::escape::Escaped;

/// The keys that an operation applies to. `*` matches any run of characters, `?` matches one character, and everything else
/// is literal.
///
/// A pattern never matches a key outside its prefix, or a record of the cache itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pattern {
    prefix: usize,
    /// The prefix, and the text before the first wildcard.
    head: String,
    /// From the first wildcard on.
    tail: Vec<Token>,
    glob: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Token {
    Literal(char),
    One,
    Any,
}

impl Pattern {
    /// Creates the pattern `text`, in which `*` and `?` are wildcards.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) for a text that is empty, contains white space or a control character,
    /// or can match nothing but the cache's own records.
    pub(crate) fn parse(prefix: &str, text: &str) -> Result<Self, Error> {
        check_text("pattern", text)?;
        let head = text.split(['*', '?']).next().unwrap_or_default();
        if let Some(root) = reserved_root(head) {
            return Err(reserved("pattern", text, root));
        }
        let mut writer = PatternWriter::new(prefix);
        for c in text.chars() {
            match c {
                '*' => writer.any(),
                '?' => writer.one(),
                c => writer.literal(c),
            };
        }
        Ok(writer.finish())
    }

    /// Creates a pattern for every key under `prefix`.
    pub(crate) fn all(prefix: &str) -> Self {
        Self::render(prefix, |pattern| {
            pattern.any();
        })
    }

    pub(crate) fn render(prefix: &str, write: impl FnOnce(&mut PatternWriter<'_>)) -> Self {
        let mut writer = PatternWriter::new(prefix);
        write(&mut writer);
        writer.finish()
    }

    /// Returns whether the pattern matches `name`, which includes the prefix. Takes at most the length of the name times
    /// that of the pattern.
    pub(crate) fn matches(&self, name: &str) -> bool {
        name.strip_prefix(self.head.as_str())
            .is_some_and(|rest| tail_matches(&self.tail, rest))
            && !is_reserved(&self.head[..self.prefix], name)
    }

    /// Returns a pattern for Redis that matches at least what any of `patterns` [matches](Self::matches). It may match
    /// more: Redis's `?` is a byte and ours is a character, and Redis does not know our own records. Filter its results
    /// again.
    pub(crate) fn common_glob(patterns: &[Self]) -> Cow<'_, str> {
        let Some((first, rest)) = patterns.split_first() else {
            return Cow::Borrowed("");
        };
        if rest.is_empty() {
            return Cow::Borrowed(&first.glob);
        }
        let is_common = |(at, c): &(usize, char)| {
            rest.iter()
                .all(|pattern| pattern.head[*at..].starts_with(*c))
        };
        let mut glob = String::new();
        // While all heads are equal, the position of a character in one head is its position in the others.
        for (_, c) in first.head.char_indices().take_while(is_common) {
            push_literal(&mut glob, c);
        }
        glob.push('*');
        Cow::Owned(glob)
    }

    /// Returns the key of a matching name.
    pub(crate) fn key(&self, name: String) -> Key {
        Key::named(name, self.prefix)
    }

    /// Returns the pattern as logs show it: its text, or its hash if `mask` is true.
    pub(crate) fn shown(&self, mask: bool) -> impl fmt::Display + '_ {
        Shown {
            pattern: self,
            mask,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        f.write_str(&self.head)?;
        self.tail.iter().try_for_each(|token| match token {
            Token::Literal(c) => f.write_char(*c),
            Token::One => f.write_char('?'),
            Token::Any => f.write_char('*'),
        })
    }
}

struct Shown<'a> {
    pattern: &'a Pattern,
    mask: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mask {
            true => write!(f, "#{:016x}", xxh3_64(self.pattern.glob.as_bytes())),
            false => write!(f, "{}", Escaped(self.pattern)),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

/// If the last `*` matched too little, it takes one more character. Earlier ones never have to, because the text between
/// two of them is matched at the first place where it fits.
fn tail_matches(mut tokens: &[Token], mut text: &str) -> bool {
    let mut retry: Option<(&[Token], &str)> = None;
    loop {
        let mut rest = text.chars();
        match (tokens.split_first(), rest.next()) {
            (None, None) => return true,
            (Some((Token::Any, after)), _) => {
                tokens = after;
                retry = Some((after, text));
                continue;
            }
            (Some((Token::One, after)), Some(_)) => {
                tokens = after;
                text = rest.as_str();
                continue;
            }
            (Some((Token::Literal(wanted), after)), Some(found)) if *wanted == found => {
                tokens = after;
                text = rest.as_str();
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = &mut retry else {
            return false;
        };
        let mut longer = from.chars();
        if longer.next().is_none() {
            return false;
        }
        *from = longer.as_str();
        (tokens, text) = (after, from);
    }
}

/// Collects the parts of a pattern.
#[derive(Debug)]
pub struct PatternWriter<'a> {
    prefix: &'a str,
    head: String,
    tail: Vec<Token>,
    joined: bool,
}

impl<'a> PatternWriter<'a> {
    fn new(prefix: &'a str) -> Self {
        let mut head = String::with_capacity(prefix.len() + 40);
        head.push_str(prefix);
        Self {
            prefix,
            head,
            tail: Vec::new(),
            joined: false,
        }
    }

    /// Writes literal text of the template.
    pub fn text(&mut self, text: &str) -> &mut Self {
        text.chars().for_each(|c| {
            self.literal(c);
        });
        self
    }

    /// Writes a value, escaped as in a key. None of its characters is a wildcard.
    pub fn value<T: KeyPart + ?Sized>(&mut self, value: &T) -> &mut Self {
        self.part(|key| {
            key.value(value);
        })
    }

    /// Writes a value that is followed by `separator` instead of `:`.
    pub fn value_before<T: KeyPart + ?Sized>(&mut self, value: &T, separator: char) -> &mut Self {
        self.part(|key| {
            key.value_before(value, separator);
        })
    }

    /// `*`: any run of characters.
    pub fn any(&mut self) -> &mut Self {
        self.wildcard(Token::Any)
    }

    /// `?`: one character.
    pub fn one(&mut self) -> &mut Self {
        self.wildcard(Token::One)
    }

    fn wildcard(&mut self, token: Token) -> &mut Self {
        self.joined = false;
        // Normalizes the spelling: a run of wildcards has at most one `*`, after its `?`s.
        let any_before = self.tail.last() == Some(&Token::Any);
        match token {
            Token::Any if any_before => {}
            Token::One if any_before => self.tail.insert(self.tail.len() - 1, token),
            _ => self.tail.push(token),
        }
        self
    }

    fn literal(&mut self, c: char) -> &mut Self {
        self.joined = false;
        if self.tail.is_empty() {
            self.head.push(c);
        } else {
            self.tail.push(Token::Literal(c));
        }
        self
    }

    /// Lets a key writer write, and appends its output.
    fn part(&mut self, write: impl FnOnce(&mut KeyWriter<'_>)) -> &mut Self {
        let mut text = String::new();
        let mut key = KeyWriter::new(&mut text);
        key.joined = self.joined;
        write(&mut key);
        self.text(&text);
        self.joined = true;
        self
    }

    fn finish(self) -> Pattern {
        let Self {
            prefix,
            mut head,
            tail,
            joined: _,
        } = self;
        keep_off_roots(&mut head, prefix.len());
        let mut glob = String::with_capacity(head.len() + tail.len() + 8);
        head.chars().for_each(|c| push_literal(&mut glob, c));
        for (at, token) in tail.iter().enumerate() {
            match token {
                Token::Literal(c) => push_literal(&mut glob, *c),
                Token::Any => glob.push('*'),
                // A character may be several bytes: the rest of the bytes after the last `?` of a run.
                Token::One if matches!(tail.get(at + 1), Some(Token::One | Token::Any)) => {
                    glob.push('?');
                }
                Token::One => glob.push_str("?*"),
            }
        }
        Pattern {
            prefix: prefix.len(),
            head,
            tail,
            glob,
        }
    }
}

fn push_literal(glob: &mut String, c: char) {
    if matches!(c, '[' | ']' | '\\' | '*' | '?') {
        glob.push('\\');
    }
    glob.push(c);
}
