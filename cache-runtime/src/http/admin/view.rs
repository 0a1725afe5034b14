//! Everything that the page shows, as one value: for the first paint, and then once per second.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::access::{Access, AdminRole};
use super::{Shared, history};
use crate::catalog::Function;
use crate::metrics::{Counts, STEPS};

/// Hot keys on the page.
const HOT: usize = 10;

/// Returns the view for a client with this role.
pub(super) async fn view_for(shared: &Arc<Shared>, role: AdminRole) -> Value {
    let mut view = view(shared).await;
    view["role"] = role.name().into();
    view
}

/// Returns what is the same for all clients.
pub(super) async fn view(shared: &Arc<Shared>) -> Value {
    shared.history.look();
    let cache = &shared.cache;
    cache.hot_keys().set(true);
    let health = shared.health().await;
    let stats = cache.stats();
    let config = cache.config();
    let rates = shared.history.hit_rates();
    let catalog = &shared.catalog;
    let mut known = HashSet::new();
    let mut functions = Vec::new();
    for site in &stats.sites {
        let function = (site.name, site.template);
        known.insert(function);
        let mut annotated = catalog.functions.iter();
        // Without an attribute there are the methods of the cache, and what limits and sessions do with Redis.
        let role = match annotated.find(|known| (known.name, known.template) == function) {
            Some(known) => role_of(known),
            None if site.name == "Cache" => "stores",
            None if site.counts.evictions > 0 => "evicts",
            None => continue,
        };
        let rates = rates.get(&function);
        functions.push(row(function, role, Some(&site.counts), rates));
    }
    let uncalled = catalog.functions.iter().filter(|_| cache.is_used());
    for annotated in uncalled {
        let function = (annotated.name, annotated.template);
        if known.insert(function) {
            functions.push(row(function, role_of(annotated), None, None));
        }
    }
    // Functions that are used, the busiest first, then the others in the order of the source text.
    functions.sort_by_key(|row| std::cmp::Reverse(row["operations"].as_u64()));
    let slow = cache.slow_operations().into_iter().map(|slow| {
        let ago = slow.at.elapsed().as_secs_f64();
        let mut slow = data(slow);
        slow["seconds_ago"] = ago.into();
        slow
    });
    let jobs = shared.config.jobs.iter().map(|job| job.report());
    json!({
        "environment": config.environment.name(),
        "prefix": config.prefix,
        "process": std::process::id(),
        "uptime_seconds": stats.uptime_seconds,
        "health": health,
        "hit_rate": stats.total.hit_rate,
        "operations_per_minute": stats.total.operations_per_minute,
        "saved_seconds": functions.iter().filter_map(|row| row["saved_seconds"].as_f64()).sum::<f64>(),
        "fallback": stats.fallback,
        "functions": functions,
        "periods": shared.history.periods(),
        "latency": {
            "steps": STEPS.map(|(_, name)| name),
            "samples": shared.history.heat(),
            "kept": history::KEPT,
        },
        "slow_ms": config.slow_threshold.as_secs_f64() * 1_000.0,
        "slow": slow.collect::<Vec<_>>(),
        "hot": cache.hot_keys().top(&config.prefix, HOT),
        "redis": stats.redis,
        "memory": stats.memory,
        "pool": stats.pool,
        "loads_waiting": stats.loads_waiting,
        "limits": stats.limits,
        "sessions": stats.sessions,
        "can": {
            "log_out": matches!(shared.config.access, Access::Tokens { .. }),
            "limits": shared.config.limiter.is_some(),
            "sessions": has_sessions(shared),
            "values": shared.config.shows_values,
        },
        "off": cache.patterns_off(),
        "jobs": jobs.collect::<Vec<_>>(),
    })
}

#[cfg(feature = "sessions")]
fn has_sessions(shared: &Shared) -> bool {
    shared.config.sessions.is_some()
}

#[cfg(not(feature = "sessions"))]
fn has_sessions(_: &Shared) -> bool {
    false
}

fn role_of(function: &Function) -> &'static str {
    match function.stores {
        Some(_) => "stores",
        None => "evicts",
    }
}

fn row(
    (function, cache): history::Function,
    role: &str,
    counts: Option<&Counts>,
    rates: Option<&Vec<i32>>,
) -> Value {
    let Some(counts) = counts else {
        return json!({ "function": function, "cache": cache, "role": role, "gets": 0, "hits": 0, "misses": 0, "operations": 0, "evictions": 0, "evicted_keys": 0, "rates": [] });
    };
    json!({
        "function": function,
        "cache": cache,
        "role": role,
        "gets": counts.gets,
        "hits": counts.hits,
        "misses": counts.misses,
        "misses_by_reason": counts.misses_by_reason,
        "hit_rate": counts.hit_rate,
        "operations": counts.operations,
        "operations_per_minute": counts.operations_per_minute,
        "hit_p50_micros": counts.hit_time.p50_micros,
        "hit_p99_micros": counts.hit_time.p99_micros,
        "load_p50_micros": counts.load_time.p50_micros,
        "load_p99_micros": counts.load_time.p99_micros,
        "saved_seconds": saved_seconds(counts),
        "evictions": counts.evictions,
        "evicted_keys": counts.evicted_keys,
        "rates": rates,
    })
}

/// Returns how much longer the hits would have taken as loads. Hits in the process are not timed and count as 0 s. [`None`] while no load was timed. A negative result is a cache that
/// costs time.
fn saved_seconds(counts: &Counts) -> Option<f64> {
    let load = counts.load_time.average_micros?;
    let hit = counts.hit_time.average_micros.unwrap_or_default();
    let hits = counts.hit_time.count as f64 * hit;
    Some((counts.hits as f64 * load - hits) / 1e6)
}

/// These types have texts as keys, so they always become JSON.
pub(super) fn data(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
