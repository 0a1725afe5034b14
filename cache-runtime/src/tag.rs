//! Tags: names that group entries, so that one step evicts all entries that have a tag.
//!
//! A tag is one record in Redis, `<prefix>cache:tag:<tag>`. Its family is its text before the first `:`, or the whole text. A family
//! has a record as well, `<prefix>cache:tags:<family>`.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;
use crate::key::{Key, KeyWriter};

/// The name of a tag.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tag(Key);

/// The root of the names of tags.
const ROOT: &str = "cache:tag:";

/// The root of the names of families.
const FAMILIES: &str = "cache:tags:";

impl Tag {
    /// Returns the tag `text`. No character is escaped. A long name is shortened in the same way as in attributes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) if `text` is empty, or contains white space or a control character.
    pub(crate) fn parse(prefix: &str, text: &str) -> Result<Self, Error> {
        Key::checked_record(prefix, ROOT, "tag", text).map(Self)
    }

    pub(crate) fn render(prefix: &str, write: impl FnOnce(&mut KeyWriter<'_>)) -> Self {
        let mut name = Self::begin(prefix);
        write(&mut KeyWriter::new(&mut name));
        Self::end(name, prefix)
    }

    /// Returns the beginning of the name of a tag, to which a [`KeyWriter`] writes the rest.
    pub(crate) fn begin(prefix: &str) -> String {
        let mut name = Key::begin(prefix);
        name.push_str(ROOT);
        name
    }

    /// Returns the tag with this complete name.
    pub(crate) fn end(name: String, prefix: &str) -> Self {
        Self(Key::end_of_record(name, prefix))
    }

    /// Returns the tag with this text, as an entry names it.
    pub(crate) fn named(prefix: &str, text: &str) -> Self {
        let mut name = Self::begin(prefix);
        name.push_str(text);
        Self::end(name, prefix)
    }

    /// Keeps the buffer of its name for a key of this thread.
    pub(crate) fn recycle(self) {
        self.0.recycle();
    }

    /// Returns the key of its record.
    pub(crate) fn key(&self) -> &Key {
        &self.0
    }

    /// Returns its text, without the prefix.
    pub(crate) fn text(&self) -> &str {
        let name = self.0.as_str();
        let text = usize::from(self.0.prefix_len()) + ROOT.len();
        name.get(text..).unwrap_or_default()
    }

    /// Returns the text before the first `:`, or the whole text.
    pub(crate) fn family(&self) -> &str {
        self.text().split(':').next().unwrap_or_default()
    }

    /// Returns the key of the record of a family.
    pub(crate) fn marker(prefix: &str, family: &str) -> Key {
        Key::end_of_record([prefix, FAMILIES, family].concat(), prefix)
    }

    /// Returns the tag as logs show it: its name, or its hash if `mask` is true.
    pub(crate) fn shown(&self, mask: bool) -> impl fmt::Display + '_ {
        self.0.shown(mask)
    }
}

/// Returns the hash that identifies a family in this process.
pub(crate) fn family_hash(family: &str) -> u64 {
    xxh3_64(family.as_bytes())
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Collects the tags that the returned value of a function names.
#[derive(Debug)]
pub struct TagWriter {
    prefix: String,
    tags: Vec<Tag>,
}

impl TagWriter {
    /// Creates a writer for a cache with this prefix.
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            tags: Vec::new(),
        }
    }

    /// `tag = …`
    pub fn tag(&mut self, write: &mut dyn FnMut(&mut KeyWriter<'_>)) -> &mut Self {
        self.tags.push(Tag::render(&self.prefix, write));
        self
    }

    pub(crate) fn into_tags(self) -> Vec<Tag> {
        self.tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_record_with_escaped_values() {
        let tag = Tag::render("dev_", |tag| {
            tag.text("organizer:").value("a:b");
        });

        assert_eq!(tag.key().as_str(), "dev_cache:tag:organizer:a%3Ab");
        assert_eq!(tag.text(), "organizer:a%3Ab");
        assert_eq!(tag, Tag::parse("dev_", tag.text()).expect("a valid tag"));
    }

    #[test]
    fn a_family_is_the_text_before_the_first_colon() {
        let family = |text: &str| {
            let tag = Tag::parse("dev_", text).expect("a valid tag");
            tag.family().to_owned()
        };

        assert_eq!(family("organizer:7"), "organizer");
        assert_eq!(family("organizer:7:events"), "organizer");
        assert_eq!(family("events"), "events");
        assert_eq!(
            Tag::marker("dev_", "organizer").as_str(),
            "dev_cache:tags:organizer"
        );
    }

    #[test]
    fn a_text_that_cannot_be_a_tag_is_refused() {
        for (text, advice) in [("", "the tag is empty"), ("a b", "remove white space")] {
            let error = Tag::parse("dev_", text).expect_err(text).to_string();
            assert!(error.contains(advice), "{error}");
        }
    }

    #[test]
    fn a_long_tag_keeps_its_family() {
        let text = format!("organizer:{}", "x".repeat(2_000));
        let tag = Tag::parse("dev_", &text).expect("a valid tag");

        assert!(tag.key().as_str().len() < 1_100);
        assert_eq!(tag.family(), "organizer");
        assert_ne!(tag, Tag::parse("dev_", &format!("{text}y")).expect("valid"));
    }

    #[test]
    fn a_writer_collects_tags() {
        let mut writer = TagWriter::new("dev_");

        writer
            .tag(&mut |tag| {
                tag.text("organizer:").value(&7);
            })
            .tag(&mut |tag| {
                tag.text("place:").value("Bonn");
            });

        let tags = writer.into_tags();
        let texts: Vec<_> = tags.iter().map(Tag::text).collect();
        assert_eq!(texts, ["organizer:7", "place:Bonn"]);
    }
}
