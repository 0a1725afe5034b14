//! What the scripts do, in this process. Each function does what the script of its name says there.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "tower-sessions")]
use super::backend::If;
use super::backend::{BELIEF, Begin, Begun, Change, Listed, Lives, Loaded, SEEN, Stored, Which};
use super::place::{Place, Sid, Tag};
use super::seal::{HEAD, PINNED, Pinned, last_use};

/// How often users are looked through who never came back, in milliseconds.
const SWEEP: u64 = 60_000;

#[derive(Default)]
pub(super) struct Memory(Mutex<Users>);

#[derive(Default)]
struct Users {
    sessions: HashMap<Tag, Sessions>,
    swept: u64,
}

/// A user's.
type Sessions = HashMap<Sid, Kept>;

struct Kept {
    ends: u64,
    record: Vec<u8>,
}

#[cfg(feature = "tower-sessions")]
impl Memory {
    pub(super) fn put(
        &self,
        condition: If,
        place: Place,
        ends: u64,
        record: &[u8],
        now: u64,
    ) -> bool {
        let mut users = self.lock();
        users.sweep(now);
        let is_there = users.find(place, now).is_some();
        if is_there != (condition == If::Present) {
            return false;
        }
        let record = record.to_vec();
        let sessions = users.sessions.entry(place.tag).or_default();
        sessions.insert(place.sid, Kept { ends, record });
        true
    }

    pub(super) fn get(&self, place: Place, now: u64) -> Option<Vec<u8>> {
        let users = self.lock();
        users.find(place, now).map(|kept| kept.record.clone())
    }

    /// Of how many users anything is kept.
    #[cfg(test)]
    pub(super) fn users(&self) -> usize {
        self.lock().sessions.len()
    }
}

impl Memory {
    pub(super) fn create(&self, begin: Begin<'_>, now: u64) -> Begun {
        let Begin {
            place,
            ttl,
            most,
            created,
            absolute,
            replaced,
            record,
        } = begin;
        if created > now || created + BELIEF <= now {
            return Begun::Later;
        }
        let mut users = self.lock();
        users.sweep(now);
        let sessions = users.of(place.tag, now);
        if let Some(replaced) = replaced {
            sessions.remove(&replaced);
        }
        let mut ended = 0;
        while sessions.len() >= most {
            let soonest = sessions
                .iter()
                .min_by_key(|(sid, kept)| (kept.ends, sid.text()));
            let Some(soonest) = soonest.map(|(sid, _)| *sid) else {
                break;
            };
            sessions.remove(&soonest);
            ended += 1;
        }
        let ends = now.saturating_add(ttl).min(absolute);
        let record = record.to_vec();
        sessions.insert(place.sid, Kept { ends, record });
        Begun::Until { ends, ended }
    }

    pub(super) fn load(&self, place: Place, lives: Lives, now: u64) -> Option<Loaded> {
        let mut users = self.lock();
        let sessions = users.of(place.tag, now);
        let kept = sessions.get_mut(&place.sid)?;
        let absolute = Pinned::read(&kept.record)?.absolute;
        let before = kept.record.clone();
        let last = last_use(&before)?;
        if absolute <= now {
            sessions.remove(&place.sid);
            return None;
        }
        let Lives {
            ttl,
            extend,
            absolute: _,
            touch_every,
        } = lives;
        if now.saturating_sub(last) >= touch_every {
            let most = now.saturating_add(ttl).saturating_add(extend);
            let extended = kept.ends.saturating_add(extend).min(most);
            kept.ends = kept.ends.max(extended).min(absolute);
            for place in [PINNED, PINNED + 8] {
                kept.record[place..place + 8].copy_from_slice(&now.to_be_bytes());
            }
        }
        Some(Loaded {
            now,
            ends: kept.ends,
            last,
            record: before,
        })
    }

    pub(super) fn change(&self, change: Change<'_>, now: u64) -> Stored {
        let Change {
            place,
            seen,
            pinned,
            sealed,
            renamed,
        } = change;
        let mut users = self.lock();
        let sessions = users.of(place.tag, now);
        let Some(kept) = sessions.get_mut(&place.sid) else {
            return Stored::Gone;
        };
        if kept.record[..SEEN] != seen[..SEEN] {
            return Stored::Conflict;
        }
        let ends = kept.ends;
        kept.record = [&pinned, &kept.record[PINNED..HEAD], sealed].concat();
        if let Some(renamed) = renamed
            && let Some(kept) = sessions.remove(&place.sid)
        {
            sessions.insert(renamed, kept);
        }
        Stored::Until(ends)
    }

    pub(super) fn destroy(&self, tag: Tag, which: Which, now: u64) -> usize {
        let mut users = self.lock();
        let sessions = users.of(tag, now);
        let before = sessions.len();
        match which {
            Which::One(sid) => drop(sessions.remove(&sid)),
            Which::Others { except, began } => sessions.retain(|sid, kept| {
                let created = Pinned::read(&kept.record).map(|pinned| pinned.created);
                let is_later = began.is_some_and(|began| created.is_some_and(|at| at > began));
                Some(*sid) == except || is_later
            }),
        }
        let ended = before - sessions.len();
        if sessions.is_empty() {
            // Who asks may have made up whom.
            users.sessions.remove(&tag);
        }
        ended
    }

    pub(super) fn list(&self, tag: Tag, now: u64) -> Vec<Listed> {
        let mut users = self.lock();
        let sessions = users.of(tag, now).iter();
        let mut listed: Vec<_> = sessions
            .map(|(sid, kept)| Listed {
                sid: *sid,
                ends: kept.ends,
                record: kept.record.clone(),
            })
            .collect();
        listed.sort_by_key(|listed| (listed.ends, listed.sid.text()));
        listed
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Users {
    /// The sessions of a user that are alive.
    fn of(&mut self, tag: Tag, now: u64) -> &mut Sessions {
        let sessions = self.sessions.entry(tag).or_default();
        sessions.retain(|_, kept| kept.ends > now);
        sessions
    }

    /// A session that is alive. Whoever asks for what never was leaves nothing behind.
    #[cfg(feature = "tower-sessions")]
    fn find(&self, place: Place, now: u64) -> Option<&Kept> {
        let kept = self.sessions.get(&place.tag)?.get(&place.sid)?;
        (kept.ends > now).then_some(kept)
    }

    fn sweep(&mut self, now: u64) {
        if now < self.swept.saturating_add(SWEEP) {
            return;
        }
        self.swept = now;
        self.sessions.retain(|_, sessions| {
            sessions.retain(|_, kept| kept.ends > now);
            !sessions.is_empty()
        });
    }
}
