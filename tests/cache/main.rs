//! What a cache does with a real Redis: hits and misses, stampedes, outages, evictions, puts.

mod acl;
mod by_hand;
mod claims;
mod connections;
mod consistency;
mod credentials;
mod deadlines;
mod durability;
mod events;
mod fallback;
mod futurelock;
mod keys;
mod local;
#[path = "../../cache-runtime/src/testing/log.rs"]
mod log;
mod ops;
mod overload;
mod patterns;
mod pipeline;
mod prefixes;
mod refusals;
mod scopes;
mod sentinels;
#[path = "../../cache-runtime/src/testing/shared.rs"]
mod shared;
mod stampede;
mod storm;
mod support;
mod tags;
mod values;
mod warming;

use cache_runtime::testing::{Cluster, RedisServer};
use cache_runtime::{AclPart, Config};
