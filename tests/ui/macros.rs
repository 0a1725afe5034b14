//! The output of rustc for programs that use the macros. The programs in `<macro>/pass` compile without messages. Each
//! program in `<macro>/fail` has one mistake, and its messages are compared with the expected output.
//!
//! After a change, `TRYBUILD=overwrite cargo test -p ui` rewrites the outputs; then read them. `rustc-version`
//! names the compiler that wrote them.

use std::collections::HashSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;

const MACROS: [&str; 7] = [
    "cacheable",
    "cache_put",
    "cache_evict",
    "rate_limit",
    "key_part",
    "key",
    "tag",
];

/// The most lines that the output for one mistake may have.
const LONGEST: usize = 25;

/// The compiler that wrote the expected outputs. The wording of other compilers differs.
const WRITTEN_WITH: &str = include_str!("rustc-version");

/// Parts of the messages that `on_unimplemented` gives to the compiler. All other errors with a code are the compiler's own.
const OWN_MESSAGES: [&str; 4] = [
    "cannot be part of a key",
    "cannot be cached",
    "is not a TTL",
    "cannot represent a refused call",
];

/// Errors of the compiler without a code.
const COMPILER_MESSAGES: [&str; 2] = [
    "future cannot be sent between threads safely",
    "unused variable: `title`",
];

#[test]
fn programs_compile_or_fail_with_advice() {
    let version = rustc_version();
    let written_with = WRITTEN_WITH.trim();
    let is_written_with = version.starts_with(written_with);
    let cases = trybuild::TestCases::new();
    for name in MACROS {
        cases.pass(format!("{name}/pass/*.rs"));
        if is_written_with {
            cases.compile_fail(format!("{name}/fail/*.rs"));
        }
    }
    // The cases run when they are dropped.
    drop(cases);
    if !is_written_with {
        println!(
            "the outputs were written with {written_with} and this is {version}: only the first lines of the macros' own errors are compared"
        );
        for name in MACROS {
            compare_first_lines(name);
        }
    }
}

fn rustc_version() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.expect("the compiler that built this test");
    let version = String::from_utf8(version.stdout).expect("a version");
    version.trim().to_owned()
}

/// Compiles the programs that must fail, and checks the first line of each error that the macros wrote.
fn compare_first_lines(name: &str) {
    let copies = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ui").join(name);
    let wip = Path::new(env!("CARGO_MANIFEST_DIR")).join("wip");
    let _ = fs::remove_dir_all(&copies);
    let _ = fs::remove_dir_all(&wip);
    fs::create_dir_all(&copies).expect("a folder for copies");
    for output in outputs(name) {
        let program = output.with_extension("rs");
        let copy = copies.join(program.file_name().expect("a file"));
        fs::copy(&program, copy).expect("a copy of a program");
    }
    // Without an expected output, trybuild writes the actual output into `wip` and reports a failure.
    let run = catch_unwind(|| {
        trybuild::TestCases::new().compile_fail(copies.join("*.rs"));
    });
    assert!(run.is_err(), "missing outputs were accepted");

    for output in outputs(name) {
        let expected = fs::read_to_string(&output).expect("an output can be read");
        let first = expected.lines().next().expect("an output has a line");
        let is_own = match first.strip_prefix("error: ") {
            Some(error) => !COMPILER_MESSAGES.contains(&error),
            None => OWN_MESSAGES.iter().any(|message| first.contains(message)),
        };
        let found = fs::read_to_string(wip.join(output.file_name().expect("a file")));
        let found = found.unwrap_or_default();
        assert!(
            !is_own || found.lines().any(|line| line == first),
            "{}: `{first}` is not in\n{found}",
            output.display()
        );
    }
    fs::remove_dir_all(&wip).expect("the outputs were written");
}

#[test]
fn errors_are_short_and_name_no_generated_code() {
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

/// Returns the number of lines that a user sees: cargo prints a message once even if rustc emits it twice.
fn what_is_shown(output: &str) -> usize {
    let messages: HashSet<&str> = output.split("\n\n").map(str::trim).collect();
    messages.iter().map(|message| message.lines().count()).sum()
}

fn outputs(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
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
