//! The catalog as a table for people.

use std::fmt;
use std::time::Duration;

use super::{Attribute, Catalog, Eviction, Function, Stores, Target, TargetKind, TtlFrom};

/// The lines of one cell.
type Cell = Vec<String>;

/// Between columns.
const GAP: &str = "  ";

impl fmt::Display for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            functions,
            findings,
        } = self;
        let mut rows = vec![header([
            "STORES",
            "AS",
            "KEY AND TAGS",
            "VALUE",
            "TTL",
            "EVICTED BY",
        ])];
        rows.extend(functions.iter().filter_map(stored));
        write_rows(f, &rows)?;
        let mut rows = vec![header(["EVICTS", "TARGET", "ENTRIES OF"])];
        rows.extend(functions.iter().filter_map(evicting));
        writeln!(f)?;
        write_rows(f, &rows)?;
        writeln!(f)?;
        match findings.as_slice() {
            [] => writeln!(f, "no findings"),
            [_] => writeln!(f, "1 finding"),
            findings => writeln!(f, "{} findings", findings.len()),
        }?;
        for finding in findings {
            writeln!(f, "{finding}")?;
        }
        Ok(())
    }
}

fn header<const N: usize>(names: [&str; N]) -> [Cell; N] {
    names.map(|name| vec![name.to_owned()])
}

fn stored(function: &Function) -> Option<[Cell; 6]> {
    let stores = function.stores.as_ref()?;
    let names = function.targets.iter();
    let evicted_by = function.evicted_by.iter();
    Some([
        place(function),
        vec![function.attribute.to_string()],
        names.map(|name| marked(name.template, name)).collect(),
        vec![stores.value.to_owned()],
        times(function, stores),
        evicted_by
            .map(|Eviction { function, target }| marked(function, target))
            .collect(),
    ])
}

fn evicting(function: &Function) -> Option<[Cell; 3]> {
    let targets = function.targets.iter();
    (function.attribute == Attribute::CacheEvict).then(|| {
        [
            place(function),
            targets
                .map(|target| marked(target.template, target))
                .collect(),
            function
                .evicts
                .iter()
                .map(|&name| name.to_owned())
                .collect(),
        ]
    })
}

fn place(function: &Function) -> Cell {
    let Function {
        name, file, line, ..
    } = function;
    vec![(*name).to_owned(), format!("  {file}:{line}")]
}

fn marked(text: &str, target: &Target) -> String {
    match target.kind {
        TargetKind::Key => text.to_owned(),
        TargetKind::Tag => format!("{text} (tag)"),
        TargetKind::Pattern | TargetKind::All => format!("{text} (scan)"),
    }
}

fn times(function: &Function, stores: &Stores) -> Cell {
    let Stores {
        value: _,
        ttl_seconds,
        ttl_from,
        none_ttl_seconds,
        grace_seconds,
        ttl_jitter: _,
        refreshes_in_background,
        local_seconds,
        serves_local_in_outage,
        policy,
        version,
    } = stores;
    let ttl = ttl_seconds.map(time).unwrap_or_default();
    let mut lines = vec![match ttl_from {
        TtlFrom::Attribute => ttl,
        TtlFrom::Policy => format!("{ttl} (policy)"),
        TtlFrom::Default => format!("{ttl} (default)"),
        TtlFrom::Computed => "computed".to_owned(),
        TtlFrom::OwnCache => "of its cache".to_owned(),
    }];
    lines.extend(none_ttl_seconds.map(|none_ttl| format!("none {}", time(none_ttl))));
    lines.extend(grace_seconds.map(|grace| format!("grace {}", time(grace))));
    lines.extend(local_seconds.map(|local| match serves_local_in_outage {
        true => format!("local {}, also in an outage", time(local)),
        false => format!("local {}", time(local)),
    }));
    lines.extend(policy.map(|policy| format!("policy {policy}")));
    if *refreshes_in_background {
        lines.push("background refresh".to_owned());
    }
    if *version > 0 {
        lines.push(format!("version {version}"));
    }
    if function.has_own_cache {
        lines.push("own cache".to_owned());
    }
    lines
}

/// Returns a duration as people write it.
pub(super) fn time(seconds: f64) -> String {
    let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    humantime::format_duration(time).to_string()
}

fn write_rows<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[Cell; N]]) -> fmt::Result {
    let width = |column: usize| {
        let lines = rows.iter().flat_map(|row| &row[column]);
        lines.map(|line| line.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let height = row.iter().map(Vec::len).max().unwrap_or(0);
        for at in 0..height {
            let cells = row.iter().zip(widths).map(|(cell, width)| {
                let line = cell.get(at).map_or("", String::as_str);
                format!("{line:width$}")
            });
            let line = cells.collect::<Vec<_>>().join(GAP);
            writeln!(f, "{}", line.trim_end())?;
        }
    }
    Ok(())
}
