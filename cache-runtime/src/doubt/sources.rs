//! The servers that report changes, and which of them owns a key: the only server, or the primaries of a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::slot::Slot;

/// The most primaries of a cluster whose changes are heard. Redis recommends at most 1,000 nodes. They take 40 KiB.
const PRIMARIES: usize = 1_024;

/// The place of the source that owns no slot: it never hears anything.
pub(super) const NOBODY: u16 = u16::MAX;

/// What is known of the reports of one server.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Until when the process knows all changes that are older than its staleness allows, by the coarse clock.
    pub(super) trusted_until: AtomicU64,
    /// Counts the gaps in its reports.
    gaps: AtomicU64,
    /// Beginnings of the keys whose changes are heard.
    pub(super) heard: ArcSwapOption<Vec<String>>,
    /// Why no changes are heard, if the server does not report them.
    pub(super) refused: ArcSwapOption<String>,
    is_used: AtomicBool,
}

impl Source {
    #[inline]
    pub(super) fn is_trusted(&self, now: u64) -> bool {
        now < self.trusted_until.load(Ordering::Acquire)
    }

    pub(super) fn distrust(&self) {
        self.trusted_until.store(0, Ordering::Release);
    }

    pub(super) fn missed(&self) {
        self.gaps.fetch_add(1, Ordering::AcqRel);
    }
}

/// All servers that report changes.
#[derive(Debug)]
pub(super) enum Sources {
    One(Source),
    Slots {
        sources: Box<[Source]>,
        slots: Box<[Owned]>,
        /// Never changed: it is what has no place.
        nobody: Source,
    },
}

/// The owner of a slot in the lower 16 bits, and above them a count of the gaps that concern only this slot.
#[derive(Debug)]
pub(super) struct Owned(AtomicU64);

impl Sources {
    /// One server.
    pub(super) fn one() -> Self {
        Self::One(Source::default())
    }

    /// The primaries of a cluster. No slot has an owner yet.
    pub(super) fn of_cluster() -> Self {
        Self::Slots {
            sources: (0..PRIMARIES).map(|_| Source::default()).collect(),
            slots: Slot::all()
                .map(|_| Owned(AtomicU64::new(u64::from(NOBODY))))
                .collect(),
            nobody: Source::default(),
        }
    }

    /// Returns the slot of a key. Without a cluster all keys share one.
    #[inline]
    pub(super) fn slot_of(&self, name: &[u8]) -> Slot {
        match self {
            Self::One(_) => Slot::default(),
            Self::Slots { .. } => Slot::of(name),
        }
    }

    /// Takes a place for a server. Without a cluster there is one place for all. In a cluster with too many primaries some have none,
    /// and nothing of theirs is kept.
    pub(super) fn take(&self) -> u16 {
        let Self::Slots { sources, .. } = self else {
            return 0;
        };
        let is_free = |source: &Source| !source.is_used.swap(true, Ordering::AcqRel);
        let free = sources.iter().position(is_free);
        free.and_then(|place| u16::try_from(place).ok())
            .unwrap_or(NOBODY)
    }

    /// Returns a place. No slot has this owner any more.
    pub(super) fn give_back(&self, place: u16) {
        if let Self::Slots { sources, .. } = self
            && let Some(source) = sources.get(usize::from(place))
        {
            source.distrust();
            source.heard.store(None);
            source.refused.store(None);
            source.is_used.store(false, Ordering::Release);
        }
    }

    pub(super) fn at(&self, place: u16) -> &Source {
        match self {
            Self::One(source) => source,
            Self::Slots {
                sources, nobody, ..
            } => sources.get(usize::from(place)).unwrap_or(nobody),
        }
    }

    /// Returns the server that owns a slot.
    #[inline]
    pub(super) fn owner(&self, slot: Slot) -> &Source {
        match self {
            Self::One(source) => source,
            Self::Slots { slots, .. } => self.at(slots[slot.index()].owner()),
        }
    }

    /// Returns a number that grows with each gap in the reports about the keys of a slot. A gap of the slot alone counts more than
    /// any number of gaps of its owner, because another owner may have fewer.
    #[inline]
    pub(super) fn gaps(&self, slot: Slot) -> u64 {
        match self {
            Self::One(source) => source.gaps.load(Ordering::Acquire),
            Self::Slots { slots, .. } => {
                let (owner, own) = slots[slot.index()].read();
                (own << 32).wrapping_add(self.at(owner).gaps.load(Ordering::Acquire))
            }
        }
    }

    /// Changes of the keys of a slot may have been missed. `owner` owns it from now on.
    pub(super) fn give(&self, slot: Slot, owner: u16) {
        self.change(slot, |_| owner);
    }

    /// The same, and its owner stays.
    pub(super) fn missed_in(&self, slot: Slot) {
        self.change(slot, |owner| owner);
    }

    fn change(&self, slot: Slot, owner: impl Fn(u16) -> u16) {
        if let Self::Slots { slots, .. } = self {
            let next = |word| {
                let (before, own) = Owned::parts(word);
                Some((own + 1) << 16 | u64::from(owner(before)))
            };
            let word = &slots[slot.index()].0;
            // It always changes.
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        }
    }

    /// The servers in use.
    pub(super) fn used(&self) -> impl Iterator<Item = &Source> {
        let is_used = |source: &&Source| source.is_used.load(Ordering::Acquire);
        let (one, many) = match self {
            Self::One(source) => (Some(source), [].as_slice()),
            Self::Slots { sources, .. } => (None, &**sources),
        };
        one.into_iter().chain(many.iter().filter(is_used))
    }
}

impl Owned {
    #[inline]
    fn parts(word: u64) -> (u16, u64) {
        ((word & 0xffff) as u16, word >> 16)
    }

    #[inline]
    fn read(&self) -> (u16, u64) {
        Self::parts(self.0.load(Ordering::Acquire))
    }

    #[inline]
    fn owner(&self) -> u16 {
        self.read().0
    }
}

/// A server that reports changes, as its listener knows it. In a cluster its place is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(super) sources: Arc<Sources>,
    pub(super) place: u16,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.sources.give_back(self.place);
    }
}
