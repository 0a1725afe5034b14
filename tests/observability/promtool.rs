//! The real promtool, which Prometheus itself checks metrics and rules with.

use std::env;
use std::io::{ErrorKind, Write};
use std::process::{Command, Output, Stdio};

/// Runs promtool and returns what it wrote. The test fails if promtool is missing or finds anything.
pub(crate) fn promtool(arguments: &[&str], input: &str) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = run(arguments, input);
    let written = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let written = written.concat();
    assert!(
        status.success(),
        "`promtool {}` found problems ({status}):\n{written}\nin:\n{input}",
        arguments.join(" ")
    );
    written
}

fn run(arguments: &[&str], input: &str) -> Output {
    let program = env::var("CACHE_TEST_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => panic!(
            "`{program}` is missing: install the package `prometheus`, or run `tests/run`, which does it; \
             CACHE_TEST_PROMTOOL can name another path"
        ),
        Err(error) => panic!("`{program}` does not start: {error}"),
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(input.as_bytes())
        .expect("promtool reads its input");
    drop(stdin);
    child.wait_with_output().expect("promtool ends")
}
