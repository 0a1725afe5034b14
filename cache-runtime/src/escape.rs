//! Text of strangers, for logs and errors.
//!
//! A key, a header or the words of another program may contain characters that end a line, show nothing, or turn the reading direction,
//! so that a line of the log reads as something that was never logged. They are written as `\u{202e}`, and everything else as it is.

use std::fmt::{self, Write as _};

/// Shows a text with such characters escaped. Line breaks stay: errors of several lines have them.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, character)) = rest.char_indices().find(|(_, found)| deceives(*found)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", character.escape_unicode())?;
            rest = &rest[at + character.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// The beginning of a wrong text on one line, for the error that refuses it. Quotes stay: a format that needs them escaped does it.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for character in text.chars().take(most) {
        match character {
            '\n' | '\r' | '\t' => shown.extend(character.escape_debug()),
            found if deceives(found) => shown.extend(found.escape_unicode()),
            seen => shown.push(seen),
        }
    }
    shown
}

/// Whether a character is not seen as what it is: control characters, marks of direction, and those without width. The standard library
/// escapes these for debugging; the last ones are letters by name only.
fn deceives(character: char) -> bool {
    match character {
        ' '..='~' | '\n' => false,
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => true,
        other => other.escape_debug().len() > 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_invisible_characters_are_escaped() {
        for (text, shown) in [
            ("event:42", "event:42"),
            ("it's \"é\" \\ 漢字 🎟", "it's \"é\" \\ 漢字 🎟"),
            ("one\ntwo", "one\ntwo"),
            ("user\u{202e}nimda", "user\\u{202e}nimda"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("\r\u{1b}[2K\0", "\\u{d}\\u{1b}[2K\\u{0}"),
            ("\u{85}\u{2028}\u{2029}", "\\u{85}\\u{2028}\\u{2029}"),
            ("\u{3164}\u{ad}\u{e0041}", "\\u{3164}\\u{ad}\\u{e0041}"),
            ("", ""),
        ] {
            assert_eq!(Escaped(text).to_string(), shown);
        }
    }

    #[test]
    fn an_excerpt_is_one_line_with_its_quotes() {
        let text = "it's \"é\" \\\n\t\u{3164}x";

        assert_eq!(excerpt(text, 12), "it's \"é\" \\\\n\\t");
        assert_eq!(excerpt(text, 50), "it's \"é\" \\\\n\\t\\u{3164}x");
    }

    #[test]
    fn all_marks_of_direction_are_escaped() {
        let marks = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
        let widthless = "\u{200b}\u{200c}\u{200d}\u{2060}\u{2061}\u{2062}\u{2063}\u{2064}\u{feff}\u{180e}\u{34f}";

        for text in [marks, widthless] {
            assert!(Escaped(text).to_string().is_ascii(), "{text:?}");
            assert!(excerpt(text, 50).is_ascii(), "{text:?}");
        }
    }
}
