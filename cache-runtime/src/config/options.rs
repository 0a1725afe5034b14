//! The table of all single-value options: name, allowed values, notation.
//!
//! The variables of the environment, configuration files, the check of the limits and the print-out all follow this
//! table.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::redis::{is_host_and_port, mapped};
use super::{Address, Config, EvictDurability, durability, text};
use crate::key::reserved_root;

/// A plain option. Its name is that of the field, and its variable that name in capitals behind `CACHE_`.
pub(super) struct Setting {
    pub(super) name: &'static str,
    field: fn(&mut Config) -> Field<'_>,
}

/// The field of an option with what may be in it.
enum Field<'a> {
    Text(&'a mut String, Rule),
    Patterns(&'a mut Vec<String>),
    /// Pairs of addresses.
    Map(&'a mut Vec<(Address, Address)>),
    Duration(&'a mut Duration, RangeInclusive<Duration>),
    /// A duration, or `None` if it is not set.
    Optional(&'a mut Option<Duration>, RangeInclusive<Duration>),
    Count(&'a mut usize, RangeInclusive<usize>),
    Bytes(&'a mut usize, RangeInclusive<usize>),
    Percent(&'a mut u8, RangeInclusive<u8>),
    /// A count, or none for no limit.
    Limit(&'a mut Option<u32>),
    Switch(&'a mut bool),
    /// A switch, or `None` for the default of the environment.
    Auto(&'a mut Option<bool>),
    Durability(&'a mut EvictDurability),
}

/// A rule for text: a test, and its description.
type Rule = (fn(&str) -> bool, &'static str);

const PREFIX: Rule = (
    |text| {
        !text.is_empty()
            && !text.contains(|c: char| "*?[]\\".contains(c) || c.is_whitespace() || c.is_control())
    },
    "non-empty text such as `dev_`, without white space, `*`, `?`, `[`, `]` and `\\`",
);

/// `CLIENT SETNAME` accepts no other.
const CLIENT_NAME: Rule = (
    |text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()),
    "non-empty ASCII text such as `cache-runtime`, without white space",
);

const PATTERN: Rule = (
    |text| {
        !text.is_empty()
            && text.len() <= 512
            && !text.contains(|c: char| c.is_whitespace() || c.is_control())
            && reserved_root(text).is_none()
    },
    "patterns such as `event:*,user:profile:*`, without white space, that do not start with `session:`, `sessions:`, \
     `ratelimit:` or `cache:`",
);

/// Redis keeps times in milliseconds.
const MIN_TIME: Duration = Duration::from_millis(1);

/// 100 years, as `100years` is read. A point in time that is much further away cannot be computed.
const MAX_TIME: Duration = Duration::from_secs(100 * 365 * 86_400 + 25 * 86_400);

pub(super) const TIME_RANGE: RangeInclusive<Duration> = MIN_TIME..=MAX_TIME;

/// A TTL that is shortened by more is a different TTL.
const MAX_JITTER: u8 = 50;

/// The largest string that Redis stores.
const MAX_VALUE: usize = 512 << 20;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "prefix",
        field: |config| Field::Text(&mut config.prefix, PREFIX),
    },
    Setting {
        name: "client_name",
        field: |config| Field::Text(&mut config.client_name, CLIENT_NAME),
    },
    Setting {
        name: "require_redis",
        field: |config| Field::Auto(&mut config.require_redis),
    },
    Setting {
        name: "default_ttl",
        field: |config| Field::Duration(&mut config.default_ttl, TIME_RANGE),
    },
    Setting {
        name: "ttl_jitter",
        field: |config| Field::Percent(&mut config.ttl_jitter, 0..=MAX_JITTER),
    },
    Setting {
        name: "replicas",
        field: |config| Field::Count(&mut config.replicas, 1..=10_000),
    },
    Setting {
        name: "max_clients",
        field: |config| Field::Count(&mut config.max_clients, 1..=100_000_000),
    },
    Setting {
        name: "session_ttl",
        field: |config| Field::Duration(&mut config.session_ttl, TIME_RANGE),
    },
    // 0 is allowed: a session then ends at the time that was set at login.
    Setting {
        name: "session_extend",
        field: |config| Field::Duration(&mut config.session_extend, Duration::ZERO..=MAX_TIME),
    },
    Setting {
        name: "session_idle",
        field: |config| Field::Optional(&mut config.session_idle, TIME_RANGE),
    },
    Setting {
        name: "session_absolute",
        field: |config| Field::Duration(&mut config.session_absolute, TIME_RANGE),
    },
    Setting {
        name: "session_touch_every",
        field: |config| Field::Duration(&mut config.session_touch_every, Duration::ZERO..=MAX_TIME),
    },
    Setting {
        name: "sessions_per_user",
        field: |config| Field::Count(&mut config.sessions_per_user, 1..=1_000),
    },
    Setting {
        name: "disabled",
        field: |config| Field::Patterns(&mut config.disabled),
    },
    Setting {
        name: "pool_min",
        field: |config| Field::Count(&mut config.pool_min, 1..=10_000),
    },
    Setting {
        name: "pool_max",
        field: |config| Field::Count(&mut config.pool_max, 1..=10_000),
    },
    Setting {
        name: "pool_idle",
        field: |config| Field::Duration(&mut config.pool_idle, TIME_RANGE),
    },
    Setting {
        name: "cluster_map",
        field: |config| Field::Map(&mut config.cluster_map),
    },
    Setting {
        name: "connect_timeout",
        field: |config| Field::Duration(&mut config.connect_timeout, TIME_RANGE),
    },
    Setting {
        name: "command_timeout",
        field: |config| Field::Duration(&mut config.command_timeout, TIME_RANGE),
    },
    // Less than `command_timeout` is allowed: then that is the limit.
    Setting {
        name: "command_timeout_max",
        field: |config| Field::Duration(&mut config.command_timeout_max, TIME_RANGE),
    },
    Setting {
        name: "health_interval",
        field: |config| Field::Duration(&mut config.health_interval, TIME_RANGE),
    },
    Setting {
        name: "reconnect_max_delay",
        field: |config| {
            Field::Duration(
                &mut config.reconnect_max_delay,
                MIN_TIME..=Duration::from_secs(60),
            )
        },
    },
    Setting {
        name: "reconnect_max_attempts",
        field: |config| Field::Limit(&mut config.reconnect_max_attempts),
    },
    Setting {
        name: "lease",
        field: |config| Field::Duration(&mut config.lease, Duration::from_millis(100)..=MAX_TIME),
    },
    // 0 is allowed: a caller that finds another process loading then runs its own body at once.
    Setting {
        name: "lease_wait",
        field: |config| Field::Duration(&mut config.lease_wait, Duration::ZERO..=MAX_TIME),
    },
    Setting {
        name: "load_deadline",
        field: |config| Field::Duration(&mut config.load_deadline, TIME_RANGE),
    },
    Setting {
        name: "max_loads",
        field: |config| Field::Limit(&mut config.max_loads),
    },
    // 0 is allowed: a caller that finds a stale value then always refreshes it.
    Setting {
        name: "max_refreshes",
        field: |config| Field::Count(&mut config.max_refreshes, 0..=100_000),
    },
    Setting {
        name: "fence_ttl",
        field: |config| Field::Duration(&mut config.fence_ttl, TIME_RANGE),
    },
    // 0 is allowed: a failover may then restore entries that were evicted right before it.
    Setting {
        name: "failover_memory",
        field: |config| Field::Duration(&mut config.failover_memory, Duration::ZERO..=MAX_TIME),
    },
    Setting {
        name: "evict_durability",
        field: |config| Field::Durability(&mut config.evict_durability),
    },
    Setting {
        name: "max_value",
        field: |config| Field::Bytes(&mut config.max_value, 1..=MAX_VALUE),
    },
    Setting {
        name: "compress_above",
        field: |config| Field::Bytes(&mut config.compress_above, 0..=usize::MAX),
    },
    Setting {
        name: "memory_capacity",
        field: |config| Field::Bytes(&mut config.memory_capacity, 1..=usize::MAX),
    },
    Setting {
        name: "local_capacity",
        field: |config| Field::Bytes(&mut config.local_capacity, 0..=usize::MAX),
    },
    // With less, the pings of all processes would load Redis, and the coarse clock would not be exact enough.
    Setting {
        name: "local_staleness",
        field: |config| {
            Field::Duration(
                &mut config.local_staleness,
                Duration::from_millis(100)..=MAX_TIME,
            )
        },
    },
    Setting {
        name: "journal_capacity",
        field: |config| Field::Count(&mut config.journal_capacity, 1..=10_000_000),
    },
    Setting {
        name: "slow_threshold",
        field: |config| Field::Duration(&mut config.slow_threshold, TIME_RANGE),
    },
    Setting {
        name: "mask_keys",
        field: |config| Field::Switch(&mut config.mask_keys),
    },
    Setting {
        name: "card_guard",
        field: |config| Field::Switch(&mut config.card_guard),
    },
];

impl Setting {
    pub(super) fn variable(&self) -> String {
        format!("CACHE_{}", self.name.to_ascii_uppercase())
    }

    /// Reads `text` into the option. The error lists what is allowed. Limits are checked after all options are read.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        (self.field)(config).set(text).ok_or_else(|| self.allowed())
    }

    /// The same for a list of texts, each of which may hold any character; only options that are lists take one.
    pub(super) fn set_list(&self, config: &mut Config, list: Vec<String>) -> Result<(), String> {
        match (self.field)(config) {
            Field::Patterns(patterns) => *patterns = list,
            Field::Map(pairs) => {
                let read: Option<_> = list.iter().map(|pair| mapped(pair)).collect();
                *pairs = read.ok_or_else(|| self.allowed())?;
            }
            _ => return Err(self.allowed()),
        }
        Ok(())
    }

    /// The value in effect, as it could be written.
    pub(super) fn show(&self, config: &mut Config) -> String {
        (self.field)(config).show()
    }

    /// Returns what is allowed, if the current value is not.
    pub(super) fn problem(&self, config: &mut Config) -> Option<String> {
        (!(self.field)(config).is_within_limits()).then(|| self.allowed())
    }

    fn allowed(&self) -> String {
        let mut usual = Config::default();
        (self.field)(&mut usual).allowed()
    }
}

impl Field<'_> {
    fn set(self, written: &str) -> Option<()> {
        match self {
            Self::Text(value, _) => written.clone_into(value),
            Self::Patterns(value) => *value = listed(written).map(str::to_owned).collect(),
            Self::Map(value) => *value = listed(written).map(mapped).collect::<Option<_>>()?,
            Self::Duration(value, _) => *value = text::duration(written)?,
            Self::Optional(value, _) if written.eq_ignore_ascii_case(NONE) => *value = None,
            Self::Optional(value, _) => *value = Some(text::duration(written)?),
            Self::Count(value, _) => *value = written.parse().ok()?,
            Self::Bytes(value, _) => *value = text::bytes(written)?,
            Self::Percent(value, _) => *value = text::percent(written)?,
            Self::Limit(value) if written.eq_ignore_ascii_case(UNLIMITED) => *value = None,
            Self::Limit(value) => *value = Some(written.parse().ok()?),
            Self::Switch(value) => *value = text::switch(written)?,
            Self::Auto(value) if written.eq_ignore_ascii_case(AUTO) => *value = None,
            Self::Auto(value) => *value = Some(text::switch(written)?),
            Self::Durability(value) => *value = EvictDurability::read(written)?,
        }
        Some(())
    }

    fn show(&self) -> String {
        match self {
            Self::Text(value, _) => (*value).clone(),
            Self::Patterns(value) => value.join(","),
            Self::Map(value) => {
                let pairs = value.iter().map(|(from, to)| format!("{from}={to}"));
                pairs.collect::<Vec<_>>().join(",")
            }
            Self::Duration(value, _) => text::show_duration(**value),
            Self::Optional(value, _) => value.map_or_else(|| NONE.to_owned(), text::show_duration),
            Self::Count(value, _) => value.to_string(),
            Self::Bytes(value, _) => text::show_bytes(**value),
            Self::Percent(value, _) => format!("{value}%"),
            Self::Limit(value) => {
                value.map_or_else(|| UNLIMITED.to_owned(), |limit| limit.to_string())
            }
            Self::Switch(value) => value.to_string(),
            Self::Auto(value) => value.map_or_else(|| AUTO.to_owned(), |is_on| is_on.to_string()),
            Self::Durability(value) => value.to_string(),
        }
    }

    fn is_within_limits(&self) -> bool {
        match self {
            Self::Text(value, (is_allowed, _)) => is_allowed(value),
            Self::Patterns(value) => value.iter().all(|pattern| PATTERN.0(pattern)),
            Self::Map(value) => {
                let announced: HashSet<_> = value.iter().map(|(announced, _)| announced).collect();
                announced.len() == value.len()
                    && value
                        .iter()
                        .all(|(from, to)| is_host_and_port(from) && is_host_and_port(to))
            }
            // The type is named because some crates implement comparisons with durations.
            Self::Duration(value, limits) => limits.contains::<Duration>(value),
            Self::Optional(value, limits) => {
                value.is_none_or(|value| limits.contains::<Duration>(&value))
            }
            Self::Count(value, limits) | Self::Bytes(value, limits) => limits.contains(value),
            Self::Percent(value, limits) => limits.contains(value),
            Self::Limit(value) => **value != Some(0),
            Self::Durability(value) => **value != EvictDurability::Replicas(0),
            Self::Switch(_) | Self::Auto(_) => true,
        }
    }

    /// Returns what is allowed in this field. Its current value is the example.
    fn allowed(&self) -> String {
        let example = self.show();
        match self {
            Self::Text(_, (_, allowed)) => (*allowed).to_owned(),
            Self::Patterns(_) => PATTERN.1.to_owned(),
            Self::Map(_) => {
                "pairs of announced and reachable addresses such as `10.0.0.1:7000=example.com:17000`, each announced address once"
                    .to_owned()
            }
            Self::Duration(_, limits) => {
                let limits = between(limits, |limit| text::show_duration(*limit), Duration::MAX);
                format!("a duration such as `{example}`, or a number of seconds, {limits}")
            }
            Self::Optional(_, limits) => {
                let limits = between(limits, |limit| text::show_duration(*limit), MAX_TIME);
                format!("a duration such as `30m`, or a number of seconds, {limits}")
            }
            Self::Count(_, limits) => {
                format!(
                    "a whole number such as `{example}`, {}",
                    between(limits, usize::to_string, usize::MAX)
                )
            }
            Self::Bytes(_, limits) => {
                let limits = between(limits, |limit| text::show_bytes(*limit), usize::MAX);
                format!("a size such as `{example}`, or a number of bytes, {limits}")
            }
            Self::Percent(_, limits) => {
                format!("a whole percentage such as `10%`, up to {}%", limits.end())
            }
            Self::Limit(_) => format!("a whole number such as `10`, at least 1, or `{UNLIMITED}`"),
            Self::Switch(_) => "`true` or `false`".to_owned(),
            Self::Auto(_) => format!("`true`, `false` or `{AUTO}`"),
            Self::Durability(_) => durability::ALLOWED.to_owned(),
        }
    }
}

/// Returns the parts of a list with commas.
fn listed(written: &str) -> impl Iterator<Item = &str> {
    written
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

const UNLIMITED: &str = "unlimited";
const AUTO: &str = "auto";

/// What is shown of an option without a value.
const NONE: &str = "none";

fn between<T: PartialEq>(
    limits: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
    endless: T,
) -> String {
    if *limits.end() == endless {
        format!("at least {}", show(limits.start()))
    } else {
        format!("from {} to {}", show(limits.start()), show(limits.end()))
    }
}

/// What is allowed for the times of a policy.
pub(super) fn time_range() -> String {
    let example = &mut Duration::from_secs(1800);
    Field::Duration(example, TIME_RANGE).allowed()
}
