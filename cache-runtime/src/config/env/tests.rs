use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Quota, Tls};

fn read(vars: &[(&str, &str)]) -> Config {
    Config::from_vars(vars.iter().copied()).unwrap_or_else(|error| panic!("{error}"))
}

fn problem(vars: &[(&str, &str)]) -> String {
    Config::from_vars(vars.iter().copied())
        .map(|config| config.to_string())
        .expect_err("wrong")
        .to_string()
}

fn address(config: &Config) -> String {
    config
        .redis
        .as_ref()
        .map_or_else(String::new, Topology::to_string)
}

#[test]
fn an_empty_environment_is_memory_mode_with_defaults() {
    let config = read(&[
        ("HOME", "/root"),
        ("CACHE_POOL_MIN", ""),
        ("REDIS_URL", "  "),
        ("CACHE_UNKNOWN", ""),
    ]);

    assert_eq!(config.to_string(), Config::default().to_string());
    assert!(config.redis.is_none());
}

#[test]
fn each_environment_has_its_prefix_and_its_variables() {
    for (name, host) in [("dev", "a"), ("test", "b"), ("prod", "c")] {
        let config = read(&[
            ("CACHE_ENV", name),
            ("DEV_REDIS_HOST", "a"),
            ("TEST_REDIS_HOST", "b"),
            ("PROD_REDIS_HOST", "c"),
        ]);

        assert_eq!(config.prefix, format!("{name}_"));
        assert_eq!(address(&config), format!("redis://{host}:6379"));
    }
}

#[test]
fn variables_of_other_environments_are_ignored() {
    let config = read(&[
        ("CACHE_ENV", "test"),
        ("DEV_REDIS_PORT", "wrong"),
        ("PROD_REDIS_PASSWORD", "x"),
    ]);

    assert!(config.redis.is_none() && config.password.is_none());
}

#[test]
fn parts_win_over_the_address() {
    let config = read(&[
        ("REDIS_URL", "redis://app:url@host:7000/1"),
        ("DEV_REDIS_HOST", "other"),
        ("DEV_REDIS_PORT", "7001"),
        ("DEV_REDIS_DB", "3"),
        ("REDIS_USERNAME", "me"),
        ("REDIS_PASSWORD", "everywhere"),
        ("DEV_REDIS_PASSWORD", " own "),
    ]);

    assert_eq!(address(&config), "redis://other:7001");
    assert_eq!(
        (config.database, config.username.as_deref()),
        (3, Some("me"))
    );
    assert_eq!(
        config.password,
        Some(" own ".into()),
        "a password keeps its white space"
    );
}

#[test]
fn a_single_part_replaces_only_itself() {
    let port = read(&[
        ("REDIS_URL", "redis://host:7000"),
        ("DEV_REDIS_PORT", "7001"),
    ]);
    let host = read(&[
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("DEV_REDIS_HOST", "[::1]"),
    ]);
    let database = read(&[("REDIS_URL", "redis://host/4"), ("DEV_REDIS_DB", "0")]);

    assert_eq!(address(&port), "redis://host:7001");
    assert_eq!(address(&host), "redis://[::1]:6379");
    assert_eq!(database.database, 0);
}

#[test]
fn encryption_comes_from_the_address_or_a_variable() {
    let url = ("REDIS_URL", "redis://host");

    assert_eq!(read(&[("REDIS_URL", "rediss://host")]).tls, Tls::WebRoots);
    assert_eq!(read(&[url, ("REDIS_TLS", "yes")]).tls, Tls::WebRoots);
    assert_eq!(read(&[url, ("REDIS_TLS", "0")]).tls, Tls::Off);
    assert_eq!(
        read(&[url, ("REDIS_TLS_CA", "/etc/ca.pem")]).tls,
        Tls::Ca("/etc/ca.pem".into())
    );
    assert!(
        problem(&[("REDIS_URL", "rediss://host"), ("REDIS_TLS", "off")])
            .contains("starts with `rediss`")
    );
    assert!(
        problem(&[url, ("REDIS_TLS", "off"), ("REDIS_TLS_CA", "/ca")])
            .contains("REDIS_TLS: is off")
    );
    assert!(
        problem(&[url, ("REDIS_TLS", "maybe")])
            .contains("REDIS_TLS: found `maybe`, allowed: `true` or `false`")
    );
}

#[test]
fn every_option_is_read_from_its_variable() {
    let mut expected = Config::default();
    let values = [
        ("CACHE_PREFIX", "app:"),
        ("CACHE_CLIENT_NAME", "tickets"),
        ("CACHE_REQUIRE_REDIS", "true"),
        ("CACHE_DEFAULT_TTL", "2h"),
        ("CACHE_TTL_JITTER", "10%"),
        ("CACHE_REPLICAS", "4"),
        ("CACHE_MAX_CLIENTS", "500"),
        ("CACHE_SESSION_TTL", "30m"),
        ("CACHE_SESSION_EXTEND", "0s"),
        ("CACHE_SESSION_IDLE", "20m"),
        ("CACHE_SESSION_ABSOLUTE", "12h"),
        ("CACHE_SESSION_TOUCH_EVERY", "10s"),
        ("CACHE_SESSIONS_PER_USER", "5"),
        ("CACHE_DISABLED", "event:*,user:?"),
        ("CACHE_POOL_MIN", "2"),
        ("CACHE_POOL_MAX", "9"),
        ("CACHE_POOL_IDLE", "1m"),
        (
            "CACHE_CLUSTER_MAP",
            "10.0.0.1:7000=h:17000,[::1]:7000=h:17001",
        ),
        ("CACHE_CONNECT_TIMEOUT", "2s"),
        ("CACHE_COMMAND_TIMEOUT", "50ms"),
        ("CACHE_COMMAND_TIMEOUT_MAX", "3s"),
        ("CACHE_HEALTH_INTERVAL", "10s"),
        ("CACHE_RECONNECT_MAX_DELAY", "1s"),
        ("CACHE_RECONNECT_MAX_ATTEMPTS", "7"),
        ("CACHE_LEASE", "5s"),
        ("CACHE_LEASE_WAIT", "0s"),
        ("CACHE_LOAD_DEADLINE", "20s"),
        ("CACHE_MAX_LOADS", "50"),
        ("CACHE_MAX_REFRESHES", "8"),
        ("CACHE_FENCE_TTL", "4s"),
        ("CACHE_FAILOVER_MEMORY", "40s"),
        ("CACHE_EVICT_DURABILITY", "replicas:2"),
        ("CACHE_MAX_VALUE", "2MiB"),
        ("CACHE_COMPRESS_ABOVE", "4KiB"),
        ("CACHE_MEMORY_CAPACITY", "8MiB"),
        ("CACHE_LOCAL_CAPACITY", "16MiB"),
        ("CACHE_LOCAL_STALENESS", "1s"),
        ("CACHE_JOURNAL_CAPACITY", "10"),
        ("CACHE_SLOW_THRESHOLD", "1s"),
        ("CACHE_MASK_KEYS", "true"),
        ("CACHE_CARD_GUARD", "true"),
    ];
    assert_eq!(
        values.map(|(name, _)| name.to_owned()).as_slice(),
        SETTINGS
            .iter()
            .map(super::super::options::Setting::variable)
            .collect::<Vec<_>>()
    );

    // `session_idle` excludes two other options, and `cluster_map` needs a cluster, so they are read separately.
    let (mut special, others): (Vec<_>, Vec<_>) = values
        .iter()
        .partition(|(name, _)| ["CACHE_SESSION_IDLE", "CACHE_CLUSTER_MAP"].contains(name));
    special.push(("REDIS_URL", "redis+cluster://h"));
    let special = read(&special);
    let config = Config {
        session_idle: special.session_idle,
        cluster_map: special.cluster_map,
        ..read(&others)
    };

    for (setting, (_, value)) in SETTINGS.iter().zip(values) {
        assert_ne!(
            setting.show(&mut expected),
            value,
            "{}: the test must not set the default",
            setting.name
        );
        assert_eq!(setting.show(&mut config.clone()), value, "{}", setting.name);
    }
}

#[test]
fn session_keys_are_read_and_never_shown() {
    let secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    let config = read(&[("CACHE_SESSION_KEYS", &format!("new:{secret}"))]);
    assert_eq!(
        format!("{:?}", config.session_keys),
        "Some(SessionKeys(new))"
    );

    for wrong in [secret, &secret[..20], &format!("new:{secret},new:{secret}")] {
        let problem = problem(&[("CACHE_SESSION_KEYS", wrong)]);
        assert!(problem.contains("\n  CACHE_SESSION_KEYS: "), "{problem}");
        assert!(!problem.contains("MDEy"), "{problem}");
    }
}

#[test]
fn cache_env_sets_the_environment() {
    let environment = |name| read(&[("CACHE_ENV", name)]).environment;

    assert_eq!(
        ["dev", "test", "prod"].map(environment),
        [Environment::DEV, Environment::TEST, Environment::PROD]
    );
    assert_eq!(read(&[]).environment, Environment::DEV);
}

#[test]
fn an_environment_may_have_any_lower_case_name() {
    let config = read(&[
        ("CACHE_ENV", "load-test2"),
        ("LOAD_TEST2_REDIS_HOST", "cache"),
        ("LOAD_TEST2_REDIS_DB", "3"),
        ("DEV_REDIS_HOST", "elsewhere"),
    ]);

    assert_eq!(config.environment.name(), "load-test2");
    assert_eq!(config.prefix, "load-test2_");
    let address = Address::Tcp("cache".to_owned(), 6379);
    assert_eq!(config.redis, Some(Topology::Standalone(address)));
    assert_eq!(config.database, 3);
    // Only production requires a Redis.
    assert!(
        read(&[("CACHE_ENV", "staging")])
            .check_memory_mode()
            .is_ok()
    );

    for name in [
        "Staging",
        "PROD",
        "production",
        "2nd",
        "-a",
        "a_b",
        "a b",
        "é",
    ] {
        let error = Environment::new(name).expect_err(name).to_string();
        assert!(
            error.contains("is not the name of an environment; use `dev`"),
            "{error}"
        );
        assert!(
            problem(&[("CACHE_ENV", name)]).contains("CACHE_ENV: found `"),
            "{name}"
        );
    }
    assert_eq!(Environment::new("prod").ok(), Some(Environment::PROD));
}

#[test]
fn numbers_without_a_unit_are_seconds_and_bytes() {
    let config = read(&[
        ("CACHE_DEFAULT_TTL", " 90 "),
        ("CACHE_MAX_VALUE", "2048"),
        ("CACHE_RECONNECT_MAX_ATTEMPTS", "unlimited"),
    ]);

    assert_eq!(
        (config.default_ttl, config.max_value),
        (Duration::from_secs(90), 2048)
    );
    assert_eq!(config.reconnect_max_attempts, None);
}

#[test]
fn a_percentage_can_have_a_sign_and_has_limits() {
    let jitter = |written| read(&[("CACHE_TTL_JITTER", written)]).ttl_jitter;

    assert_eq!(
        ["0", "0%", "7", "10%", " 25 % ", "50%"].map(jitter),
        [0, 0, 7, 10, 25, 50]
    );
    for wrong in ["%", "10%%", "-1%", "1.5%", "256", "300%", "ten", "51"] {
        let problem = problem(&[("CACHE_TTL_JITTER", wrong)]);
        assert!(
            problem.contains("\n  CACHE_TTL_JITTER: found `"),
            "{problem}"
        );
        assert!(
            problem.ends_with("`, allowed: a whole percentage such as `10%`, up to 50%"),
            "{problem}"
        );
        assert_eq!(problem.lines().count(), 2, "{problem}");
    }
}

#[test]
fn the_number_of_refreshes_has_limits_and_can_be_0() {
    let refreshes = |written| read(&[("CACHE_MAX_REFRESHES", written)]).max_refreshes;

    assert_eq!(["0", "1", "100000"].map(refreshes), [0, 1, 100_000]);
    for wrong in ["100001", "-1", "10%", "unlimited"] {
        let problem = problem(&[("CACHE_MAX_REFRESHES", wrong)]);
        let line = format!(
            "CACHE_MAX_REFRESHES: found `{wrong}`, allowed: a whole number such as `64`, from 0 to 100000"
        );
        assert!(problem.ends_with(&line), "{problem}");
    }
}

#[test]
fn variables_can_set_policies() {
    let config = read(&[
        ("CACHE_POLICY_HOT_EVENTS_TTL", "10m"),
        ("CACHE_POLICY_HOT_EVENTS_GRACE", "1h"),
        ("CACHE_POLICY_HOT_EVENTS_NONE_TTL", "5"),
        ("CACHE_POLICY_HOT_EVENTS_MAX_LOADS", "8"),
    ]);

    let policy = TtlPolicy::default()
        .ttl(Duration::from_secs(600))
        .grace(Duration::from_secs(3600))
        .none_ttl(Duration::from_secs(5))
        .max_loads(8);
    assert_eq!(
        config.policies.into_iter().collect::<Vec<_>>(),
        [("hot_events".to_owned(), policy)]
    );
}

#[test]
fn variables_can_set_limits() {
    let config = read(&[
        ("CACHE_LIMIT_API", "100/60s"),
        ("CACHE_LIMIT_HOT_EVENTS", "5/s"),
        ("CACHE_LIMIT_MAIL", "3 / 10"),
    ]);

    let quota = |limit, seconds| Quota {
        limit,
        window: Duration::from_secs(seconds),
    };
    assert_eq!(config.quota_of("api"), Some(quota(100, 60)));
    assert_eq!(config.quota_of("Hot-Events"), Some(quota(5, 1)));
    assert_eq!(config.quota_of("mail"), Some(quota(3, 10)));
    assert_eq!(config.quota_of("other"), None);
    assert_eq!(
        config.unmatched_limits(["api", "hot.events"].into_iter()),
        ["mail"]
    );
    let described = config.describe();
    assert!(described.contains(&("limits.api".to_owned(), "100/1m".to_owned())));
}

#[test]
fn an_invalid_limit_is_reported_with_the_allowed_values() {
    for text in [
        "100",
        "100/",
        "/60s",
        "0/1s",
        "1/0s",
        "1/32days",
        "-1/s",
        "4294967296/s",
        "1/soon",
        "1/1s/1s",
    ] {
        let problem = problem(&[("CACHE_LIMIT_API", text)]);
        let expected = "allowed: units per time, such as `100/60s` or `5/s`: 1 to 4294967295 units per 1 ms to 31 days";
        assert!(
            problem.contains("CACHE_LIMIT_API: found"),
            "{text}: {problem}"
        );
        assert!(problem.contains(expected), "{text}: {problem}");
        assert_eq!(problem.lines().count(), 2, "{text}: {problem}");
    }
    assert!(problem(&[("CACHE_LIMITS_API", "1/s")]).contains("did you mean `CACHE_LIMIT_<NAME>`"));
}

#[test]
fn each_invalid_variable_has_one_line() {
    let problem = problem(&[
        ("CACHE_ENV", "production"),
        ("REDIS_URL", "redis+cluster://h1:7000/1"),
        ("DEV_REDIS_PORT", "0"),
        ("DEV_REDIS_DB", "first"),
        ("CACHE_POOL_MIN", "few"),
        ("CACHE_POOL_MAX", "4"),
        ("CACHE_DEFAULT_TTL", "0"),
        ("CACHE_MASK_KEYS", "perhaps"),
        ("CACHE_POOL_MUX", "9"),
        ("CACHE_REDIS_URL", "redis://:hunter2@host"),
        ("CACHE_POLICY_EVENTS_TLL", "5"),
        ("CACHE_POLICY_EVENTS_TTL", "soon"),
        ("CACHE_POLICY_NIGHT_NONE_TTL", "0"),
        ("CACHE_POLICY_EVENTS_GRACES", "5"),
        ("CACHE_POLICY_EVENTS_GRACE", "a while"),
        ("CACHE_POLICY_NIGHT_GRACE", "0"),
        ("CACHE_TTL_JITTER", "51%"),
        ("CACHE_TTL_JITER", "5%"),
        ("CACHE_MAX_REFRESHES", "100001"),
    ]);

    for line in [
        "CACHE_ENV: found `production`, allowed: `dev`, `test`, `prod`, or another word of lower-case letters, digits and `-`, such as `staging`; production is `prod`",
        "REDIS_URL: found `redis+cluster://h1:7000/1`, allowed: nodes without a database index; a Redis Cluster has only the database 0",
        "DEV_REDIS_PORT: found `0`, allowed: a port from 1 to 65535",
        "DEV_REDIS_DB: found `first`",
        "CACHE_POOL_MIN: found `few`, allowed: a whole number such as `5`, from 1 to 10000",
        "CACHE_POOL_MAX: found `4`, allowed: at least CACHE_POOL_MIN, which is 5; or lower that option",
        "CACHE_DEFAULT_TTL: found `0s`, allowed: a duration such as `1h`, or a number of seconds, from 1ms to 100years",
        "CACHE_MASK_KEYS: found `perhaps`, allowed: `true` or `false`",
        "CACHE_POOL_MUX: is not known; did you mean `CACHE_POOL_MAX`?",
        "CACHE_REDIS_URL: is not known; did you mean `REDIS_URL`?",
        "CACHE_POLICY_EVENTS_TLL: is not known; did you mean `CACHE_POLICY_<NAME>_TTL`?",
        "CACHE_POLICY_EVENTS_TTL: found `soon`",
        "CACHE_POLICY_NIGHT_NONE_TTL: found `0s`",
        "CACHE_POLICY_EVENTS_GRACES: is not known; did you mean `CACHE_POLICY_<NAME>_GRACE`?",
        "CACHE_POLICY_EVENTS_GRACE: found `a while`, allowed: a duration such as `30m`, or a number of seconds, from 1ms to 100years",
        "CACHE_POLICY_NIGHT_GRACE: found `0s`, allowed: a duration such as `30m`, or a number of seconds, from 1ms to 100years",
        "CACHE_TTL_JITTER: found `51%`, allowed: a whole percentage such as `10%`, up to 50%",
        "CACHE_TTL_JITER: is not known; did you mean `CACHE_TTL_JITTER`?",
        "CACHE_MAX_REFRESHES: found `100001`, allowed: a whole number such as `64`, from 0 to 100000",
    ] {
        assert!(
            problem.contains(&format!("\n  {line}")),
            "{line}\nis not in: {problem}"
        );
    }
    assert_eq!(problem.lines().count(), 20, "{problem}");
    assert!(!problem.contains("hunter2"), "{problem}");
}

#[test]
fn an_unreadable_variable_causes_no_second_problem() {
    let problem = problem(&[("CACHE_POOL_MIN", "60"), ("CACHE_POOL_MAX", "many")]);

    assert!(
        problem.contains("CACHE_POOL_MAX: found `many`"),
        "{problem}"
    );
    assert_eq!(problem.lines().count(), 2, "{problem}");
}

#[test]
fn variables_of_redis_need_a_redis() {
    for name in [
        "REDIS_USERNAME",
        "REDIS_PASSWORD",
        "DEV_REDIS_PASSWORD",
        "REDIS_TLS_CA",
    ] {
        let problem = problem(&[(name, "hunter2")]);
        assert!(
            problem.contains(&format!(
                "{name}: is set, but no Redis server is configured; set REDIS_URL or DEV_REDIS_HOST"
            )),
            "{problem}"
        );
        assert!(!problem.contains("hunter2"), "{problem}");
    }
    assert!(problem(&[("DEV_REDIS_PORT", "6379")]).contains("DEV_REDIS_PORT: needs a host"));
    assert!(problem(&[("REDIS_TLS", "on")]).contains("REDIS_TLS: is set, but"));
    // These explicitly ask for the default.
    read(&[("REDIS_TLS", "off"), ("DEV_REDIS_DB", "0")]);
}

#[test]
fn variables_that_a_cluster_has_no_use_for_are_refused() {
    let cluster = ("REDIS_URL", "redis+cluster://h1:7000,h2");
    let map = (
        "CACHE_CLUSTER_MAP",
        "10.0.0.1:7000=h1:7000, 10.0.0.2:7000=h2",
    );

    let config = read(&[cluster, map, ("DEV_REDIS_DB", "0")]);
    assert_eq!(address(&config), "redis+cluster://h1:7000,h2:6379");
    let tcp = |host: &str, port| Address::Tcp(host.to_owned(), port);
    assert_eq!(
        config.cluster_map,
        [
            (tcp("10.0.0.1", 7000), tcp("h1", 7000)),
            (tcp("10.0.0.2", 7000), tcp("h2", 6379))
        ]
    );
    let line = (
        "cluster_map".to_owned(),
        "10.0.0.1:7000=h1:7000,10.0.0.2:7000=h2:6379".to_owned(),
    );
    assert!(config.describe().contains(&line));

    for (variables, expected) in [
        (
            [cluster, ("DEV_REDIS_DB", "2")],
            "DEV_REDIS_DB: is 2, but a Redis Cluster has only the database 0; unset it",
        ),
        (
            [cluster, ("DEV_REDIS_HOST", "h")],
            "DEV_REDIS_HOST: cannot be combined with a cluster; unset it, or set REDIS_URL to one server",
        ),
        (
            [("REDIS_URL", "redis://h"), map],
            "CACHE_CLUSTER_MAP: is set, but REDIS_URL is not a cluster; use `redis+cluster://`, or unset it",
        ),
        (
            [cluster, ("CACHE_CLUSTER_MAP", "a=b,a=c")],
            "CACHE_CLUSTER_MAP: found `a:6379=b:6379,a:6379=c:6379`, allowed: pairs of announced and reachable addresses",
        ),
        (
            [cluster, ("CACHE_CLUSTER_MAP", "a")],
            "CACHE_CLUSTER_MAP: found `a`, allowed: pairs of announced and reachable addresses such as `10.0.0.1:7000=example.com:17000`",
        ),
    ] {
        let problem = problem(&variables);
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn a_host_next_to_sentinels_is_refused() {
    let sentinels = ("REDIS_URL", "redis+sentinel://h1,h2/mymaster/0");

    assert_eq!(
        address(&read(&[sentinels])),
        "redis+sentinel://h1:26379,h2:26379/mymaster"
    );
    assert!(
        problem(&[sentinels, ("DEV_REDIS_HOST", "h")])
            .contains("DEV_REDIS_HOST: cannot be combined with sentinels")
    );
    assert!(
        problem(&[sentinels, ("DEV_REDIS_PORT", "1")])
            .contains("DEV_REDIS_PORT: cannot be combined with sentinels")
    );
}

#[test]
fn a_url_is_refused_as_a_host() {
    let problem = problem(&[("DEV_REDIS_HOST", "redis://:hunter2@host")]);

    assert!(
        problem.contains("DEV_REDIS_HOST: found `redis://***@host`"),
        "{problem}"
    );
    assert_eq!(problem.lines().count(), 2, "{problem}");
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_unicode_is_a_problem() {
    use std::os::unix::ffi::OsStringExt as _;

    let password = OsString::from_vec(vec![b'p', 0xff]);
    let vars = [
        ("REDIS_URL", OsString::from("redis://h")),
        ("REDIS_PASSWORD", password),
    ];
    let error = Config::from_vars(vars).expect_err("wrong");

    assert!(
        error
            .to_string()
            .contains("REDIS_PASSWORD: is not Unicode text"),
        "{error}"
    );
}

/// The variables that Kubernetes sets for a Service with two ports.
fn links(service: &str) -> Vec<(String, String)> {
    [
        ("SERVICE_HOST", "10.96.0.7"),
        ("SERVICE_PORT", "6379"),
        ("SERVICE_PORT_REDIS", "6379"),
        ("SERVICE_PORT_METRICS_HTTP", "9121"),
        ("PORT", "tcp://10.96.0.7:6379"),
        ("PORT_6379_TCP", "tcp://10.96.0.7:6379"),
        ("PORT_6379_TCP_PROTO", "tcp"),
        ("PORT_6379_TCP_PORT", "6379"),
        ("PORT_6379_TCP_ADDR", "10.96.0.7"),
        ("PORT_9121_UDP", "udp://10.96.0.7:9121"),
        ("PORT_9121_UDP_PROTO", "udp"),
    ]
    .map(|(part, value)| (format!("{service}_{part}"), value.to_owned()))
    .into()
}

#[test]
fn the_service_links_of_kubernetes_are_ignored() {
    for service in [
        "CACHE",
        "CACHE_REDIS_MASTER",
        "CACHE_LIMIT",
        "CACHE_LIMIT_API",
        "CACHE_POLICY_EVENTS",
        "CACHE_POOL_MAX",
        "REDIS",
        "DEV_REDIS",
        "TEST_REDIS",
        "PROD_REDIS",
    ] {
        for environment in ["dev", "test", "prod"] {
            let mut vars = links(service);
            vars.push(("CACHE_ENV".into(), environment.into()));

            let config = Config::from_vars(vars).expect(service);

            let alone = read(&[("CACHE_ENV", environment)]);
            assert_eq!(config.to_string(), alone.to_string(), "{service}");
        }
        for alone in links(service) {
            Config::from_vars([alone.clone()]).unwrap_or_else(|error| panic!("{alone:?}: {error}"));
        }
    }
}

#[test]
fn an_own_value_is_used_next_to_service_links() {
    let mut vars = links("DEV_REDIS");
    vars.extend(links("CACHE"));
    vars.push(("DEV_REDIS_HOST".into(), "dev-redis".into()));
    let linked = Config::from_vars(vars.clone()).expect("valid");
    vars.push(("DEV_REDIS_PORT".into(), "6380".into()));
    vars.push(("CACHE_LIMIT_A_SERVICE_PORT".into(), "5/s".into()));
    let own = Config::from_vars(vars).expect("valid");

    assert_eq!(address(&linked), "redis://dev-redis:6379");
    assert_eq!(address(&own), "redis://dev-redis:6380");
    assert!(own.quota_of("a_service_port").is_some());
}

#[test]
fn variables_that_are_not_service_links_are_still_checked() {
    for (name, value, expected) in [
        ("CACHE_PORT", "6379", "CACHE_PORT: is not known"),
        ("CACHE_HOST", "10.0.0.1", "CACHE_HOST: is not known"),
        (
            "CACHE_SERVICE_HOSTS",
            "a",
            "CACHE_SERVICE_HOSTS: is not known",
        ),
        ("DEV_REDIS_PORT", "redis://h:1", "DEV_REDIS_PORT: found"),
    ] {
        let problem = problem(&[(name, value)]);
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn the_variable_of_the_testing_module_is_not_an_option() {
    read(&[("CACHE_TEST_REDIS_SERVER", "valkey-server")]);
}

fn read_over(defaults: Config, vars: &[(&str, &str)]) -> Config {
    Config::from_vars_over(defaults, vars.iter().copied()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn each_variable_overrides_the_default_of_the_code() {
    for setting in SETTINGS {
        let usual = setting.show(&mut Config::default());
        // Another valid value for each option.
        let others = [
            "7",
            "9",
            "12h",
            "70ms",
            "true",
            "12%",
            "event:*",
            "on",
            "replicas:1",
            "a:1=b:2",
        ];
        let mut allowed = others.into_iter().filter(|text| {
            let mut config = Config::default();
            setting.set(&mut config, text).is_ok()
                && setting.problem(&mut config).is_none()
                && setting.show(&mut config) != usual
        });
        let in_code = allowed.next().expect(setting.name);
        let mut defaults = Config::default();
        setting.set(&mut defaults, in_code).expect("allowed");
        let in_code = setting.show(&mut defaults);
        // So that no other option contradicts it.
        defaults = match setting.name {
            "pool_min" | "session_ttl" | "lease" => defaults
                .pool_max(10_000)
                .session_absolute(DAY)
                .load_deadline(DAY),
            "pool_max" => defaults.pool_min(1),
            "session_absolute" => defaults.session_ttl(Duration::from_millis(70)),
            "load_deadline" => defaults.lease(Duration::from_millis(100)),
            "cluster_map" => defaults.redis_url("redis+cluster://h").expect("valid"),
            _ => defaults,
        };

        let kept = Config::from_vars_over(defaults.clone(), [("HOME", "/root")]);
        // A comma is an empty list.
        let written = if usual.is_empty() { "," } else { &usual };
        let replaced = Config::from_vars_over(defaults, [(setting.variable(), written)]);

        assert_eq!(
            setting.show(&mut kept.expect(setting.name)),
            in_code,
            "{}",
            setting.name
        );
        assert_eq!(
            setting.show(&mut replaced.expect(setting.name)),
            usual,
            "{}",
            setting.name
        );
    }
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn the_environment_overrides_policies_and_limits_of_the_code_individually() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let quota = |limit| Quota {
        limit,
        window: minutes(1),
    };
    let defaults = Config::default()
        .policy(
            "events",
            TtlPolicy::default().ttl(minutes(5)).grace(minutes(1)),
        )
        .policy("Hot-Events", TtlPolicy::default().ttl(minutes(5)))
        .policy("users", TtlPolicy::default().ttl(minutes(5)))
        .limit("mail-out", quota(1))
        .limit("api", quota(1));

    let config = read_over(
        defaults,
        &[
            ("CACHE_POLICY_EVENTS_TTL", "10m"),
            ("CACHE_POLICY_HOT_EVENTS_TTL", "10m"),
            ("CACHE_POLICY_NEW_NONE_TTL", "10m"),
            ("CACHE_LIMIT_MAIL_OUT", "2/1m"),
        ],
    );

    let policy = |name| config.policy_of(name).expect(name);
    assert_eq!(
        (policy("events").ttl, policy("events").grace),
        (Some(minutes(10)), Some(minutes(1)))
    );
    assert_eq!(policy("Hot-Events").ttl, Some(minutes(10)));
    assert_eq!(policy("users").ttl, Some(minutes(5)));
    assert_eq!(policy("new").none_ttl, Some(minutes(10)));
    assert_eq!(config.quota_of("mail-out"), Some(quota(2)));
    assert_eq!(config.quota_of("api"), Some(quota(1)));

    let from_env = |name| {
        config
            .policy_from_env(name)
            .map(|policy| (policy.ttl, policy.grace))
    };
    assert_eq!(from_env("events"), Some((Some(minutes(10)), None)));
    assert_eq!(from_env("Hot-Events"), Some((Some(minutes(10)), None)));
    assert_eq!(from_env("users"), None);
}

#[test]
fn an_idle_time_of_the_environment_replaces_the_ttl_of_the_code_and_the_other_way_round() {
    let by_ttl = Config::default().session_ttl(2 * DAY).session_extend(DAY);
    let by_idle = Config::default().session_idle(DAY);

    let idle = read_over(by_ttl, &[("CACHE_SESSION_IDLE", "30m")]);
    let ttl = read_over(by_idle, &[("CACHE_SESSION_TTL", "2h")]);

    assert_eq!(idle.session_idle, Some(Duration::from_secs(1_800)));
    assert_eq!(ttl.session_idle, None);
    assert_eq!(ttl.session_ttl, Duration::from_secs(7_200));
}

#[test]
fn a_policy_set_after_the_environment_comes_from_the_code() {
    let vars = [("CACHE_POLICY_HOT_EVENTS_TTL", "10m")];
    let own = TtlPolicy::default().ttl(Duration::from_secs(1));

    let same = read(&vars).policy("hot_events", own.clone());
    let other = read(&vars).policy("hot-events", own.clone());
    let all = read(&vars).policies([("hot_events".to_owned(), own.clone())].into());

    for (config, name) in [
        (same, "hot_events"),
        (other, "hot-events"),
        (all, "hot_events"),
    ] {
        assert_eq!(config.policy_of(name), Some(&own));
        assert_eq!(config.policy_from_env(name), None);
    }
}

#[test]
fn the_environment_sets_the_prefix_unless_the_code_does() {
    let prefix = |defaults: Config, vars: &[(&str, &str)]| read_over(defaults, vars).prefix;
    let prod = [("CACHE_ENV", "prod")];
    let own = || Config::default().prefix("shop_");

    assert_eq!(prefix(Config::default(), &prod), "prod_");
    assert_eq!(prefix(own(), &prod), "shop_");
    assert_eq!(
        prefix(own(), &[("CACHE_ENV", "prod"), ("CACHE_PREFIX", "x_")]),
        "x_"
    );
    let prod_in_code = || Config::default().environment(Environment::PROD);
    assert_eq!(prefix(prod_in_code(), &[]), "prod_");
    assert_eq!(prefix(prod_in_code(), &[("CACHE_ENV", "test")]), "test_");
}

#[test]
fn a_url_replaces_the_redis_of_the_code_and_parts_replace_parts() {
    let defaults = || {
        Config::default()
            .redis_url("rediss://app:secret@code:7000/3")
            .expect("valid")
            .tls(Tls::Ca("/code.pem".into()))
    };

    let other = read_over(defaults(), &[("REDIS_URL", "redis://other")]);
    let part = read_over(
        defaults(),
        &[("DEV_REDIS_PORT", "7001"), ("REDIS_PASSWORD", "new")],
    );
    let on = read_over(defaults(), &[("REDIS_TLS", "on")]);
    let off = read_over(defaults(), &[("REDIS_TLS", "off")]);
    let into = read_over(
        Config::default()
            .username("app")
            .password("secret")
            .tls(Tls::Ca("/code.pem".into())),
        &[("REDIS_URL", "redis://other")],
    );

    assert_eq!(address(&other), "redis://other:6379");
    assert_eq!(
        (&other.username, &other.password, other.database, &other.tls),
        (&None, &None, 0, &Tls::Off)
    );
    assert_eq!(address(&part), "redis://code:7001");
    assert_eq!((part.username.as_deref(), part.database), (Some("app"), 3));
    assert_eq!(part.password, Some("new".into()));
    assert_eq!(on.tls, Tls::Ca("/code.pem".into()));
    assert_eq!(off.tls, Tls::Off);
    assert_eq!(
        (into.username.as_deref(), &into.tls),
        (Some("app"), &Tls::Ca("/code.pem".into()))
    );
}

#[test]
fn problems_of_the_code_are_named_by_option_until_a_variable_replaces_it() {
    let defaults = || Config::default().pool_min(60).lease(Duration::ZERO);

    let wrong = Config::from_vars_over(defaults(), [("CACHE_POOL_MAX", "50")]).expect_err("wrong");
    let put_right = Config::from_vars_over(
        defaults(),
        [("CACHE_POOL_MAX", "70"), ("CACHE_LEASE", "3s")],
    );

    let wrong = wrong.to_string();
    for line in [
        "CACHE_POOL_MAX: found `50`, allowed: at least pool_min, which is 60",
        "lease: found `0s`",
    ] {
        assert!(wrong.contains(&format!("\n  {line}")), "{wrong}");
    }
    put_right.expect("valid");
}

#[test]
fn a_too_long_duration_is_reported_with_the_longest() {
    for (text, found) in [("101years", "101years"), ("99999999999", "3168years")] {
        for name in [
            "CACHE_DEFAULT_TTL",
            "CACHE_POLICY_X_TTL",
            "CACHE_LEASE_WAIT",
            "CACHE_POOL_IDLE",
        ] {
            let problem = problem(&[(name, text)]);
            assert!(
                problem.contains(&format!("{name}: found `{found}")),
                "{problem}"
            );
            assert!(problem.ends_with("to 100years"), "{problem}");
        }
    }
    assert!(
        problem(&[("CACHE_DEFAULT_TTL", "99999999999999years")]).ends_with("from 1ms to 100years")
    );
    read(&[("CACHE_DEFAULT_TTL", "100years")]);
}

/// Returns the rows of the tables of variables in the documentation: variable and default. Other tables begin with a lower-case
/// letter.
fn documented() -> Vec<(String, String)> {
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    include_str!("../../../../docs/book/src/reference/configuration.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').collect();
            (cell(cells[1]), cell(cells[2]))
        })
        .filter(|(name, _)| name.starts_with(|first: char| first.is_ascii_uppercase()))
        .collect()
}

#[test]
fn the_documentation_lists_exactly_the_known_variables_with_their_defaults() {
    let mut names: Vec<_> = documented().into_iter().map(|(name, _)| name).collect();
    let mut expected: Vec<_> = known().collect();
    names.sort();
    expected.sort();

    assert_eq!(names, expected);
    for setting in SETTINGS {
        let default = setting.show(&mut Config::default());
        assert!(
            documented().contains(&(setting.variable(), default.clone())),
            "{}: {default}",
            setting.variable()
        );
    }
}

/// Returns what the page of `Config` states about each public field: its name, its default and its variables.
fn described() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let source = include_str!("../../config.rs");
    let (_, rest) = source
        .split_once("pub struct Config {")
        .expect("its beginning");
    let (fields, _) = rest.split_once("\n}").expect("its end");
    // Each part ends with the comment of the next field.
    let parts: Vec<_> = fields.split("\n    pub ").collect();
    let described = parts.windows(2).map(|pair| {
        let (name, _) = pair[1].split_once(':').expect("a field");
        let stated = pair[0]
            .split_once("/// Default: ")
            .map(|(_, stated)| stated);
        let (default, variables) = stated
            .and_then(|stated| stated.split_once(". "))
            .unwrap_or_else(|| panic!("no default of `{name}`"));
        let variables = variables.split('`').skip(1).step_by(2).collect();
        (name, default.trim_matches('`'), variables)
    });
    described.collect()
}

#[test]
fn the_page_of_the_configuration_states_all_defaults_and_variables() {
    let mut usual = Config::default();
    let printed = format!("{usual:#?}");
    let mut names: Vec<String> = Vec::new();

    for (field, stated, variables) in described() {
        let setting = SETTINGS.iter().find(|setting| setting.name == field);
        let default = match (field, setting) {
            ("environment", _) => usual.environment.name().to_owned(),
            ("clock", _) => "the system clock".to_owned(),
            (_, Some(setting)) => setting.show(&mut usual),
            (_, None) => {
                let value = format!("\n    {field}: ");
                let (_, value) = printed.split_once(&value).expect("a printed field");
                value.split_once(",\n").expect("a short value").0.to_owned()
            }
        };
        let default = match default.as_str() {
            "none" | "auto" | "unlimited" => "None",
            "" | "{}" => "empty",
            default => default,
        };
        assert_eq!(stated, default, "{field}");
        if let Some(setting) = setting {
            assert_eq!(variables, [setting.variable()], "{field}");
        }
        names.extend(variables.into_iter().map(str::to_owned));
    }

    let mut expected: Vec<_> = known()
        .map(|name| match name.split_once("_REDIS_") {
            Some((_, part)) => format!("<ENV>_REDIS_{part}"),
            None => name,
        })
        .collect();
    names.sort();
    expected.sort();
    expected.dedup();
    assert_eq!(names, expected);
}

proptest! {
    #[test]
    fn no_environment_causes_a_panic_or_shows_a_secret(
        values in prop::collection::vec(("[ -~é\\PC]{0,12}", 0_usize..100), 0..40),
        numbers in prop::collection::vec(("-?[0-9]{1,22}(s|ms|MiB|GiB|y)?", 0_usize..100), 0..10),
        secret in "[%:/@]{0,2}hunter[0-9]{8}[%:/@?#]{0,2}",
    ) {
        let names: Vec<_> = known().map(|name| name.replace("<NAME>", "EVENTS")).chain(["CACHE_X".to_owned()]).collect();
        let url = ("REDIS_URL".to_owned(), format!("redis://app:{secret}@host"));
        let password = ("DEV_REDIS_PASSWORD".to_owned(), secret.clone());
        let vars = values.into_iter().chain(numbers).map(|(value, index)| (names[index % names.len()].clone(), value));
        let vars: Vec<_> = vars.filter(|(name, _)| *name != url.0).chain([url.clone(), password]).collect();

        let shown = match Config::from_vars(vars) {
            Ok(config) => format!("{config} {config:?}"),
            Err(error) => format!("{error} {error:?}"),
        };

        let digits: String = secret.chars().filter(char::is_ascii_alphanumeric).collect();
        prop_assert!(!shown.contains(&digits), "{}", shown);
    }
}
