//! Compares the script with the functions, and both with what they promise.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};

use super::super::rule::{Algorithm, Answer, Penalties, Rule, Verdict};
use super::super::wire;
use super::{Asked, How, State, decide};
use crate::testing::RedisServer;

/// A client in Redis. The script decides at times that the test chooses.
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
        now: u64,
    ) -> Vec<Answer> {
        let reply = self.reply(client, rules, cost, how, 1, now);
        wire::answers(rules.iter(), &reply).unwrap()
    }

    /// Takes equal calls together. Returns the answers for each.
    fn batch(
        &mut self,
        client: &str,
        rules: &[Rule],
        cost: u32,
        calls: u32,
        now: u64,
    ) -> Vec<Vec<Answer>> {
        let reply = self.reply(client, rules, cost.into(), "take", calls, now);
        let batch = wire::batch(rules.iter(), calls, cost, &reply).unwrap();
        (0..calls)
            .map(|place| batch.answers(rules.iter(), place))
            .collect()
    }

    /// The states of a client.
    fn states(&mut self, client: &str, rules: &[Rule]) -> Vec<Option<Vec<u8>>> {
        let mut get = redis::cmd("MGET");
        for index in 0..rules.len() {
            get.arg(format!("{{{client}}}:{index}"));
        }
        get.query(&mut self.connection).unwrap()
    }

    fn reply(
        &mut self,
        client: &str,
        rules: &[Rule],
        cost: u64,
        how: &str,
        calls: u32,
        now: u64,
    ) -> Vec<u8> {
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("../decide.lua")).arg(rules.len());
        for index in 0..rules.len() {
            call.arg(format!("{{{client}}}:{index}"));
        }
        for rule in rules {
            call.arg(wire::rule(rule, cost));
        }
        call.arg(how).arg(calls).arg(now);
        call.query(&mut self.connection).unwrap()
    }
}

/// The same client in this process. The functions decide.
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

fn runs() -> Runs {
    Runs {
        failure_persistence: None,
        ..Runs::default()
    }
}

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

/// A step: the pause before it, as a share of the window, and the operation.
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
    /// Equal calls together.
    Batch(u32),
    Peek,
    Refund,
    Block(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        8 => Just(What::Take),
        4 => (2..9_u32).prop_map(What::Batch),
        2 => Just(What::Peek),
        2 => Just(What::Refund),
        1 => (0..5_000_u64).prop_map(What::Block),
    ];
    // Time usually advances, and sometimes goes back.
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
fn the_script_and_the_functions_give_the_same_answers_to_single_calls_and_batches() {
    let script = RefCell::new(Script::start());
    let cases = (
        proptest::collection::vec(any_rule(), 1..4),
        proptest::collection::vec(any_step(), 1..60),
    );
    let clients = Cell::new(0);
    let mut runner = TestRunner::new(runs());

    runner
        .run(&cases, |(rules, steps)| {
            let mut script = script.borrow_mut();
            clients.set(clients.get() + 1);
            let name = format!("client{}", clients.get());
            // A client whose calls never share a script.
            let single = format!("single{}", clients.get());
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
                    What::Batch(calls) => {
                        let said = script.batch(&name, &rules, cost, calls, now);
                        for said in said {
                            let meant = functions.call(&rules, cost, How::Take, now);
                            prop_assert_eq!(said, meant, "{:?}", step);
                            script.call(&single, &rules, cost.into(), "take", now);
                        }
                        let states = script.states(&name, &rules);
                        prop_assert_eq!(states, script.states(&single, &rules), "{:?}", step);
                        continue;
                    }
                    What::Refund => {
                        for client in [&name, &single] {
                            script.call(client, &rules, cost.into(), "refund", now);
                        }
                        for (rule, state) in rules.iter().zip(&mut functions.states) {
                            state.refund(rule, cost, now);
                        }
                        continue;
                    }
                    What::Block(duration) => {
                        for client in [&name, &single] {
                            script.call(client, &rules, duration, "block", now);
                        }
                        for (rule, state) in rules.iter().zip(&mut functions.states) {
                            state.block(rule, duration, now);
                        }
                        continue;
                    }
                };
                let said = script.call(&name, &rules, cost.into(), word, now);
                script.call(&single, &rules, cost.into(), word, now);
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

/// Numbers that a writer to Redis may leave: those that scripts write, and invalid ones.
fn any_number() -> impl Strategy<Value = f64> {
    let near = (-200_000..200_000_i64).prop_map(|off| (START as i64 + off) as f64);
    prop_oneof![
        6 => near,
        3 => (0..200_u32).prop_map(f64::from),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => prop::sample::select(vec![0.0, -1.0, 0.5, 1e300, -1e300, 9_007_199_254_740_992.0, 1.8e19]),
        2 => any::<f64>(),
    ]
}

/// A state that another program may have written: of any kind and length, with any numbers.
fn any_written() -> impl Strategy<Value = Vec<u8>> {
    let head = (prop_oneof![1..4_u8, 17..20_u8, any::<u8>()], any_number());
    let record = proptest::option::of((any::<u8>(), any_number(), any_number(), any_number()));
    let doubles = proptest::collection::vec(any_number(), 0..4);
    let units = proptest::collection::vec(prop_oneof![0..100_u32, any::<u32>()], 0..20);
    let cut = prop_oneof![5 => Just(0_usize), 1 => 0..20_usize];
    (head, record, doubles, units, cut).prop_map(|((kind, ends), record, doubles, units, cut)| {
        let mut state = vec![kind];
        state.extend(ends.to_le_bytes());
        if let Some((strikes, struck, till, block)) = record {
            state.push(strikes);
            for number in [struck, till, block] {
                state.extend(number.to_le_bytes());
            }
        }
        state.extend(doubles.into_iter().flat_map(f64::to_le_bytes));
        state.extend(units.into_iter().flat_map(u32::to_le_bytes));
        state.truncate(state.len().saturating_sub(cut));
        state
    })
}

#[test]
fn answers_for_a_foreign_state_stay_within_valid_bounds() {
    let script = RefCell::new(Script::start());
    let clients = Cell::new(0);
    let how = prop::sample::select(vec!["take", "peek", "refund"]);
    let cases = (any_rule(), any_written(), how, 0..3_u32, 2..6_u32);
    let mut runner = TestRunner::new(Runs {
        cases: 2_000,
        ..runs()
    });

    runner
        .run(&cases, |(rule, written, how, cost, calls)| {
            let mut script = script.borrow_mut();
            clients.set(clients.get() + 1);
            let name = format!("client{}", clients.get());
            let cost = cost.min(rule.limit);
            let key = format!("{{{name}}}:0");
            let () = redis::cmd("SET")
                .arg(&key)
                .arg(&written)
                .query(&mut script.connection)
                .unwrap();

            let mut said = script.call(&name, &[rule], cost.into(), how, START);
            if how == "take" && cost > 0 {
                let () = redis::cmd("SET")
                    .arg(&key)
                    .arg(&written)
                    .query(&mut script.connection)
                    .unwrap();
                said.extend(script.batch(&name, &[rule], cost, calls, START).concat());
            }

            let longest = super::MAX_BLOCK + 2 * rule.span();
            for answer in &said {
                prop_assert!(answer.retry <= longest, "{answer:?}");
                prop_assert!(answer.more <= longest, "{answer:?}");
                prop_assert!(answer.standing.blocked <= longest, "{answer:?}");
            }
            // The process adopts the state and decides by it without an overflow.
            for may_shrink in [false, true] {
                let mut state = State::new(rule.algorithm);
                state.add(&rule, 1, START);
                state.adopt(&rule, &said[0], START, may_shrink);
                for now in [0, START - 5_000, START, START + 5_000, START + longest] {
                    let mut asked = [Asked {
                        rule,
                        state: &mut state,
                        pending: 1,
                    }];
                    decide(&mut asked, cost, now, How::Take);
                    state.refund(&rule, cost, now);
                    state.is_idle(&rule, now);
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn an_ended_block_stays_ended_when_the_clock_goes_back() {
    let rule = Rule {
        algorithm: Algorithm::SlidingLog,
        limit: 2,
        window: 1_000,
        penalties: None,
    };
    let mut script = Script::start();
    let mut functions = Functions::new(&[rule]);
    for duration in [500, 0] {
        script.call("client", &[rule], duration, "block", START);
        functions.states[0].block(&rule, duration, START);
    }

    let earlier = START - 2;
    let said = script.call("client", &[rule], 1, "take", earlier);
    let meant = functions.call(&[rule], 1, How::Take, earlier);

    assert_eq!(said[0].verdict, Verdict::Fits);
    assert_eq!(said, meant);
}

/// Returns the most units that any window holds of these, which are sorted by their times.
fn fullest_window(admitted: &[(u64, u32)], window: u64) -> u64 {
    let holds = |from: usize| {
        let end = admitted[from].0 + window;
        let inside = admitted[from..].iter().take_while(|(at, _)| *at < end);
        inside.map(|(_, units)| u64::from(*units)).sum()
    };
    (0..admitted.len()).map(holds).max().unwrap_or_default()
}

/// The promise of each algorithm: the most units in any window.
fn most_in_a_window(rule: &Rule) -> u64 {
    let (limit, window) = (u64::from(rule.limit), rule.window);
    match rule.algorithm {
        Algorithm::SlidingLog | Algorithm::SlidingBuckets => limit,
        Algorithm::Gcra => limit + limit * (window - 1) / window,
    }
}

fn any_rule_without_penalties() -> impl Strategy<Value = Rule> {
    (any_rule(), prop_oneof![3 => 1..12_u32, 1 => 1..400_u32]).prop_map(|(rule, limit)| Rule {
        limit,
        penalties: None,
        ..rule
    })
}

#[test]
fn no_window_holds_more_than_an_algorithm_promises() {
    // Pauses in parts of the time that one unit takes, so that the bucket of a Gcra is often just full enough.
    let call = (0..40_u64, 1..5_u32);
    let calls = proptest::collection::vec(call, 1..400);

    proptest!(runs(), |(rule in any_rule_without_penalties(), calls in calls)| {
        let mut functions = Functions::new(&[rule]);
        let (mut now, mut admitted) = (START, Vec::new());
        for (pause, cost) in calls {
            now += pause * rule.window / u64::from(rule.limit) / 16;
            let cost = cost.min(rule.limit);
            let answer = functions.call(&[rule], cost, How::Take, now)[0];
            if answer.verdict == Verdict::Fits {
                admitted.push((now, cost));
            }
        }

        prop_assert!(fullest_window(&admitted, rule.window) <= most_in_a_window(&rule));
    });
}

#[test]
fn a_client_of_a_gcra_can_reach_what_it_promises() {
    proptest!(runs(), |(rule in any_rule_without_penalties())| {
        let rule = Rule { algorithm: Algorithm::Gcra, ..rule };
        let mut functions = Functions::new(&[rule]);
        let (mut now, mut admitted) = (START, 0);
        // Each unit as soon as there is one, up to the end of the first window.
        while now < START + rule.window {
            let answer = functions.call(&[rule], 1, How::Take, now)[0];
            match answer.verdict {
                Verdict::Fits => admitted += 1,
                _ => now += answer.retry,
            }
        }

        prop_assert_eq!(admitted, most_in_a_window(&rule));
    });
}
