//! The session scripts in this process. Each function does the same as the script with its name.

use std::collections::HashMap;
use std::sync::MutexGuard;

use super::place::{Place, Sid, UserTag};
use super::seal::{HEAD, PINNED, Pinned, last_use};
#[cfg(feature = "tower-sessions")]
use super::transition::If;
use super::transition::{
    Begin, Begun, CLOCK_TOLERANCE, Change, Listed, Loaded, SEEN, Stored, Timeouts, Which,
};

use crate::sync::Mutex;

/// How often sessions of users that did not return are checked, in milliseconds.
const SWEEP: u64 = 60_000;

/// How long a renamed session can be ended under its old name, in milliseconds.
const MOVED: u64 = 60_000;

#[derive(Default)]
pub(super) struct Memory(Mutex<Users>);

#[derive(Default)]
struct Users {
    sessions: HashMap<UserTag, Sessions>,
    /// The current names of renamed sessions, and until when they are kept.
    moved: HashMap<Place, (Sid, u64)>,
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

    /// Returns the number of users with stored data.
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
        if created > now || created.saturating_add(CLOCK_TOLERANCE) <= now {
            return Begun::WrongTime;
        }
        let mut users = self.lock();
        users.sweep(now);
        let replaced = replaced.map(|sid| [sid, users.follow(place.tag, sid, now)]);
        let sessions = users.sessions.entry(place.tag).or_default();
        sessions.retain(|_, kept| kept.ends > now);
        for replaced in replaced.into_iter().flatten() {
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

    pub(super) fn load(&self, place: Place, timeouts: Timeouts, now: u64) -> Option<Loaded> {
        let mut users = self.lock();
        let kept = users.alive(place.tag, now)?.get_mut(&place.sid)?;
        let absolute = Pinned::read(&kept.record)?.absolute;
        let before = kept.record.clone();
        let last = last_use(&before)?;
        let Timeouts {
            ttl,
            extend,
            absolute: _,
            touch_every,
        } = timeouts;
        if now.saturating_sub(last) >= touch_every {
            let fresh = now.saturating_add(ttl);
            let extended = match extend {
                Some(extend) => kept.ends.min(fresh).saturating_add(extend).max(kept.ends),
                None => fresh,
            };
            kept.ends = extended.min(absolute);
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
        let Some(sessions) = users.alive(place.tag, now) else {
            return Stored::Gone;
        };
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
            users
                .moved
                .insert(place, (renamed, now.saturating_add(MOVED).min(ends)));
        }
        Stored::Until(ends)
    }

    pub(super) fn destroy(&self, tag: UserTag, which: Which, now: u64) -> usize {
        let mut users = self.lock();
        let sent = match which {
            Which::One(sid) => Some(sid),
            Which::Others { except, .. } => except,
        };
        let named = sent.map(|sid| [sid, users.follow(tag, sid, now)]);
        let is_named = |sid: &Sid| named.is_some_and(|named| named.contains(sid));
        let Some(sessions) = users.alive(tag, now) else {
            return 0;
        };
        let before = sessions.len();
        match which {
            Which::One(_) => sessions.retain(|sid, _| !is_named(sid)),
            Which::Others { except: _, began } => sessions.retain(|sid, kept| {
                let created = Pinned::read(&kept.record).map(|pinned| pinned.created);
                let is_later = began.is_some_and(|began| created.is_some_and(|at| at > began));
                is_named(sid) || is_later
            }),
        }
        let ended = before - sessions.len();
        if sessions.is_empty() {
            // The caller may have invented the user.
            users.sessions.remove(&tag);
        }
        ended
    }

    pub(super) fn list(&self, tag: UserTag, now: u64) -> Vec<Listed> {
        let mut users = self.lock();
        let sessions = users.alive(tag, now).into_iter().flatten();
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
        self.0.lock()
    }
}

impl Users {
    /// The sessions of a user that are alive, if any.
    fn alive(&mut self, tag: UserTag, now: u64) -> Option<&mut Sessions> {
        let sessions = self.sessions.get_mut(&tag)?;
        sessions.retain(|_, kept| kept.ends > now);
        if sessions.is_empty() {
            self.sessions.remove(&tag);
        }
        self.sessions.get_mut(&tag)
    }

    /// Returns a session that has not ended. A lookup of a session that never existed leaves no record.
    #[cfg(feature = "tower-sessions")]
    fn find(&self, place: Place, now: u64) -> Option<&Kept> {
        let kept = self.sessions.get(&place.tag)?.get(&place.sid)?;
        (kept.ends > now).then_some(kept)
    }

    /// Returns the current name of a session that was renamed within the last minute, any number of times. No name repeats,
    /// so the loop ends.
    fn follow(&self, tag: UserTag, sid: Sid, now: u64) -> Sid {
        let mut place = Place { tag, sid };
        while let Some((renamed, until)) = self.moved.get(&place)
            && *until > now
        {
            place.sid = *renamed;
        }
        place.sid
    }

    fn sweep(&mut self, now: u64) {
        if now < self.swept.saturating_add(SWEEP) {
            return;
        }
        self.swept = now;
        self.moved.retain(|_, (_, until)| *until > now);
        self.sessions.retain(|_, sessions| {
            sessions.retain(|_, kept| kept.ends > now);
            !sessions.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::{SID, TAG};
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        ttl: 1_000,
        extend: Some(0),
        absolute: 1_000,
        touch_every: 0,
    };

    fn place(user: u32) -> Place {
        let mut tag = [0; TAG];
        tag[..4].copy_from_slice(&user.to_be_bytes());
        Place {
            tag: UserTag(tag),
            sid: Sid([0; SID]),
        }
    }

    fn begin(memory: &Memory, user: u32, now: u64) {
        let pinned = Pinned {
            revision: 0,
            created: now,
            absolute: now + TIMEOUTS.absolute,
        };
        let record = [&pinned.bytes()[..], &now.to_be_bytes(), &now.to_be_bytes()].concat();
        let begin = Begin {
            place: place(user),
            ttl: TIMEOUTS.ttl,
            most: 1,
            created: now,
            absolute: pinned.absolute,
            replaced: None,
            record: &record,
        };
        let begun = memory.create(begin, now);
        assert!(matches!(begun, Begun::Until { .. }), "{begun:?}");
    }

    fn users(memory: &Memory) -> usize {
        memory.lock().sessions.len()
    }

    #[test]
    fn users_with_only_expired_sessions_are_removed() {
        let memory = Memory::default();
        for user in 0..1_000 {
            begin(&memory, user, SWEEP);
        }
        assert_eq!(users(&memory), 1_000);

        begin(&memory, 1, 2 * SWEEP);

        assert_eq!(users(&memory), 1);
    }

    #[test]
    fn old_names_of_sessions_are_removed() {
        let memory = Memory::default();
        begin(&memory, 1, SWEEP);
        let pinned = Pinned {
            revision: 0,
            created: SWEEP,
            absolute: SWEEP + TIMEOUTS.absolute,
        };
        let change = Change {
            place: place(1),
            seen: pinned.bytes(),
            pinned: pinned.bytes(),
            sealed: &[],
            renamed: Some(Sid([1; SID])),
        };
        assert_eq!(
            memory.change(change, SWEEP),
            Stored::Until(SWEEP + TIMEOUTS.ttl)
        );
        assert_eq!(memory.lock().moved.len(), 1);

        begin(&memory, 2, 2 * SWEEP);

        assert!(memory.lock().moved.is_empty());
    }

    #[test]
    fn a_user_without_sessions_takes_no_memory() {
        let memory = Memory::default();
        begin(&memory, 1, SWEEP);
        begin(&memory, 2, SWEEP);
        memory.destroy(place(1).tag, Which::One(place(1).sid), SWEEP);
        let later = SWEEP + TIMEOUTS.ttl;

        for user in 2..100 {
            assert!(memory.load(place(user), TIMEOUTS, later).is_none());
            assert!(memory.list(place(user).tag, later).is_empty());
            assert_eq!(
                memory.destroy(place(user).tag, Which::One(place(user).sid), later),
                0
            );
        }

        assert_eq!(users(&memory), 0);
    }
}
