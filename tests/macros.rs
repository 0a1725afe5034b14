//! What rustc says about programs that use the macros: those in `ui/<macro>/pass` compile without a word, those in
//! `ui/<macro>/fail` make one mistake each and are told so.
//!
//! After a change, `TRYBUILD=overwrite cargo test -p tests --test macros` writes the outputs anew; then read them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

const MACROS: [&str; 5] = [
    "cacheable",
    "cache_put",
    "cache_evict",
    "rate_limit",
    "key_part",
];

/// The most lines that one mistake may take to explain.
const LONGEST: usize = 25;

#[test]
fn programs_compile_or_are_refused_with_advice() {
    let cases = trybuild::TestCases::new();
    for name in MACROS {
        cases.pass(format!("ui/{name}/pass/*.rs"));
        cases.compile_fail(format!("ui/{name}/fail/*.rs"));
    }
}

#[test]
fn errors_are_short_and_speak_of_the_users_code() {
    let outputs: Vec<PathBuf> = MACROS.iter().flat_map(|name| outputs(name)).collect();

    assert!(
        outputs.len() > 50,
        "only {} outputs were found",
        outputs.len()
    );
    for path in outputs {
        let output = fs::read_to_string(&path).expect("an output can be read");
        let lines = what_is_shown(&output);
        assert!(lines <= LONGEST, "{} has {lines} lines", path.display());
        assert!(
            !output.contains("__private"),
            "{} mentions `__private`",
            path.display()
        );
        for generated in ["__cache", "__limit", "__LIMIT"] {
            assert!(
                !output.contains(generated),
                "{} mentions a generated name",
                path.display()
            );
        }
    }
}

/// The lines that a user sees: cargo shows a message once that rustc says twice.
fn what_is_shown(output: &str) -> usize {
    let messages: HashSet<&str> = output.split("\n\n").map(str::trim).collect();
    messages.iter().map(|message| message.lines().count()).sum()
}

fn outputs(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("ui")
        .join(name)
        .join("fail");
    fs::read_dir(folder)
        .expect("the folder exists")
        .map(|entry| entry.expect("its entries can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "stderr")
        })
        .collect()
}
