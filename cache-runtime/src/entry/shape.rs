//! The shape of a type as serde sees it, so that a deploy that changes a struct finds misses, never garbage.
//!
//! The type is asked to deserialize itself from a [`Probe`], which notes every question: names of structs, fields and
//! variants, and kinds of leaves. What the questions cannot say is learned from the errors that wrong answers earn, and the
//! type is asked again: texts that a leaf does not take, the names of fields behind `flatten`, the variants behind a tag.
//! One pass sees one variant of an enum, so there are as many passes as there are variants. The fingerprint is the hash of
//! the whole conversation: it depends on the type alone, not on its module, the process or the build.
//!
//! Not seen are what is behind `untagged`, optional fields of a struct that flattens, and what follows a leaf that takes no
//! answer; there the type's own name is mixed in, and `version` is the way to say that something changed.

mod access;
mod probe;

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::{self, DeserializeOwned, Expected, Unexpected};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use probe::Probe;

/// Enough for some hundred variants and as many odd leaves.
const MOST_PASSES: usize = 1_000;

/// Questions in all passes together: some tens of milliseconds.
const MOST_QUESTIONS: usize = 200_000;

/// Questions in one pass, so that one bushy recursion leaves something for the other variants.
const MOST_IN_A_PASS: usize = 5_000;

/// The fingerprint of `T`, with `version` mixed in.
pub(crate) fn of<T: DeserializeOwned>(version: u64) -> u64 {
    let mut trace = Trace::default();
    let mut hash = version;
    let mut complete = true;
    for _ in 0..MOST_PASSES {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            T::deserialize(Probe::new(&mut trace)).err()
        }));
        let failure = outcome.unwrap_or(Some(Failure::Other));
        let next = match failure {
            Some(failure) => {
                trace.learn(&failure) || {
                    complete = false;
                    trace.explore()
                }
            }
            None => trace.explore(),
        };
        hash = xxh3_64_with_seed(trace.notes.as_bytes(), hash);
        if !next || trace.asked > MOST_QUESTIONS {
            break;
        }
        trace.restart();
    }
    if complete {
        hash
    } else {
        xxh3_64_with_seed(own_name(type_name::<T>()).as_bytes(), hash)
    }
}

/// A type's name without the modules, its generics' too.
fn own_name(name: &str) -> String {
    let mut own = String::with_capacity(name.len());
    let mut segment = 0;
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("::") {
            own.truncate(segment);
            rest = after;
            continue;
        }
        own.push(c);
        if !c.is_alphanumeric() && c != '_' {
            segment = own.len();
        }
        rest = &rest[c.len_utf8()..];
    }
    own
}

/// Where in the type a question is asked: which field, entry, element or variant at each level.
type Path = Vec<usize>;

/// The conversation so far.
#[derive(Debug, Default)]
struct Trace {
    /// What was asked in this pass.
    notes: String,
    asked: usize,
    asked_before: usize,
    path: Path,
    /// Names of the structs and enums around.
    around: Vec<&'static str>,
    places: BTreeMap<Path, Place>,
    /// The places of this pass at which there was something to choose or to learn, in order.
    visits: Vec<Visit>,
    /// Fields that a failure went through, from the inside out.
    failed_fields: Vec<(Path, usize)>,
    /// The leaf that refused its answer.
    failed_leaf: Option<usize>,
    /// The last field whose name was given.
    last_field: Option<(Path, usize)>,
    /// The key that a map was given last.
    last_key: Option<(Path, &'static str)>,
    /// A variant of an enum that does not contain itself.
    simplest: BTreeMap<&'static str, usize>,
    learned: bool,
}

/// What is known about a place in the type.
#[derive(Debug, Default)]
struct Place {
    /// Which of the possible answers to give.
    taken: usize,
    /// Keys that a map must have, or the variants that a tag can name.
    names: Vec<&'static str>,
    /// Keys that were of no help here.
    refused: Vec<&'static str>,
    /// Fields to give last, because they fail.
    late: Vec<usize>,
    /// Fields to leave out, because they are other names of one that was given.
    skip: Vec<usize>,
    /// Whether it takes no keys that it does not know.
    closed: bool,
}

#[derive(Debug)]
struct Visit {
    path: Path,
    role: Role,
    /// How many answers there are.
    answers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Another answer is tried when one is refused.
    Leaf,
    /// The same, but the refusal comes from elsewhere, later.
    Any,
    /// A map whose keys are learned.
    Keys,
    /// Every answer is tried.
    Variant,
    /// The same, and what stands beside it depends on it.
    Tag,
}

impl Trace {
    fn restart(&mut self) {
        self.notes.clear();
        self.asked_before = self.asked;
        self.path.clear();
        self.around.clear();
        self.visits.clear();
        self.failed_fields.clear();
        self.failed_leaf = None;
        self.last_field = None;
        self.learned = false;
    }

    fn note(&mut self, what: impl Display) -> Result<(), Failure> {
        use fmt::Write as _;
        let _ = write!(self.notes, "{what};");
        self.asked += 1;
        let over = self.asked - self.asked_before > MOST_IN_A_PASS;
        if over || self.path.len() > 64 {
            Err(Failure::Other)
        } else {
            Ok(())
        }
    }

    fn place(&mut self) -> &mut Place {
        self.places.entry(self.path.clone()).or_default()
    }

    /// Enters this place in the list of those where something can be tried; says which answer is to be given.
    fn visit(&mut self, role: Role, answers: usize) -> usize {
        let path = self.path.clone();
        self.visits.push(Visit {
            path,
            role,
            answers,
        });
        self.place().taken
    }

    fn inside<R>(&mut self, step: usize, ask: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(step);
        let answer = ask(self);
        self.path.pop();
        answer
    }

    fn named<R>(&mut self, name: &'static str, ask: impl FnOnce(&mut Self) -> R) -> R {
        self.around.push(name);
        let answer = ask(self);
        self.around.pop();
        answer
    }

    /// How often `name` is around. Three times is taken for a recursion: `Page<Page<T>>` is none.
    fn depth_of(&self, name: &str) -> usize {
        self.around.iter().filter(|around| **around == name).count()
    }

    /// Whether what may be absent should be.
    fn is_deep(&self) -> bool {
        self.path.len() > 40
            || self
                .around
                .last()
                .is_some_and(|name| self.depth_of(name) > 2)
    }

    /// Takes from a failure what helps the next pass to come further.
    fn learn(&mut self, failure: &Failure) -> bool {
        if std::mem::take(&mut self.learned) {
            return true;
        }
        let learned = match failure {
            Failure::Missing(name) => self.learn_key(name),
            Failure::Duplicate => self.last_field.take().is_some_and(|(path, field)| {
                self.places.entry(path).or_default().skip.push(field);
                true
            }),
            Failure::Unknown => self
                .visits
                .iter()
                .rev()
                .find(|visit| visit.role == Role::Keys)
                .is_some_and(|visit| {
                    let place = self.places.entry(visit.path.clone()).or_default();
                    !std::mem::replace(&mut place.closed, true)
                }),
            Failure::Type(expected) => {
                self.notes.push_str(expected);
                false
            }
            Failure::Variants(_) | Failure::Other => false,
        };
        learned || self.try_another_answer() || self.put_off_a_field()
    }

    /// A missing field belongs to one of the maps of this pass; each is given the key in turn, until something else is amiss.
    fn learn_key(&mut self, name: &'static str) -> bool {
        match self.last_key.take() {
            Some((path, last)) if last == name => {
                let place = self.places.entry(path).or_default();
                place.names.pop();
                place.refused.push(name);
            }
            _ => self
                .places
                .values_mut()
                .for_each(|place| place.refused.clear()),
        }
        for role in [Role::Keys, Role::Any] {
            for visit in self.visits.iter().rev().filter(|visit| visit.role == role) {
                let place = self.places.entry(visit.path.clone()).or_default();
                let is_map = role == Role::Keys || place.taken == 0;
                if is_map && !place.names.contains(&name) && !place.refused.contains(&name) {
                    place.names.push(name);
                    self.last_key = Some((visit.path.clone(), name));
                    return true;
                }
            }
        }
        false
    }

    /// Blames the leaf that refused its answer; else what stands behind the key that was learned last; else the last
    /// that was asked.
    fn try_another_answer(&mut self) -> bool {
        let behind_key = self.last_key.as_ref().map(|(path, _)| {
            let names = self.places.get(path).map_or(0, |place| place.names.len());
            [path.as_slice(), &[names.saturating_sub(1)]].concat()
        });
        let blamed = match self.failed_leaf {
            Some(leaf) => &self.visits[leaf..=leaf],
            None => &self.visits,
        };
        let first = blamed
            .iter()
            .filter(|visit| Some(&visit.path) == behind_key.as_ref());
        for Visit {
            path,
            role,
            answers,
        } in first.chain(blamed.iter().rev())
        {
            let place = self.places.entry(path.clone()).or_default();
            if matches!(role, Role::Leaf | Role::Any) && place.taken + 1 < *answers {
                place.taken += 1;
                return true;
            }
        }
        false
    }

    fn put_off_a_field(&mut self) -> bool {
        for (path, field) in self.failed_fields.drain(..) {
            let place = self.places.entry(path).or_default();
            if !place.late.contains(&field) {
                place.late.push(field);
                return true;
            }
        }
        false
    }

    /// Goes on to the next variant, in the last enum that has one, so that those inside a variant are through before it ends.
    fn explore(&mut self) -> bool {
        for Visit {
            path,
            role,
            answers,
        } in self.visits.iter().rev()
        {
            let place = self.places.entry(path.clone()).or_default();
            if !matches!(role, Role::Variant | Role::Tag) || place.taken + 1 >= *answers {
                continue;
            }
            place.taken += 1;
            if let (Role::Tag, Some((tag, around))) = (role, path.split_last()) {
                self.places.retain(|path, _| {
                    !path.starts_with(around)
                        || path.get(around.len()).is_none_or(|step| step <= tag)
                });
                self.places
                    .entry(around.to_vec())
                    .or_default()
                    .names
                    .truncate(tag + 1);
            }
            return true;
        }
        false
    }
}

/// What a type says about an answer that it does not take.
#[derive(Debug)]
enum Failure {
    Missing(&'static str),
    Duplicate,
    Unknown,
    Variants(&'static [&'static str]),
    /// What it wanted instead.
    Type(String),
    Other,
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the probe has no such answer")
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: Display>(_: T) -> Self {
        Self::Other
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Type(expected.to_string())
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Variants(expected)
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self::Duplicate
    }
}

#[cfg(test)]
mod tests;
