//! What a pattern removes in a real Redis, for random names and prefixes.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::AsyncCommands;

use crate::support::{connect, raw, server};

/// Few letters, so that patterns often match; all special characters of Redis globs; and a character longer than 1 byte.
fn name() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[ab:é\\[\\]\\\\^*?-]{1,6}").expect("a valid expression")
}

fn prefix() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[ab^{-]{1,3}_").expect("a valid expression")
}

/// Returns whether a name matches, by the simplest possible matcher.
fn is_meant(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=name.len()).any(|taken| is_meant(rest, &name[taken..])),
        (['?', rest @ ..], [_, tail @ ..]) => is_meant(rest, tail),
        ([letter, rest @ ..], [first, tail @ ..]) => letter == first && is_meant(rest, tail),
        _ => false,
    }
}

#[test]
fn a_pattern_removes_exactly_what_it_matches_under_its_prefix() {
    let server = server();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut runner = TestRunner::new(Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let strategy = (
        prefix(),
        prefix(),
        name(),
        proptest::collection::btree_set(name(), 1..12),
    );

    let result = runner.run(&strategy, |(prefix, other, pattern, names)| {
        runtime.block_on(async {
            let cache = connect(server.config().prefix(&prefix).pool_min(1)).await;
            let mut raw = raw(&server).await;
            // Only entries are removed, so every name holds the bytes of an entry.
            assert!(cache.set("entry", &1, 60_u64).await);
            let entry: Vec<u8> = raw.get_del(format!("{prefix}entry")).await.expect("GETDEL");
            for name in &names {
                let () = raw
                    .set(format!("{prefix}{name}"), &entry)
                    .await
                    .expect("SET");
                let () = raw
                    .set(format!("{other}{name}"), &entry)
                    .await
                    .expect("SET");
            }
            let letters: Vec<char> = pattern.chars().collect();
            let meant: BTreeSet<String> = raw
                .keys::<_, Vec<String>>("*")
                .await
                .expect("KEYS")
                .into_iter()
                .filter(|key| {
                    key.strip_prefix(&prefix)
                        .is_some_and(|name| is_meant(&letters, &name.chars().collect::<Vec<_>>()))
                })
                .collect();
            let before: BTreeSet<String> = raw.keys("*").await.expect("KEYS");

            let _ = cache.delete_matching(&pattern).await;

            let after: BTreeSet<String> = raw.keys("*").await.expect("KEYS");
            let removed: BTreeSet<String> = before.difference(&after).cloned().collect();
            let () = redis::cmd("FLUSHALL")
                .query_async(&mut raw)
                .await
                .expect("FLUSHALL");
            prop_assert_eq!(removed, meant);
            Ok(())
        })
    });

    if let Err(failure) = result {
        panic!("{failure}");
    }
}
