//! How long a crate with many annotated functions builds.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::Options;
use crate::machine::{Rounds, root};
use crate::report::{Spread, Table, count};

/// The peers with an attribute, and what the table calls them. Each has the function that is repeated in `function.rs.in`, with `NUMBER`
/// for its number. The first has none.
const ANNOTATED: [(&str, &str); 7] = [
    ("bare", "none"),
    ("ours", "cache-runtime"),
    ("cached", "cached"),
    ("hitbox", "hitbox"),
    ("cachekit", "cachekit-rs"),
    ("accelerator", "accelerator"),
    ("oxcache", "oxcache"),
];
/// What separates the function that is repeated from what is before it.
const REPEATED: &str = "// Repeated:\n";
/// The type that all functions return.
const ROW: &str = include_str!("row.rs.in");
/// The dependencies whose version the workspace of the peers has.
const OF_THE_WORKSPACE: &str = r#"anyhow = "1"
serde = { version = "1", features = ["derive"] }
"#;

struct Generated {
    label: &'static str,
    folder: PathBuf,
    check: Spread,
    build: Spread,
}

pub(crate) fn measure(options: &Options) -> Result<()> {
    let functions: u32 = options.either(1_000, 200);
    println!("## Compile time\n");
    println!(
        "A library with {} annotated functions that return one type, and a function for each that boxes its future, so that its code is \
         generated. The dependencies are built, and `src/lib.rs` has changed. The profile is `dev` without incremental compilation. The \
         time per function is that with the attribute minus that without. Less is better.\n",
        count(functions.into())
    );
    let (mut crates, mut failed) = (Vec::new(), Vec::new());
    for (folder, label) in ANNOTATED {
        if options.roster.folders().contains(&folder) {
            eprintln!("the dependencies of `{folder}`");
            match prepared(folder, label, functions) {
                Ok(generated) => crates.push(generated),
                Err(error) => failed.push((label, error)),
            }
        }
    }
    let mut rounds = Rounds::default();
    for _ in 0..options.either(2, 1) {
        rounds.run(|| {
            for generated in &mut crates {
                generated.check.push(generated.cargo("check")?);
                generated.build.push(generated.cargo("build")?);
            }
            Ok(())
        })?;
    }

    let none = crates
        .first()
        .context("the functions without an attribute")?;
    let per_function = |with: &Spread, without: &Spread| {
        format!(
            "{:.1}",
            (with.median() - without.median()) * 1e3 / f64::from(functions)
        )
    };
    let mut table = Table::begin(&[
        "attribute",
        "`cargo check`, s",
        "ms per function",
        "`cargo build`, s",
        "ms per function",
    ]);
    for generated in &crates {
        table.row(
            generated.label,
            &[
                format!("{:.1}", generated.check),
                per_function(&generated.check, &none.check),
                format!("{:.1}", generated.build),
                per_function(&generated.build, &none.build),
            ],
        );
    }
    for (label, error) in &failed {
        table.missing(label, error);
    }
    table.end();
    rounds.print();
    Ok(())
}

/// Builds the dependencies, and writes the crate.
fn prepared(folder: &str, label: &'static str, functions: u32) -> Result<Generated> {
    let peer = root().join(folder);
    let generated = Generated {
        label,
        folder: root().join("target/compile").join(folder),
        check: Spread::default(),
        build: Spread::default(),
    };
    std::fs::create_dir_all(generated.folder.join("src"))?;
    let manifest = manifest(folder, &std::fs::read_to_string(peer.join("Cargo.toml"))?)?;
    std::fs::write(generated.folder.join("Cargo.toml"), manifest)?;
    let own_lock = peer.join("Cargo.lock");
    let lock = if own_lock.exists() {
        own_lock
    } else {
        root().join("Cargo.lock")
    };
    std::fs::copy(lock, generated.folder.join("Cargo.lock"))?;

    let template =
        std::fs::read_to_string(peer.join("function.rs.in")).context("function.rs.in")?;
    let (head, function) = template
        .split_once(REPEATED)
        .context("nothing is repeated")?;
    let source = generated.folder.join("src/lib.rs");
    // The dependencies are built with little else.
    std::fs::write(&source, repeated(head, function, 1))?;
    generated.cargo("check")?;
    generated.cargo("build")?;
    std::fs::write(&source, repeated(head, function, functions))?;
    Ok(generated)
}

fn repeated(head: &str, function: &str, functions: u32) -> String {
    let functions = (0..functions).map(|number| function.replace("NUMBER", &number.to_string()));
    functions.fold(format!("{head}{ROW}"), |source, function| {
        source + &function
    })
}

/// Returns a manifest with the dependencies of the peer. Their versions are those of the lock file.
fn manifest(folder: &str, peer: &str) -> Result<String> {
    let (_, dependencies) = peer
        .split_once("[dependencies]\n")
        .context("no dependencies")?;
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let mut manifest = format!(
        "[package]\nname = \"annotated-{folder}\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n{OF_THE_WORKSPACE}"
    );
    for line in dependencies.lines() {
        let name = line.split([' ', '.']).next().unwrap_or_default();
        if !["anyhow", "peer", "serde"].contains(&name) && !line.contains("workspace = true") {
            let absolute = format!("path = \"{}/", root().display());
            writeln!(manifest, "{}", line.replace("path = \"../", &absolute))?;
        }
    }
    Ok(manifest)
}

impl Generated {
    /// Returns how many seconds the command takes after a change of the source.
    fn cargo(&self, command: &str) -> Result<f64> {
        let source = self.folder.join("src/lib.rs");
        let text = std::fs::read_to_string(&source)?;
        std::fs::write(&source, text)?;
        let began = Instant::now();
        let status = Command::new("cargo")
            .args([command, "--quiet", "--offline"])
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", root().join("target/compile/target"))
            .env("CARGO_INCREMENTAL", "0")
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "`cargo {command}` failed");
        Ok(began.elapsed().as_secs_f64())
    }
}
