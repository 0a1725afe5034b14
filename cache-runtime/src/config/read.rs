//! A configuration from a file, in any format that serde reads.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::env::ENVIRONMENTS;
use super::options::SETTINGS;
use super::problem::{Problem, QUOTA, report};
use super::redis::{RedisUrl, database_index};
use super::{Config, Environment, SessionKeys, access, did_you_mean, text};

/// An option as a file holds it. Numbers and switches are kept as the texts that they would be in a variable.
enum Written {
    Text(String),
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ConfigVisitor)
    }
}

struct ConfigVisitor;

impl<'de> Visitor<'de> for ConfigVisitor {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of cache options")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
        let mut config = Config::default();
        let mut written = BTreeMap::new();
        let mut problems = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "policies" {
                config.policies = map.next_value()?;
            } else if name == "limits" {
                for (policy, value) in map.next_value::<BTreeMap<_, _>>()? {
                    problems.extend(limit(&mut config, policy, &value));
                }
            } else if options().any(|option| option == name) {
                // An empty value keeps the default.
                if let Some(value) = map.next_value::<Option<Written>>()? {
                    written.insert(name, value);
                }
            } else {
                map.next_value::<IgnoredAny>()?;
                problems.push(unknown(&name));
            }
        }
        // The address first, so that its parts give way to those that have options of their own.
        if let Some(value) = written.remove("redis") {
            problems.extend(apply(&mut config, "redis", value));
        }
        for (name, value) in written {
            problems.extend(apply(&mut config, &name, value));
        }
        report(&problems).map_err(de::Error::custom)?;
        Ok(config)
    }
}

/// Options that are more than one value, or must not be shown.
const SPECIAL: [&str; 4] = ["environment", "redis", "database", "session_keys"];

fn options() -> impl Iterator<Item = String> {
    let settings = SETTINGS.iter().map(|setting| setting.name);
    let names = SPECIAL.into_iter().chain(settings).map(str::to_owned);
    names.chain(access::options())
}

fn unknown(name: &str) -> Problem {
    let advice = did_you_mean(
        name,
        options().chain(["policies", "limits"].map(str::to_owned)),
    );
    Problem::new(text::shown(name), format!("is not an option; {advice}"))
}

fn apply(config: &mut Config, name: &str, value: Written) -> Option<Problem> {
    let value = match (value, SETTINGS.iter().find(|setting| setting.name == name)) {
        (Written::List(list), Some(setting)) => {
            return setting
                .set_list(config, list)
                .err()
                .map(|allowed| Problem::wrong(name, "a list", allowed));
        }
        (Written::List(_), None) => return Some(Problem::wrong(name, "a list", "one string")),
        (Written::Text(value), Some(setting)) => {
            return setting
                .set(config, &value)
                .err()
                .map(|allowed| Problem::wrong(name, &value, allowed));
        }
        (Written::Text(value), None) => value,
    };
    let wrong = match name {
        "redis" => match RedisUrl::parse(&value) {
            Ok(url) => {
                config.connect_to(url);
                return None;
            }
            Err(allowed) => allowed,
        },
        "database" => match database_index(&value) {
            Some(index) => {
                config.database = index;
                return None;
            }
            None => "a database index, such as `0`".to_owned(),
        },
        "environment" => match Environment::of_name(&value) {
            Some(environment) => {
                *config = std::mem::take(config).environment(environment);
                return None;
            }
            None => ENVIRONMENTS.to_owned(),
        },
        "session_keys" => {
            return match SessionKeys::read(&value) {
                Ok(keys) => {
                    config.session_keys = Some(keys);
                    None
                }
                Err(wrong) => Some(Problem::new(name, wrong)),
            };
        }
        _ => {
            let (mut fields, name) = config.fields_of(name);
            fields.set(name, value);
            return None;
        }
    };
    Some(Problem::wrong(name, &value, wrong))
}

fn limit(config: &mut Config, policy: String, value: &Written) -> Option<Problem> {
    let (found, quota) = match value {
        Written::Text(value) => (value.as_str(), text::quota(value)),
        Written::List(_) => ("a list", None),
    };
    let Some(quota) = quota else {
        let name = format!("limits.{}", text::shown(&policy));
        return Some(Problem::wrong(name, found, QUOTA));
    };
    config.limits.insert(policy, quota);
    None
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl<'de> Visitor<'de> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number, a boolean or a list of strings")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Written, E> {
        Ok(Written::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Written, E> {
        Ok(Written::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Written, E> {
        Ok(Written::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Written, E> {
        Ok(Written::Text(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Written, E> {
        Ok(Written::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Written, A::Error> {
        let mut list = Vec::new();
        while let Some(text) = seq.next_element()? {
            list.push(text);
        }
        Ok(Written::List(list))
    }
}

/// One of the times of a [`TtlPolicy`].
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let Some(written) = Option::<Written>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let duration = match &written {
        Written::Text(written) => text::duration(written),
        Written::List(_) => None,
    };
    duration.map(Some).ok_or_else(|| {
        de::Error::custom("invalid duration; use text such as `30m`, or a number of seconds")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::config::{Quota, Tls, Topology, TtlPolicy};

    #[test]
    fn options_missing_from_a_file_have_their_defaults() {
        let config: Config =
            from_value(json!({ "pool_max": 10, "reconnect_max_attempts": null })).expect("valid");

        assert_eq!(config.pool_max, 10);
        assert_eq!(
            Config {
                pool_max: Config::default().pool_max,
                ..config
            }
            .describe(),
            Config::default().describe()
        );
    }

    #[test]
    fn a_file_accepts_several_forms_of_durations_sizes_and_lists() {
        let config: Config = from_value(json!({
            "default_ttl": "30m", "command_timeout": 0.25, "pool_idle": 60, "max_value": "2MiB", "mask_keys": true,
            "disabled": ["event:*", "a,b"],
            "ttl_jitter": "10%", "max_refreshes": 8,
            "policies": { "events": { "ttl": "10m", "grace": "1h", "none_ttl": 5 } },
            "limits": { "api": "100/1m" },
        }))
        .expect("valid");

        assert_eq!(config.default_ttl, Duration::from_secs(1800));
        assert_eq!(config.command_timeout, Duration::from_millis(250));
        assert_eq!(config.pool_idle, Duration::from_secs(60));
        assert_eq!((config.max_value, config.mask_keys), (2 << 20, true));
        assert_eq!(config.disabled, ["event:*", "a,b"]);
        let policy = TtlPolicy::default()
            .ttl(Duration::from_secs(600))
            .grace(Duration::from_secs(3600))
            .none_ttl(Duration::from_secs(5));
        assert_eq!(config.policies.get("events"), Some(&policy));
        assert_eq!(config.limits["api"].limit, 100);
        assert_eq!(config.limits["api"].window, Duration::from_secs(60));
        assert_eq!((config.ttl_jitter, config.max_refreshes), (10, 8));
        let number: Config = from_value(json!({ "ttl_jitter": 10 })).expect("valid");
        assert_eq!(number.ttl_jitter, 10);
    }

    #[test]
    fn an_option_wins_over_the_same_part_of_the_address() {
        let config: Config = from_value(json!({
            "database": 2, "password": "own", "redis": "rediss://app:other@host/1", "tls": "/etc/ca.pem",
        }))
        .expect("valid");

        assert!(matches!(config.redis, Some(Topology::Standalone(_))));
        assert_eq!(
            (config.database, config.username.as_deref()),
            (2, Some("app"))
        );
        assert_eq!(
            (config.password, config.tls),
            (Some("own".into()), Tls::Ca("/etc/ca.pem".into()))
        );
    }

    #[test]
    fn all_problems_of_a_file_are_reported_together() {
        let error = from_value::<Config>(json!({
            "pool_mni": 3, "default_ttl": "soon", "redis": "redis://:hunter2@", "mask_keys": [], "database": "x",
            "ttl_jitter": 12.5, "max_refreshes": "some",
            "limits": { "api": "often", "mail": 100, "login": ["5/m"], "fine": "5/m" },
        }))
        .expect_err("wrong")
        .to_string();

        for part in [
            "did you mean `pool_min`",
            "default_ttl: found `soon`",
            "redis: found",
            "mask_keys",
            "database: found `x`",
            "ttl_jitter: found `12.5`, allowed: a whole percentage such as `10%`, up to 50%",
            "max_refreshes: found `some`, allowed: a whole number such as `64`, from 0 to 100000",
            "limits.api: found `often`, allowed: units per time, such as `100/60s` or `5/s`",
            "limits.mail: found `100`, allowed: units per time",
            "limits.login: found `a list`, allowed: units per time",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("hunter2"), "{error}");
        assert!(!error.contains("limits.fine"), "{error}");
    }

    #[test]
    fn an_invalid_time_of_a_policy_is_reported_with_advice() {
        let error =
            from_value::<Config>(json!({ "policies": { "events": { "grace": "a while" } } }))
                .expect_err("wrong");

        assert!(
            error
                .to_string()
                .contains("invalid duration; use text such as `30m`, or a number of seconds"),
            "{error}"
        );
    }

    #[test]
    fn limits_in_a_file_are_named_by_their_policies() {
        let config: Config =
            from_value(json!({ "limits": { "api": "100/60s", "Mail-Out": "5/h" } }))
                .expect("valid");

        let quota = |limit, seconds| Quota {
            limit,
            window: Duration::from_secs(seconds),
        };
        assert_eq!(config.quota_of("api"), Some(quota(100, 60)));
        assert_eq!(config.quota_of("Mail-Out"), Some(quota(5, 3600)));
    }

    #[test]
    fn a_policy_has_no_unknown_fields() {
        let error = from_value::<Config>(json!({ "policies": { "events": { "tll": 5 } } }))
            .expect_err("wrong");

        assert!(error.to_string().contains("`tll`"), "{error}");
    }
}
