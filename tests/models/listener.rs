//! The connection that hears the pushes, and the time within which they must arrive. The process pings Redis on this
//! connection. Pushes and answers arrive in order, so when a ping is answered, everything is known that was acknowledged before
//! the ping was sent. A value is served without a question only while the last answered ping was sent less than the bound ago.
//!
//! One process with a reader and its listener, another process that evicts and loads, and a Redis that broadcasts the pushes of
//! a turn of its loop at the end of the turn, before it sends the replies of the turn. Time passes in ticks. The connection can
//! stop to deliver at any time, and the process may notice that late or never.

use crate::explorer::{Model, Steps, Who, Wrong, explore};
use crate::row::Version;

/// The bound, in ticks.
const BOUND: usize = 2;

/// The most ticks and pings.
const TICKS: u8 = 3;
const PINGS: u8 = 2;

/// The most messages on the way to the process.
const QUEUE: usize = 3;

#[derive(Clone, Copy, Debug)]
struct Listening {
    /// The calls of the reader.
    calls: u8,
    evictions: u8,
    /// Whether the link may break, once.
    breaks: bool,
    /// Another client may run a long script, in which Redis replies to other clients and broadcasts nothing.
    stalls: bool,
    serves: Serves,
    applies: Applies,
    generation: Generation,
    answers: Answers,
}

/// How long a value is served without a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serves {
    UntilTheBoundAfterThePingWasSent,
    /// Twin.
    UntilTheBoundAfterThePingWasAnswered,
    /// Twin: while the connection is open.
    WhileConnected,
}

/// When a push counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applies {
    WhenItIsRead,
    /// Twin: another task applies it later.
    Later,
}

/// When a new connection makes all values doubtful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    AfterTrackingIsOn,
    /// Twin.
    WhenItOpens,
    /// Twin.
    Never,
}

/// What counts as an answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    OnlyPong,
    /// Twin.
    AlsoErrors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    ticks: u8,
    pings: u8,
    calls: u8,
    evictions: u8,

    committed: Version,
    entry: Option<Version>,
    /// The eviction of this turn: its push and its reply wait for the end of the turn.
    turn: Option<Turn>,
    is_busy: bool,
    /// The latest version whose eviction was acknowledged now, a tick ago, and so on. Not visible to any actor.
    promised: [Version; BOUND + 1],
    writer: Writer,

    link: Link,
    /// Whether the link may still break.
    may_break: bool,
    /// The link delivers nothing that Redis sends from now on.
    is_broken: bool,
    queue: [Option<Message>; QUEUE],
    /// The ticks since the unanswered ping was sent, and whether Redis has it.
    ping: Option<Ping>,
    /// The ticks since the last answered ping was sent.
    watermark: Option<u8>,

    counter: u8,
    generation: u8,
    /// For the twin that applies pushes later.
    unapplied: u8,
    value: Option<Value>,
    reader: Reader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Turn {
    evicted: Version,
    is_replied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Writer {
    Idle,
    Committed,
    /// Has sent its eviction, or may load again.
    Evicted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Down,
    /// Opened; Redis does not track yet.
    Open,
    /// Redis tracks; the process does not know it yet.
    Tracking,
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Message {
    Push,
    Pong,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ping {
    age: u8,
    is_there: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Value {
    version: Version,
    counter: u8,
    generation: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Idle,
    Asking { counter: u8, generation: u8 },
    Answered(Value),
}

impl Model for Listening {
    type State = State;

    fn start(&self) -> State {
        State {
            ticks: TICKS,
            pings: PINGS,
            calls: self.calls,
            evictions: self.evictions,
            committed: 0,
            entry: Some(0),
            turn: None,
            is_busy: false,
            promised: [0; BOUND + 1],
            writer: Writer::Idle,
            link: Link::Ready,
            may_break: self.breaks,
            is_broken: false,
            queue: [None; QUEUE],
            ping: None,
            watermark: Some(0),
            counter: 0,
            generation: 0,
            unapplied: 0,
            value: None,
            reader: Reader::Idle,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        read(state, |what, next| steps.add(Who::Reader(0), what, next));
        write(state, |what, next| steps.add(Who::Writer(0), what, next));
        self.redis(state, |what, next| steps.add(Who::Writer(1), what, next));
        self.listen(state, |what, next| steps.add(Who::Recovery, what, next));
        if state.may_break && state.link != Link::Down {
            let (may_break, is_broken) = (false, true);
            let broken = State {
                may_break,
                is_broken,
                ..*state
            };
            steps.add(Who::Network, "the link delivers nothing more", broken);
        }
        if let Some(next) = state.after_a_tick() {
            steps.add(Who::Clock, "time passes", next);
        }
    }

    fn wrong(&self, state: &State) -> Option<Wrong> {
        let served = state.value.filter(|value| self.is_served(state, value));
        let is_too_old = |value: Value| value.version < state.promised[BOUND];
        served.is_some_and(is_too_old).then_some(Wrong::TooOld)
    }

    /// Nothing is on its way, so a value that is served on a link that works must be current.
    fn wrong_at_rest(&self, state: &State) -> Option<Wrong> {
        let works = state.link == Link::Ready && !state.is_broken;
        let served = state
            .value
            .filter(|value| works && self.is_served(state, value));
        let is_outdated = |value: Value| value.version != state.committed;
        served
            .is_some_and(is_outdated)
            .then_some(Wrong::StaleAtRest)
    }
}

impl Listening {
    fn is_served(&self, state: &State, value: &Value) -> bool {
        let is_certain = value.counter == state.counter && value.generation == state.generation;
        let is_in_time = match self.serves {
            Serves::WhileConnected => state.link == Link::Ready,
            _ => state.watermark.is_some_and(|age| usize::from(age) < BOUND),
        };
        is_certain && is_in_time
    }

    /// Adds the steps of Redis.
    fn redis(&self, state: &State, mut step: impl FnMut(&'static str, State)) {
        let mut next = *state;
        match (state.turn, state.is_busy) {
            (Some(turn), false) => {
                if next.send(Message::Push) {
                    next.finish(turn);
                    step("broadcasts, and replies", next);
                }
                if self.stalls {
                    step(
                        "begins a long script",
                        State {
                            is_busy: true,
                            ..*state
                        },
                    );
                }
            }
            (
                Some(Turn {
                    evicted,
                    is_replied: false,
                }),
                true,
            ) => {
                next.promise(evicted);
                let is_replied = true;
                next.turn = Some(Turn {
                    evicted,
                    is_replied,
                });
                step("replies during a long script", next);
            }
            (Some(turn), true) => {
                // A ping that Redis reads after the script and in the same turn is not modelled. Its answer and the push are
                // sent together.
                if next.send(Message::Push) {
                    next.is_busy = false;
                    next.finish(turn);
                    step("ends a long script, and broadcasts", next);
                }
            }
            (None, _) => {}
        }
        if let Some(Ping {
            age,
            is_there: false,
        }) = state.ping
        {
            let mut next = *state;
            let answer = if state.is_busy {
                Message::Error
            } else {
                Message::Pong
            };
            if next.send(answer) {
                next.ping = Some(Ping {
                    age,
                    is_there: true,
                });
                step("answers a ping", next);
            }
        }
        if state.link == Link::Open && !state.is_broken && !state.is_busy {
            let link = Link::Tracking;
            step("begins to track", State { link, ..*state });
        }
    }

    /// Adds the steps of the listener.
    fn listen(&self, state: &State, mut step: impl FnMut(&'static str, State)) {
        let mut next = *state;
        match state.link {
            Link::Down => {
                next.link = Link::Open;
                if self.generation == Generation::WhenItOpens {
                    next.generation += 1;
                }
                step("opens a new link", next);
            }
            Link::Tracking if !state.is_broken => {
                next.link = Link::Ready;
                if self.generation == Generation::AfterTrackingIsOn {
                    next.generation += 1;
                }
                step("learns that Redis tracks", next);
            }
            Link::Ready if state.ping.is_none() && state.pings > 0 => {
                next.pings -= 1;
                next.ping = Some(Ping {
                    age: 0,
                    is_there: false,
                });
                step("pings", next);
            }
            Link::Open | Link::Tracking | Link::Ready => {}
        }
        if state.is_broken {
            step("notices that the link is gone", state.without_a_link());
        }
        let mut next = *state;
        match next.receive() {
            Some(Message::Push) => {
                match self.applies {
                    Applies::WhenItIsRead => next.counter += 1,
                    Applies::Later => next.unapplied += 1,
                }
                step("reads a push", next);
            }
            Some(Message::Error) if self.answers == Answers::OnlyPong => {
                next.ping = None;
                step("reads an error", next);
            }
            Some(Message::Pong | Message::Error) => {
                let sent = state.ping.map(|ping| ping.age);
                next.watermark = match self.serves {
                    Serves::UntilTheBoundAfterThePingWasAnswered => Some(0),
                    _ => sent,
                };
                next.ping = None;
                step("reads an answer", next);
            }
            None => {}
        }
        if state.unapplied > 0 {
            let mut next = *state;
            next.unapplied -= 1;
            next.counter += 1;
            step("applies a push", next);
        }
    }
}

/// Adds the steps of the reader. Calls that are served from the process change nothing, and are checked in every state.
fn read(state: &State, mut step: impl FnMut(&'static str, State)) {
    let mut next = *state;
    match state.reader {
        Reader::Idle if state.calls > 0 => {
            let State {
                counter,
                generation,
                ..
            } = *state;
            next.calls -= 1;
            next.reader = Reader::Asking {
                counter,
                generation,
            };
            step("asks Redis", next);
        }
        Reader::Idle => {}
        Reader::Asking {
            counter,
            generation,
        } => {
            next.reader = state.entry.map_or(Reader::Idle, |version| {
                Reader::Answered(Value {
                    version,
                    counter,
                    generation,
                })
            });
            step("Redis reads the entry", next);
        }
        Reader::Answered(value) => {
            next.value = Some(value);
            next.reader = Reader::Idle;
            step("inserts what Redis returned", next);
        }
    }
}

/// Adds the steps of the other process.
fn write(state: &State, mut step: impl FnMut(&'static str, State)) {
    let mut next = *state;
    match state.writer {
        Writer::Idle if state.evictions > 0 => {
            next.committed += 1;
            next.evictions -= 1;
            next.writer = Writer::Committed;
            step("commits", next);
        }
        Writer::Committed if state.turn.is_none() && !state.is_busy => {
            next.entry = None;
            next.turn = Some(Turn {
                evicted: state.committed,
                is_replied: false,
            });
            next.writer = Writer::Evicted;
            step("evicts", next);
        }
        Writer::Evicted if state.turn.is_none() && !state.is_busy => {
            next.entry = Some(state.committed);
            next.writer = Writer::Idle;
            step("loads and fills", next);
        }
        Writer::Idle | Writer::Committed | Writer::Evicted => {}
    }
}

impl State {
    /// Returns whether there was room. What is sent on a broken link is lost.
    fn send(&mut self, message: Message) -> bool {
        let is_heard = match message {
            Message::Push => matches!(self.link, Link::Tracking | Link::Ready),
            Message::Pong | Message::Error => self.link == Link::Ready,
        };
        if self.is_broken || !is_heard {
            return true;
        }
        match self.queue.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                *place = Some(message);
                true
            }
            None => false,
        }
    }

    fn receive(&mut self) -> Option<Message> {
        let first = self.queue[0].take();
        self.queue.rotate_left(1);
        first
    }

    /// Ends a turn: the eviction is acknowledged.
    fn finish(&mut self, turn: Turn) {
        self.promise(turn.evicted);
        self.turn = None;
    }

    fn promise(&mut self, version: Version) {
        self.promised[0] = self.promised[0].max(version);
    }

    fn without_a_link(&self) -> Self {
        Self {
            link: Link::Down,
            is_broken: false,
            queue: [None; QUEUE],
            ping: None,
            ..*self
        }
    }

    /// Returns the state a tick later. A watermark that is older than the bound stays as it is.
    fn after_a_tick(&self) -> Option<Self> {
        let mut next = *self;
        next.ticks = next.ticks.checked_sub(1)?;
        for age in (0..BOUND).rev() {
            next.promised[age + 1] = next.promised[age + 1].max(next.promised[age]);
        }
        let older = |age: u8| (age + 1).min(BOUND as u8);
        next.watermark = next.watermark.map(older);
        if let Some(ping) = &mut next.ping {
            ping.age = older(ping.age);
        }
        Some(next)
    }
}

fn as_built() -> Listening {
    Listening {
        calls: 2,
        evictions: 1,
        breaks: false,
        stalls: false,
        serves: Serves::UntilTheBoundAfterThePingWasSent,
        applies: Applies::WhenItIsRead,
        generation: Generation::AfterTrackingIsOn,
        answers: Answers::OnlyPong,
    }
}

fn breaking() -> Listening {
    Listening {
        calls: 1,
        breaks: true,
        ..as_built()
    }
}

#[test]
fn no_value_is_served_longer_than_the_bound_after_its_eviction() {
    let explored = explore(&Listening {
        evictions: 2,
        ..as_built()
    });

    explored.assert_holds(
        20_000,
        &[
            "reads a push",
            "reads an answer",
            "inserts what Redis returned",
            "loads and fills",
        ],
    );
}

#[test]
fn a_link_that_breaks_keeps_the_bound() {
    let explored = explore(&breaking());

    explored.assert_holds(
        20_000,
        &[
            "the link delivers nothing more",
            "notices that the link is gone",
            "begins to track",
            "learns that Redis tracks",
            "reads an answer",
        ],
    );
}

#[test]
fn a_redis_that_replies_before_it_broadcasts_keeps_the_bound() {
    let explored = explore(&Listening {
        stalls: true,
        ..as_built()
    });

    explored.assert_holds(5_000, &["replies during a long script", "reads an error"]);
}

#[test]
fn a_bound_that_begins_with_the_answer_is_caught() {
    let serves = Serves::UntilTheBoundAfterThePingWasAnswered;
    explore(&Listening {
        serves,
        ..breaking()
    })
    .assert_breaks(Wrong::TooOld);
}

#[test]
fn serving_while_the_link_seems_open_is_caught() {
    let serves = Serves::WhileConnected;
    explore(&Listening {
        serves,
        ..breaking()
    })
    .assert_breaks(Wrong::TooOld);
}

#[test]
fn a_push_that_is_applied_after_the_answer_behind_it_is_caught() {
    let applies = Applies::Later;
    explore(&Listening {
        applies,
        ..as_built()
    })
    .assert_breaks(Wrong::TooOld);
}

#[test]
fn a_generation_that_begins_before_redis_tracks_is_caught() {
    let generation = Generation::WhenItOpens;
    explore(&Listening {
        generation,
        ..breaking()
    })
    .assert_breaks(Wrong::StaleAtRest);
}

#[test]
fn a_new_link_that_keeps_values_certain_is_caught() {
    let generation = Generation::Never;
    explore(&Listening {
        generation,
        ..breaking()
    })
    .assert_breaks(Wrong::StaleAtRest);
}

#[test]
fn an_error_that_counts_as_an_answer_is_caught() {
    let answers = Answers::AlsoErrors;
    let stalling = Listening {
        stalls: true,
        answers,
        ..as_built()
    };

    explore(&stalling).assert_breaks(Wrong::TooOld);
}
