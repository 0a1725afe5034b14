//! What looks wrong about a call, from the attributes of the program and from the counters of its function.

use std::time::Duration;

use super::ExplainWarning;
use crate::catalog::{self, Evictors, TargetKind};
use crate::metrics::{SiteMetrics, Timer};
use crate::site::{Role, Site};

/// So many events say something about a function.
const ENOUGH: u64 = 3;

/// So many hits and loads have a median that says something.
const ENOUGH_TIMES: u64 = 10;

/// The number of functions that a message names. The rest are counted.
const NAMED: usize = 3;

/// Returns the warnings about a call of this function.
pub(super) fn of(
    site: &'static Site,
    metrics: Option<&SiteMetrics>,
    evictors: &Evictors,
) -> Vec<ExplainWarning> {
    // A method of a cache.
    if site.template.is_empty() {
        return Vec::new();
    }
    let of_metrics = |check: fn(&SiteMetrics) -> Option<ExplainWarning>| metrics.and_then(check);
    let found = match site.role {
        Role::Reads | Role::Puts => [
            not_evicted(site, evictors),
            of_metrics(load_is_faster),
            of_metrics(value_differs),
            of_metrics(ttl_is_too_long),
            evicted_by_patterns(site, evictors),
        ],
        Role::Evicts { .. } | Role::Clears => [walks_the_keyspace(site), None, None, None, None],
    };
    found.into_iter().flatten().collect()
}

/// Of any TTL, because a person who asks sees old data now. The finding `never-evicted` is only about entries that live long.
fn not_evicted(site: &'static Site, evictors: &Evictors) -> Option<ExplainWarning> {
    if evictors.is_renewed(site) {
        return None;
    }
    Some(ExplainWarning {
        code: "not-evicted",
        message: format!(
            "no function evicts or puts `{}` by a key, a pattern or a tag",
            site.template
        ),
        advice: "callers see a change only when the TTL ends: add `#[cache_evict]` to the functions that change this data, or \
                 keep the TTL as short as the data may be old",
    })
}

fn load_is_faster(metrics: &SiteMetrics) -> Option<ExplainWarning> {
    let (hits, loads) = (metrics.times(Timer::Hit), metrics.times(Timer::Load));
    let is_known = hits.count >= ENOUGH_TIMES && loads.count >= ENOUGH_TIMES;
    let (hit, load) = (hits.p50_micros?, loads.p50_micros?);
    (is_known && load <= hit).then(|| ExplainWarning {
        code: "load-is-faster",
        message: format!("the body takes {load:.0} µs, and a hit takes {hit:.0} µs (medians)"),
        advice: "the cache makes this function slower: remove the attribute, unless it protects what the body calls",
    })
}

fn value_differs(metrics: &SiteMetrics) -> Option<ExplainWarning> {
    let reloads = metrics.reloads();
    let is_usual = reloads.count >= ENOUGH && reloads.changed == reloads.count;
    is_usual.then(|| ExplainWarning {
        code: "value-differs",
        message: format!(
            "the value differs at every load: {} of {} repeated loads returned another value than the load of the same key before",
            reloads.changed, reloads.count
        ),
        advice: "if the data did not change as often, the value contains something that does, such as the time, a random number \
                 or a list without an order: remove it from the value",
    })
}

fn ttl_is_too_long(metrics: &SiteMetrics) -> Option<ExplainWarning> {
    let reloads = metrics.reloads();
    let is_usual = reloads.early >= ENOUGH && 2 * reloads.early >= reloads.count;
    is_usual.then(|| {
        let average = |sum: Duration| sum.as_secs_f64() / reloads.early as f64;
        ExplainWarning {
            code: "ttl-too-long",
            message: format!(
                "the TTL is longer than entries live: {} of {} repeated loads found the entry gone, after {:.1} s instead of {:.1} s \
                 on average",
                reloads.early,
                reloads.count,
                average(reloads.lived),
                average(reloads.expected),
            ),
            advice: "find what removes the entries: an eviction that names more keys than have changed, or Redis itself, if its \
                     memory is full (`cache_redis_evicted_keys_total`)",
        }
    })
}

fn evicted_by_patterns(site: &'static Site, evictors: &Evictors) -> Option<ExplainWarning> {
    let mut walking = evictors.of(site);
    // With `all_entries` every function of the program would have the same warning.
    walking.retain(|eviction| eviction.target.kind == TargetKind::Pattern);
    let mut named: Vec<_> = walking
        .iter()
        .take(NAMED)
        .map(|eviction| {
            format!(
                "`{}` with `{}`",
                eviction.function, eviction.target.template
            )
        })
        .collect();
    if walking.len() > NAMED {
        named.push(format!("{} more", walking.len() - NAMED));
    }
    (!walking.is_empty()).then(|| by_pattern(format!("evicted by {}", named.join(", "))))
}

fn walks_the_keyspace(site: &'static Site) -> Option<ExplainWarning> {
    let targets: Vec<_> = catalog::targets(site)
        .iter()
        .filter(|target| target.kind.scans())
        .map(|target| format!("`{}`", target.template))
        .collect();
    (!targets.is_empty()).then(|| by_pattern(format!("evicts {}", targets.join(", "))))
}

fn by_pattern(what: String) -> ExplainWarning {
    ExplainWarning {
        code: "scans-keyspace",
        message: format!("{what}, which walks the whole keyspace"),
        advice: "each such eviction takes longer the more keys Redis holds: name the keys that change, if they are known",
    }
}
