//! Compares the scripts with the functions that replace them in memory mode.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};

use super::super::backend::Backend;
use super::super::place::{Place, SID, Sid, TAG, UserTag};
use super::super::seal::Pinned;
use super::super::transition::{Begin, Begun, Change, Listed, Loaded, Stored, Timeouts, Which};
use super::*;

/// A step. A session is named by its number among all sessions that ever began.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin {
        user: u8,
        replaced: Option<usize>,
    },
    Load(usize),
    /// Saves from the latest known revision, or from the first one.
    Save {
        session: usize,
        is_stale: bool,
    },
    Rotate {
        session: usize,
        is_stale: bool,
    },
    End(usize),
    EndOthers {
        user: u8,
        except: Option<usize>,
        began_ago: Option<u64>,
    },
    List(u8),
    /// Waits for a number of sixteenths of the ttl.
    Wait(u64),
    WaitMillis(u64),
}

/// The answer of a step. It must be the same in both backends.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Begun(Begun),
    Loaded(Option<Loaded>),
    Stored(Stored),
    Ended(usize),
    Listed(Vec<Listed>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let user = 0..2_u8;
    let some = proptest::option::of(0..40_usize);
    prop_oneof![
        5 => (user.clone(), some.clone()).prop_map(|(user, replaced)| Step::Begin { user, replaced }),
        6 => (0..40_usize).prop_map(Step::Load),
        3 => (0..40_usize, any::<bool>()).prop_map(|(session, is_stale)| Step::Save { session, is_stale }),
        3 => (0..40_usize, any::<bool>()).prop_map(|(session, is_stale)| Step::Rotate { session, is_stale }),
        2 => (0..40_usize).prop_map(Step::End),
        1 => (user.clone(), some, proptest::option::of(0..3_000_000_u64)).prop_map(|(user, except, began_ago)| {
            Step::EndOthers { user, except, began_ago }
        }),
        2 => user.prop_map(Step::List),
        3 => (0..20_u64).prop_map(Step::Wait),
        2 => (0..3_u64).prop_map(Step::WaitMillis),
    ]
}

fn any_timeouts() -> impl Strategy<Value = Timeouts> {
    // Long enough that Redis's own expiry, which goes by the real time, is in nobody's way.
    let ttl = 1_000_000..2_000_000_u64;
    let extend = prop_oneof![Just(0_u64), 1..100_000_u64, 1_000_000..3_000_000_u64];
    let extend = proptest::option::weighted(0.7, extend);
    let touch_every = prop_oneof![2 => Just(0_u64), 1 => 1..3_u64, 1 => 1..500_000_u64];
    (ttl, extend, 0..5_000_000_u64, touch_every).prop_map(|(ttl, extend, more, touch_every)| {
        Timeouts {
            ttl,
            extend,
            absolute: ttl + more,
            touch_every,
        }
    })
}

/// The session as the test knows it.
#[derive(Clone, Copy)]
struct Known {
    place: Place,
    first: Pinned,
    last: Pinned,
}

/// Takes the same steps in both backends.
struct Course {
    clock: Clock,
    timeouts: Timeouts,
    case: u32,
    next: u64,
    known: Vec<Known>,
}

impl Course {
    fn tag(&self, user: u8) -> UserTag {
        let mut tag = [user; TAG];
        tag[..4].copy_from_slice(&self.case.to_be_bytes());
        UserTag(tag)
    }

    fn new_sid(&mut self) -> Sid {
        // Not in the order of their names: names order sessions that end at the same time.
        self.next += 1;
        let mut sid = [0; SID];
        sid[..8].copy_from_slice(&self.next.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        Sid(sid)
    }

    fn known(&self, session: usize) -> Option<usize> {
        (!self.known.is_empty()).then(|| session % self.known.len())
    }

    async fn take(&mut self, step: Step, places: &[Backend; 2]) -> [Answer; 2] {
        let [one, other] = places;
        let timeouts = self.timeouts;
        match step {
            Step::Begin { user, replaced } => {
                let tag = self.tag(user);
                let replaced = replaced.and_then(|session| self.known(session));
                let replaced = replaced.map(|session| self.known[session].place);
                let created = self.clock.now_millis();
                let place = Place {
                    tag,
                    sid: self.new_sid(),
                };
                let pinned = Pinned {
                    revision: 0,
                    created,
                    absolute: created + timeouts.absolute,
                };
                let last = created.to_be_bytes();
                let record = [&pinned.bytes()[..], &last, &last, b"sealed"].concat();
                let begin = || Begin {
                    place,
                    ttl: timeouts.ttl,
                    most: 3,
                    created,
                    absolute: pinned.absolute,
                    replaced: replaced
                        .filter(|former| former.tag == tag)
                        .map(|former| former.sid),
                    record: &record,
                };
                self.known.push(Known {
                    place,
                    first: pinned,
                    last: pinned,
                });
                [one.create(begin()).await, other.create(begin()).await]
                    .map(|begun| Answer::Begun(begun.unwrap()))
            }
            Step::Load(session) => {
                let Some(session) = self.known(session) else {
                    return [Answer::Nothing, Answer::Nothing];
                };
                let place = self.known[session].place;
                let loaded = [
                    one.load(place, timeouts).await,
                    other.load(place, timeouts).await,
                ]
                .map(Result::unwrap);
                if let Some(loaded) = &loaded[0] {
                    self.known[session].last = Pinned::read(&loaded.record).unwrap();
                }
                loaded.map(Answer::Loaded)
            }
            Step::Save { session, is_stale } => self.change(session, is_stale, false, places).await,
            Step::Rotate { session, is_stale } => {
                self.change(session, is_stale, true, places).await
            }
            Step::End(session) => {
                let Some(session) = self.known(session) else {
                    return [Answer::Nothing, Answer::Nothing];
                };
                let Place { tag, sid } = self.known[session].place;
                let listed = other.list(tag).await.unwrap();
                let was_alive = listed.iter().any(|listed| listed.sid == sid);
                let ended = self.end(tag, Which::One(sid), places).await;
                // A session that has ended by the test's clock may still be in Redis, which removes keys by the real time.
                if was_alive {
                    ended
                } else {
                    [Answer::Nothing, Answer::Nothing]
                }
            }
            Step::EndOthers {
                user,
                except,
                began_ago,
            } => {
                let except = except.and_then(|session| self.known(session));
                let except = except.map(|session| self.known[session].place.sid);
                let began = began_ago.map(|ago| self.clock.now_millis() - ago);
                self.end(self.tag(user), Which::Others { except, began }, places)
                    .await
            }
            Step::List(user) => {
                let tag = self.tag(user);
                [one.list(tag).await, other.list(tag).await]
                    .map(|listed| Answer::Listed(listed.unwrap()))
            }
            Step::Wait(sixteenths) => self.wait(timeouts.ttl * sixteenths / 16),
            Step::WaitMillis(time) => self.wait(time),
        }
    }

    async fn change(
        &mut self,
        session: usize,
        is_stale: bool,
        is_rotation: bool,
        [one, other]: &[Backend; 2],
    ) -> [Answer; 2] {
        let Some(session) = self.known(session) else {
            return [Answer::Nothing, Answer::Nothing];
        };
        let Known { place, first, last } = self.known[session];
        let seen = if is_stale { first } else { last };
        let pinned = Pinned {
            revision: seen.revision + 1,
            ..seen
        };
        let renamed = is_rotation.then(|| self.new_sid());
        let change = || Change {
            place,
            seen: seen.bytes(),
            pinned: pinned.bytes(),
            sealed: b"sealed otherwise",
            renamed,
        };
        let stored = [one.change(change()).await, other.change(change()).await].map(Result::unwrap);
        if let Stored::Until(_) = stored[0] {
            match renamed {
                None => self.known[session].last = pinned,
                Some(sid) => self.known.push(Known {
                    place: Place { sid, ..place },
                    first: pinned,
                    last: pinned,
                }),
            }
        }
        stored.map(Answer::Stored)
    }

    async fn end(&self, tag: UserTag, which: Which, [one, other]: &[Backend; 2]) -> [Answer; 2] {
        [
            one.destroy(tag, which).await,
            other.destroy(tag, which).await,
        ]
        .map(|ended| Answer::Ended(ended.unwrap()))
    }

    fn wait(&self, time: u64) -> [Answer; 2] {
        self.clock.advance(millis(time));
        [Answer::Nothing, Answer::Nothing]
    }
}

#[test]
fn the_scripts_and_the_functions_give_the_same_answers() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let clock = Clock::stopped();
    let server = RedisServer::start().unwrap();
    let places = runtime.block_on(async {
        let redis = Cache::connect(config(&server).clock(clock.clone()))
            .await
            .unwrap();
        let memory = Cache::local(Config::default().clock(clock.clone()));
        [Backend::new(&redis), Backend::new(&memory)]
    });
    let cases = Cell::new(0);
    let steps = (any_timeouts(), proptest::collection::vec(any_step(), 1..60));
    let mut runner = TestRunner::new(Runs {
        failure_persistence: None,
        ..Runs::default()
    });

    runner
        .run(&steps, |(timeouts, steps)| {
            cases.set(cases.get() + 1);
            let mut course = Course {
                clock: clock.clone(),
                timeouts,
                case: cases.get(),
                next: 0,
                known: Vec::new(),
            };
            runtime.block_on(async {
                for step in steps {
                    let [said, meant] = course.take(step, &places).await;
                    prop_assert_eq!(said, meant, "{:?}", step);
                    for user in 0..2 {
                        let [said, meant] = course.take(Step::List(user), &places).await;
                        prop_assert_eq!(said, meant, "after {:?}", step);
                    }
                }
                Ok(())
            })
        })
        .unwrap();
}
