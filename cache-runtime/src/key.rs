//! Names of entries in Redis, made from a template and its arguments.
//!
//! A name is the prefix, followed by the text of the template, with each value escaped in its place. In a value, `%` begins a
//! token, and a value never contains a bare `%`. Two hexadecimal digits stand for a byte. One small letter stands for what a text
//! cannot express:
//!
//! - `%n`: a `None`
//! - `%s`: the `Some` around an `Option`
//! - `%c`: the seam of two values
//! - `%l`: a list; its length follows, then a seam and a value for each element
//! - `%h`: a hash
//! - `%r`: a word that would read as a reserved root
//! - `%e`: the end of a value before a `%` of the template
//! - `%x`: a value that could not be printed
//!
//! Read from the left, a name has only one meaning, so different arguments never share a name.

mod part;
mod pattern;
mod time;
mod type_name;

use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, ErrorKind};
use crate::escape::{Escaped, excerpt};
use crate::spare::Spare;

pub use part::KeyPart;
pub(crate) use pattern::Pattern;
pub use pattern::PatternWriter;
pub use type_name::TypeName;

/// The roots of the cache's own records, which are not entries.
const RESERVED: [&str; 4] = ["session:", "sessions:", "ratelimit:", "cache:"];

/// A value with a longer text is hashed: people do not read such texts, and Redis compares names byte by byte.
const VALUE_CAP: usize = 128;

/// The longest name. One key may contain many values of `VALUE_CAP`.
const NAME_CAP: usize = 1024;

thread_local! {
    /// The names of keys that were hits.
    static SPARE: Spare<String> = const { Spare::new() };
}

/// The name of one entry in Redis, including the prefix.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    hash: u64,
    /// The length of the prefix. Entries contain it to prove to which cache they belong, because one prefix may begin with another.
    prefix: u16,
    name: String,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Key {
    /// Returns the key with the name `text`. No character is escaped. A long name is shortened as that of an attribute is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`] if `text` is empty, contains white space or a control character, or begins with one of the reserved
    /// roots `session:`, `sessions:`, `ratelimit:` and `cache:`.
    pub(crate) fn parse(prefix: &str, text: &str) -> Result<Self, Error> {
        check_text("key", text)?;
        if let Some(root) = reserved_root(text) {
            return Err(reserved("key", text, root));
        }
        Ok(Self::end([prefix, text].concat(), prefix))
    }

    pub(crate) fn render(prefix: &str, write: impl FnOnce(&mut KeyWriter<'_>)) -> Self {
        let mut name = Self::begin(prefix);
        write(&mut KeyWriter::new(&mut name));
        Self::end(name, prefix)
    }

    /// Returns the beginning of the name of a key, to which a [`KeyWriter`] writes the rest.
    pub(crate) fn begin(prefix: &str) -> String {
        let mut name = Spare::take(&SPARE).unwrap_or_default();
        name.clear();
        name.reserve(prefix.len() + 40);
        name.push_str(prefix);
        name
    }

    /// Keeps the buffer of its name for another key of this thread.
    #[inline]
    pub(crate) fn recycle(self) {
        recycle(self.name);
    }

    /// Returns the key with this name, to which nothing more is written.
    pub(crate) fn end(mut name: String, prefix: &str) -> Self {
        complete(&mut name, prefix);
        Self::named(name, prefix.len())
    }

    /// Returns the key of one of the cache's own records. No entry has this key, and no operation on entries reaches it.
    pub(crate) fn record(prefix: &str, kind: &str, name: &str) -> Self {
        let mut key = format!("{prefix}cache:{kind}:");
        KeyWriter::new(&mut key).value(name);
        Self::named(key, prefix.len())
    }

    /// Returns the key of a record with a text that a person chose: `root` follows the prefix. `what` names it in errors.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`] if `text` is empty, or contains white space or a control character.
    pub(crate) fn checked_record(
        prefix: &str,
        root: &str,
        what: &str,
        text: &str,
    ) -> Result<Self, Error> {
        check_text(what, text)?;
        Ok(Self::end_of_record([prefix, root, text].concat(), prefix))
    }

    /// Returns the key of a record with this name, which has the prefix, and to which nothing more is written.
    pub(crate) fn end_of_record(mut name: String, prefix: &str) -> Self {
        complete_record(&mut name, prefix);
        Self::named(name, prefix.len())
    }

    /// Returns the key of one of the cache's own records from its whole name.
    pub(crate) fn of_record(name: String) -> Self {
        Self::named(name, 0)
    }

    fn named(name: String, prefix: usize) -> Self {
        Self {
            hash: xxh3_64(name.as_bytes()),
            prefix: u16::try_from(prefix).unwrap_or(u16::MAX),
            name,
        }
    }

    /// Returns the whole name, including the prefix.
    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns the length of the prefix in bytes.
    pub(crate) fn prefix_len(&self) -> u16 {
        self.prefix
    }

    /// Returns the hash of the name. It is the same on every machine. Entries contain it to prove to which key they belong.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns the key as logs show it: the name, or its hash if `mask` is true. The hash still groups the lines about one key.
    pub(crate) fn shown(&self, mask: bool) -> impl fmt::Display + '_ {
        Shown { key: self, mask }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

struct Shown<'a> {
    key: &'a Key,
    mask: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { hash, name, .. } = self.key;
        if self.mask {
            write!(f, "#{hash:016x}")
        } else {
            write!(f, "{}", Escaped(name))
        }
    }
}

/// Turns what a [`KeyWriter`] has written into the name of an entry. A name that is complete stays as it is.
#[inline]
pub(crate) fn complete(name: &mut String, prefix: &str) {
    keep_off_roots(name, prefix.len());
    complete_record(name, prefix);
}

/// The same for the name of one of the cache's own records.
#[inline]
pub(crate) fn complete_record(name: &mut String, prefix: &str) {
    if name.len() > NAME_CAP {
        shorten(name, prefix.len());
    }
}

/// Keeps the buffer of a name for a key of this thread.
pub(crate) fn recycle(name: String) {
    Spare::keep(&SPARE, name);
}

/// Returns whether `name` is one of the cache's own records under `prefix`, which no operation on entries may touch.
pub(crate) fn is_reserved(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|text| reserved_root(text).is_some())
}

/// Returns the root of the cache's own records that `text`, without a prefix, begins with.
#[inline]
pub(crate) fn reserved_root(text: &str) -> Option<&'static str> {
    RESERVED.into_iter().find(|root| text.starts_with(root))
}

fn reserved(what: &str, text: &str, root: &str) -> Error {
    let text = excerpt(text, usize::MAX);
    Error::new(
        ErrorKind::Input,
        format!(
            "{what} `{text}` begins with `{root}`, which is reserved for the cache's own records; use another first word"
        ),
    )
}

fn check_text(what: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::new(
            ErrorKind::Input,
            format!("the {what} is empty; use at least one character"),
        ));
    }
    if let Some(found) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        let text = excerpt(text, usize::MAX);
        return Err(Error::new(
            ErrorKind::Input,
            format!(
                "{what} `{text}` contains {found:?}; remove white space and control characters, or percent-encode them"
            ),
        ));
    }
    Ok(())
}

/// Marks a name that begins with a reserved root. A template that begins with a placeholder can produce such a name, which must be
/// an ordinary entry.
#[inline]
fn keep_off_roots(name: &mut String, prefix: usize) {
    if let Some(root) = reserved_root(&name[prefix..]) {
        name.insert_str(prefix + root.len() - 1, "%r");
    }
}

/// Shortens a name: keeps its beginning, for people and patterns, and adds a hash of the whole name.
fn shorten(name: &mut String, prefix: usize) {
    const TOKEN: usize = 2 + 32;
    // No text contains this byte, so no text can produce the same token.
    let hash = Sha256::new()
        .chain_update([0xff])
        .chain_update(name.as_bytes());
    let mut keep = (NAME_CAP - TOKEN).max(prefix);
    while !name.is_char_boundary(keep) {
        keep -= 1;
    }
    name.truncate(keep);
    push_hash(name, hash);
}

fn push_hash(name: &mut String, hash: Sha256) {
    name.push_str("%h");
    for byte in &hash.finalize()[..16] {
        push_hex(name, *byte, b"0123456789abcdef");
    }
}

fn push_hex(name: &mut String, byte: u8, digits: &[u8; 16]) {
    name.push(digits[usize::from(byte >> 4)].into());
    name.push(digits[usize::from(byte & 15)].into());
}

/// `key!`: the name of a key without the prefix, to which a method of `Cache` adds it. It is not shortened, because the hash in a
/// shortened name covers the prefix.
pub fn key_text(write: &mut dyn FnMut(&mut KeyWriter<'_>)) -> String {
    let mut text = String::new();
    write(&mut KeyWriter::new(&mut text));
    keep_off_roots(&mut text, 0);
    text
}

/// `tag!`: the text of a tag. Tags may begin with any word.
pub fn tag_text(write: &mut dyn FnMut(&mut KeyWriter<'_>)) -> String {
    let mut text = String::new();
    write(&mut KeyWriter::new(&mut text));
    text
}

/// Collects the parts of a key.
///
/// ```
/// use cache_runtime::{KeyPart, KeyWriter, key};
///
/// struct Seat {
///     row: char,
///     number: u32,
/// }
///
/// impl KeyPart for Seat {
///     fn write_key(&self, key: &mut KeyWriter<'_>) {
///         key.value(&self.row).value(&self.number);
///     }
/// }
///
/// let seat = Seat { row: 'C', number: 12 };
/// println!("{}", key!("seat:<seat>"));
/// assert_ne!(key!("seat:<seat>"), key!("seat:<seat>", seat = Seat { row: 'C', number: 1 }));
/// ```
#[derive(Debug)]
pub struct KeyWriter<'a> {
    name: &'a mut String,
    /// A character that is also escaped in the value that is being written.
    separator: Option<char>,
    /// Whether a value is being written. Everything written then is part of it.
    inside: bool,
    /// Whether the last thing written was a value. A further value then needs a seam.
    joined: bool,
}

impl<'a> KeyWriter<'a> {
    pub(crate) fn new(name: &'a mut String) -> Self {
        Self {
            name,
            separator: None,
            inside: false,
            joined: false,
        }
    }

    /// Writes text of the template without escaping it. Inside a [`KeyPart`] the text is part of the value and is escaped.
    pub fn text(&mut self, text: &str) -> &mut Self {
        if self.inside {
            self.escaped(text);
        } else {
            self.name.push_str(text);
            self.joined = false;
        }
        self
    }

    /// Writes a value, escaped.
    pub fn value<T: KeyPart + ?Sized>(&mut self, value: &T) -> &mut Self {
        self.seam();
        let inside = std::mem::replace(&mut self.inside, true);
        self.joined = false;
        value.write_key(self);
        self.inside = inside;
        self.joined = true;
        self
    }

    /// Writes a value that is followed by `separator` instead of `:`. That character is also escaped in the value.
    pub fn value_before<T: KeyPart + ?Sized>(&mut self, value: &T, separator: char) -> &mut Self {
        if self.inside {
            return self.value(value);
        }
        self.separator = Some(separator);
        self.value(value);
        self.separator = None;
        if separator == '%' {
            self.name.push_str("%e");
        }
        self
    }

    /// Writes anything printable, escaped. Use it in the [`KeyPart`] of your own type.
    ///
    /// Different values must print different texts. A type with several fields can call this, or [`value`](Self::value), once for
    /// each field.
    pub fn display(&mut self, value: &dyn fmt::Display) {
        self.seam();
        let mut printed = Printed {
            start: self.name.len(),
            name: self.name,
            long: None,
        };
        let outcome = write!(printed, "{value}");
        let (start, long) = (printed.start, printed.long);
        if outcome.is_err() {
            // A cut text could equal another value's text. A unique name is never found again.
            self.name.truncate(start);
            let nonce = getrandom::u64().unwrap_or_default();
            let _ = write!(self.name, "%x{nonce:016x}");
        } else if let Some(hash) = long {
            push_hash(self.name, hash);
        } else if !self.name[start..].bytes().all(|byte| self.is_plain(byte)) {
            let text = self.name.split_off(start);
            self.push_capped(&text);
        }
    }

    /// Writes a hash of what `write` writes, as one value. It keeps a type with many fields short.
    ///
    /// What `write` writes must differ for different values, as in [`KeyPart::write_key`].
    pub fn hashed(&mut self, write: impl FnOnce(&mut KeyWriter<'_>)) {
        self.seam();
        let mut text = String::new();
        let mut key = KeyWriter::new(&mut text);
        key.inside = true;
        write(&mut key);
        // No text contains this byte, so no other value hashes to the same token.
        let hash = Sha256::new().chain_update([0xfe]).chain_update(text);
        push_hash(self.name, hash);
    }

    /// Writes a text, escaped.
    fn escaped(&mut self, text: &str) {
        self.seam();
        if text.len() > VALUE_CAP {
            push_hash(self.name, Sha256::new().chain_update(text));
        } else if text.bytes().all(|byte| self.is_plain(byte)) {
            self.name.push_str(text);
        } else {
            self.push_capped(text);
        }
    }

    /// Writes a text that may be too long only after it is escaped. A few such texts would fill a name, and a pattern does not
    /// match anything after the place where a name is cut.
    fn push_capped(&mut self, text: &str) {
        let start = self.name.len();
        self.push_escaped(text);
        if self.name.len() - start > VALUE_CAP {
            self.name.truncate(start);
            push_hash(self.name, Sha256::new().chain_update(text));
        }
    }

    /// Writes an `Option`. Every depth of nesting has its own text.
    fn option<T: KeyPart>(&mut self, value: Option<&T>) {
        self.seam();
        let start = self.name.len();
        match value {
            None => self.name.push_str("%n"),
            Some(value) => {
                self.joined = false;
                value.write_key(self);
                if self.name[start..].starts_with("%n") || self.name[start..].starts_with("%s") {
                    self.name.insert_str(start, "%s");
                }
            }
        }
        self.joined = true;
    }

    /// Writes a list. A long list is hashed as a long text is.
    fn list<T: KeyPart>(&mut self, values: &[T]) {
        self.seam();
        let start = self.name.len();
        self.elements(values);
        if self.name.len() - start > VALUE_CAP {
            self.name.truncate(start);
            self.joined = false;
            self.hashed(|key| key.elements(values));
        }
    }

    /// Writes a length, then each value after a seam. The length shows where the list ends, also if more values follow it.
    fn elements<T: KeyPart>(&mut self, values: &[T]) {
        let _ = write!(self.name, "%l{}", values.len());
        self.joined = true;
        for value in values {
            self.value(value);
        }
    }

    /// Writes digits and a sign. They need escaping only for an unusual separator.
    #[inline]
    fn number(&mut self, digits: &str) {
        if self
            .separator
            .is_some_and(|separator| separator == '-' || separator.is_ascii_digit())
        {
            self.escaped(digits);
        } else {
            self.seam();
            self.name.push_str(digits);
        }
    }

    #[inline]
    fn seam(&mut self) {
        if std::mem::replace(&mut self.joined, true) {
            self.name.push_str("%c");
        }
    }

    /// Returns whether a byte can be copied without looking at its neighbours.
    fn is_plain(&self, byte: u8) -> bool {
        byte.is_ascii_graphic()
            && !matches!(
                byte,
                b':' | b'*' | b'?' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' | b'%' | b'\\'
            )
            && self.separator != Some(byte.into())
    }

    fn push_escaped(&mut self, text: &str) {
        for c in text.chars() {
            let keep = match u8::try_from(c) {
                Ok(byte) if byte.is_ascii() => self.is_plain(byte),
                _ => !c.is_whitespace() && !c.is_control() && self.separator != Some(c),
            };
            if keep {
                self.name.push(c);
                continue;
            }
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                self.name.push('%');
                push_hex(self.name, byte, b"0123456789ABCDEF");
            }
        }
    }
}

/// Writes printed text directly into the name, until it is so long that only its hash is used.
struct Printed<'a> {
    name: &'a mut String,
    start: usize,
    long: Option<Sha256>,
}

impl fmt::Write for Printed<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(hash) = &mut self.long {
            hash.update(text);
        } else if self.name.len() - self.start + text.len() > VALUE_CAP {
            self.long = Some(
                Sha256::new()
                    .chain_update(&self.name[self.start..])
                    .chain_update(text),
            );
            self.name.truncate(self.start);
        } else {
            self.name.push_str(text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
