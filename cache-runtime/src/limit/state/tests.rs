//! The script and the functions against each other, and each against what it promises.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};

use super::super::rule::{Algorithm, Answer, Penalties, Rule};
use super::super::wire;
use super::{Asked, How, State, decide};
use crate::testing::RedisServer;

/// A client in Redis, asked by the script alone, at times that the test chooses.
struct Script {
    connection: redis::Connection,
    _server: RedisServer,
}

impl Script {
    fn start() -> Self {
        let server = RedisServer::start().unwrap();
        let connection = redis::Client::open(server.url())
            .unwrap()
            .get_connection()
            .unwrap();
        Self {
            connection,
            _server: server,
        }
    }

    fn call(
        &mut self,
        client: &str,
        rules: &[Rule],
        cost: u64,
        how: &str,
        now: Option<u64>,
    ) -> Vec<Answer> {
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("../decide.lua")).arg(rules.len());
        for index in 0..rules.len() {
            call.arg(format!("{{{client}}}:{index}"));
        }
        for rule in rules {
            call.arg(wire::rule(rule, cost));
        }
        call.arg(how);
        if let Some(now) = now {
            call.arg(now);
        }
        let reply: Vec<u8> = call.query(&mut self.connection).unwrap();
        wire::answers(rules.iter(), &reply).unwrap()
    }
}

/// The same client in this process.
struct Functions {
    states: Vec<State>,
}

impl Functions {
    fn new(rules: &[Rule]) -> Self {
        Self {
            states: rules
                .iter()
                .map(|rule| State::new(rule.algorithm))
                .collect(),
        }
    }

    fn call(&mut self, rules: &[Rule], cost: u32, how: How, now: u64) -> Vec<Answer> {
        let mut asked: Vec<_> = rules
            .iter()
            .zip(&mut self.states)
            .map(|(rule, state)| Asked {
                rule: *rule,
                state,
                pending: 0,
            })
            .collect();
        decide(&mut asked, cost, now, how)
    }
}

const START: u64 = 1_790_000_000_000;

fn any_rule() -> impl Strategy<Value = Rule> {
    let algorithm = prop_oneof![
        Just(Algorithm::SlidingLog),
        Just(Algorithm::SlidingBuckets),
        Just(Algorithm::Gcra),
    ];
    let window = prop_oneof![1..100_u64, 1_000..100_000_u64, Just(31 * 86_400_000)];
    let penalties = proptest::option::of((1..5_000_u64, 1..20_000_u64, 1..50_000_u64));
    (algorithm, 1..12_u32, window, penalties).prop_map(|(algorithm, limit, window, penalties)| {
        Rule {
            algorithm,
            limit,
            window,
            penalties: penalties.map(|(first, longest, forgive_after)| Penalties {
                first,
                longest,
                forgive_after,
            }),
        }
    })
}

/// One step: how much later than a share of the window, and what is done then.
#[derive(Clone, Copy, Debug)]
struct Step {
    later: i64,
    share: u64,
    cost: u32,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Take,
    Peek,
    Block(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        12 => Just(What::Take),
        2 => Just(What::Peek),
        1 => (0..5_000_u64).prop_map(What::Block),
    ];
    // Mostly on, now and then back.
    let later = prop_oneof![10 => 0..30_i64, 2 => 0..3_000_i64, 1 => -2_000..0_i64, 1 => Just(-3_600_000_i64)];
    let share = prop_oneof![6 => Just(0_u64), 2 => 1..5_u64, 1 => 5..30_u64];
    let cost = prop_oneof![8 => Just(1_u32), 1 => Just(0_u32), 2 => 1..5_u32];
    (later, share, cost, what).prop_map(|(later, share, cost, what)| Step {
        later,
        share,
        cost,
        what,
    })
}

#[test]
fn the_script_and_the_functions_say_the_same() {
    let script = RefCell::new(Script::start());
    let cases = (
        proptest::collection::vec(any_rule(), 1..4),
        proptest::collection::vec(any_step(), 1..60),
    );
    let clients = Cell::new(0);
    let mut runner = TestRunner::new(Runs {
        failure_persistence: None,
        ..Runs::default()
    });

    runner
        .run(&cases, |(rules, steps)| {
            let mut script = script.borrow_mut();
            clients.set(clients.get() + 1);
            let name = format!("client{}", clients.get());
            let mut functions = Functions::new(&rules);
            let mut now = START;
            for step in steps {
                let later = step.later + (rules[0].window * step.share / 8) as i64;
                now = now.checked_add_signed(later).unwrap();
                let cost = rules
                    .iter()
                    .map(|rule| step.cost.min(rule.limit))
                    .min()
                    .unwrap();
                let (how, word) = match step.what {
                    What::Take => (How::Take, "take"),
                    What::Peek => (How::Peek, "peek"),
                    What::Block(duration) => {
                        script.call(&name, &rules, duration, "block", Some(now));
                        for (rule, state) in rules.iter().zip(&mut functions.states) {
                            state.block(rule, duration, now);
                        }
                        continue;
                    }
                };
                let said = script.call(&name, &rules, cost.into(), word, Some(now));
                let meant = functions.call(&rules, cost, how, now);
                prop_assert_eq!(
                    said,
                    meant,
                    "{:?} at {} after the start",
                    step,
                    now.wrapping_sub(START) as i64
                );
            }
            Ok(())
        })
        .unwrap();
}
