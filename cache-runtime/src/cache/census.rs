//! How many entries each function has, and how large they are: from a sample of the keyspace.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::Cache;
use super::handle::HANDLE;
use super::inspect::{PAGE, STEPS_PER_COUNT};
use crate::entry;
use crate::error::Error;
use crate::key::{Key, Pattern};
use crate::store::Cursor;
use crate::store::guard::{On, Op};

/// How long a census may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Entries of each function whose size is read.
const MEASURED: u64 = 20;

/// The characters that a value never adds to a name, because they are escaped.
const ESCAPED: &str = ":*?[]{}<>\\";

/// What a sample of the keyspace contains.
#[derive(Debug, Serialize)]
pub(crate) struct Census {
    /// Whether all keys were looked at. Otherwise the numbers are of a part of them.
    pub(crate) is_complete: bool,
    pub(crate) functions: Vec<Population>,
}

/// The entries of one function.
#[derive(Debug, Serialize)]
pub(crate) struct Population {
    /// The template of the function, or [`None`] for entries that no function stores.
    pub(crate) cache: Option<&'static str>,
    pub(crate) keys: u64,
    /// The mean size of those that were measured.
    pub(crate) mean_bytes: Option<u64>,
    /// The mean size times the number.
    pub(crate) estimated_bytes: Option<u64>,
}

#[derive(Default)]
struct Tally {
    keys: u64,
    measured: u64,
    bytes: u64,
}

impl Cache {
    /// Counts the entries of each function in about 100,000 keys, for at most 2 s.
    ///
    /// # Errors
    ///
    /// If Redis is unavailable.
    pub(crate) async fn census(&self) -> Result<Census, Error> {
        let catalog = self.catalog();
        let stores = catalog.functions.iter();
        let mut templates: Vec<_> = stores
            .filter(|function| function.stores.is_some())
            .map(|function| function.template)
            .collect();
        templates.sort_unstable();
        templates.dedup();
        let shapes: Vec<_> = templates.iter().map(|text| (*text, parts(text))).collect();
        let everything = [Pattern::all(self.prefix())];
        let mut tallies: BTreeMap<Option<&str>, Tally> = BTreeMap::new();
        let began = Instant::now();
        let mut next = Some(Cursor::default());
        for _ in 0..STEPS_PER_COUNT {
            let Some(cursor) = next else { break };
            if began.elapsed() >= PATIENCE {
                break;
            }
            let scanned = self.scan_step(&everything, cursor).await?;
            for keys in scanned.names.chunks(PAGE) {
                let heads = self.heads(keys).await?;
                for (key, head) in keys.iter().zip(heads) {
                    let name = key.as_str().strip_prefix(self.prefix());
                    let (Some(name), Some(head)) = (name, head) else {
                        continue;
                    };
                    if !entry::is_value(&head, key) {
                        continue;
                    }
                    let of = shapes.iter().find(|(_, parts)| fits(parts, name));
                    let tally = tallies.entry(of.map(|(text, _)| *text)).or_default();
                    tally.keys += 1;
                    if tally.measured < MEASURED
                        && let Some(bytes) = self.size(key).await?
                    {
                        tally.measured += 1;
                        tally.bytes += bytes;
                    }
                }
            }
            next = scanned.next;
        }
        let functions = tallies.into_iter().map(|(cache, tally)| {
            let mean = tally.bytes.checked_div(tally.measured);
            Population {
                cache,
                keys: tally.keys,
                mean_bytes: mean,
                estimated_bytes: mean.map(|mean| mean.saturating_mul(tally.keys)),
            }
        });
        Ok(Census {
            is_complete: next.is_none(),
            functions: functions.collect(),
        })
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, Error> {
        let metrics = self.inner.metrics.site(&HANDLE.metrics);
        let op = Op::new("keys", &HANDLE, &metrics, On::Key(key));
        let measured = self.inner.run(op, |store| store.measure(key)).await?;
        Ok(measured.map(|(bytes, _)| bytes as u64))
    }
}

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A placeholder.
    Value,
}

/// Returns the pieces of a template: its text, in which a doubled `<` or `{` is one character, and its placeholders.
fn parts(template: &str) -> Vec<Part> {
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut rest = template.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '<' | '{' if rest.next_if_eq(&c).is_none() => {
                let close = if c == '<' { '>' } else { '}' };
                rest.by_ref().find(|c| *c == close);
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Value);
            }
            c => text.push(c),
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

/// Returns whether a template with these pieces can have this name.
fn fits(parts: &[Part], name: &str) -> bool {
    match parts {
        [] => name.is_empty(),
        [Part::Text(text), rest @ ..] => name
            .strip_prefix(text.as_str())
            .is_some_and(|name| fits(rest, name)),
        [Part::Value, rest @ ..] => {
            let end = name.find(|c| ESCAPED.contains(c)).unwrap_or(name.len());
            // A value is usually followed by a character that it cannot contain, so the first attempt succeeds.
            let ends = name[..end].char_indices().map(|(at, _)| at);
            let mut ends = ends.chain([end]).collect::<Vec<_>>().into_iter().rev();
            ends.any(|end| fits(rest, &name[end..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_the_template_that_it_is_written_from() {
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
            assert_eq!(fits(&parts(template), name), is_of, "{template} {name}");
        }
    }
}
