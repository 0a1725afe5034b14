use super::*;
use crate::cache::Cache;

fn problem_of(config: Config) -> String {
    config.check().expect_err("wrong").to_string()
}

fn quota(limit: u32, window: Duration) -> Quota {
    Quota { limit, window }
}

const SECOND: Duration = Duration::from_secs(1);
const MAX_WINDOW: Duration = Duration::from_secs(31 * 86_400);

#[test]
fn the_defaults_are_within_their_own_limits() {
    Config::default().check().expect("valid");
}

#[test]
fn every_field_can_be_set_in_each_way_and_is_printed() {
    // A new field does not compile here until it has a setter, a variable and a line of output.
    let Config {
        environment: _,
        session_keys: _,
        redis: _,
        username: _,
        password: _,
        password_file: _,
        credentials: _,
        database: _,
        tls: _,
        tls_cert: _,
        tls_key: _,
        sentinel_username: _,
        sentinel_password: _,
        sentinel_password_file: _,
        sentinel_tls: _,
        sentinel_tls_cert: _,
        sentinel_tls_key: _,
        policies: _,
        policies_from_env: _,
        limits: _,
        clock: _,
        listen_at: _,
        prefix,
        client_name,
        require_redis,
        default_ttl,
        ttl_jitter,
        replicas,
        max_clients,
        session_ttl,
        session_extend,
        session_idle,
        session_absolute,
        session_touch_every,
        sessions_per_user,
        disabled,
        pool_min,
        pool_max,
        pool_idle,
        cluster_map,
        connect_timeout,
        command_timeout,
        command_timeout_max,
        health_interval,
        reconnect_max_delay,
        reconnect_max_attempts,
        lease,
        lease_wait,
        load_deadline,
        max_loads,
        max_refreshes,
        fence_ttl,
        failover_memory,
        evict_durability,
        max_value,
        compress_above,
        memory_capacity,
        local_capacity,
        local_staleness,
        journal_capacity,
        slow_threshold,
        mask_keys,
        card_guard,
    } = Config::default();
    let time = |duration: Duration| text::show_duration(duration);
    let fields = [
        ("prefix", prefix),
        ("client_name", client_name),
        (
            "require_redis",
            require_redis.map_or("auto".to_owned(), |is_on| is_on.to_string()),
        ),
        ("default_ttl", time(default_ttl)),
        ("ttl_jitter", format!("{ttl_jitter}%")),
        ("replicas", replicas.to_string()),
        ("max_clients", max_clients.to_string()),
        ("session_ttl", time(session_ttl)),
        ("session_extend", time(session_extend)),
        ("session_idle", session_idle.map_or("none".to_owned(), time)),
        ("session_absolute", time(session_absolute)),
        ("session_touch_every", time(session_touch_every)),
        ("sessions_per_user", sessions_per_user.to_string()),
        ("disabled", disabled.join(",")),
        ("pool_min", pool_min.to_string()),
        ("pool_max", pool_max.to_string()),
        ("pool_idle", time(pool_idle)),
        (
            "cluster_map",
            cluster_map
                .iter()
                .map(|(from, to)| format!("{from}={to}"))
                .collect(),
        ),
        ("connect_timeout", time(connect_timeout)),
        ("command_timeout", time(command_timeout)),
        ("command_timeout_max", time(command_timeout_max)),
        ("health_interval", time(health_interval)),
        ("reconnect_max_delay", time(reconnect_max_delay)),
        (
            "reconnect_max_attempts",
            reconnect_max_attempts.map_or("unlimited".to_owned(), |limit| limit.to_string()),
        ),
        ("lease", time(lease)),
        ("lease_wait", time(lease_wait)),
        ("load_deadline", time(load_deadline)),
        (
            "max_loads",
            max_loads.map_or("unlimited".to_owned(), |limit| limit.to_string()),
        ),
        ("max_refreshes", max_refreshes.to_string()),
        ("fence_ttl", time(fence_ttl)),
        ("failover_memory", time(failover_memory)),
        ("evict_durability", evict_durability.to_string()),
        ("max_value", text::show_bytes(max_value)),
        ("compress_above", text::show_bytes(compress_above)),
        ("memory_capacity", text::show_bytes(memory_capacity)),
        ("local_capacity", text::show_bytes(local_capacity)),
        ("local_staleness", time(local_staleness)),
        ("journal_capacity", journal_capacity.to_string()),
        ("slow_threshold", time(slow_threshold)),
        ("mask_keys", mask_keys.to_string()),
        ("card_guard", card_guard.to_string()),
    ];

    let printed = Config::default().describe();
    let printed: Vec<_> = printed
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .skip(4 + access::options().count())
        .collect();
    assert_eq!(printed, fields);
}

#[test]
fn all_problems_are_reported_together_by_option() {
    let config = Config::default()
        .prefix("my prefix*")
        .client_name("")
        .pool_min(0)
        .command_timeout(Duration::ZERO)
        .reconnect_max_delay(Duration::from_secs(61))
        .reconnect_max_attempts(0)
        .lease(Duration::from_millis(99))
        .max_value(0)
        .default_ttl(Duration::MAX)
        .disabled(["event:*", "session:*", ""])
        .database(-1)
        .ttl_jitter(51)
        .max_refreshes(100_001)
        .policy("events", TtlPolicy::default().none_ttl(Duration::ZERO))
        .policy("nights", TtlPolicy::default().grace(Duration::MAX))
        .replicas(0)
        .max_clients(0)
        .session_ttl(Duration::ZERO)
        .session_absolute(Duration::ZERO)
        .sessions_per_user(0)
        .limit("api", quota(0, SECOND))
        .limit("auth", quota(1, Duration::from_micros(999)))
        .limit("mail", quota(1, MAX_WINDOW + Duration::from_millis(1)));

    let problem = problem_of(config);

    for line in [
        "prefix: found `my prefix*`, allowed: non-empty text such as `dev_`",
        "client_name: found ``",
        "pool_min: found `0`, allowed: a whole number such as `5`, from 1 to 10000",
        "command_timeout: found `0s`, allowed: a duration such as `100ms`, or a number of seconds, from 1ms to 100years",
        "reconnect_max_delay: found `1m 1s`, allowed: a duration such as `3s`, or a number of seconds, from 1ms to 1m",
        "reconnect_max_attempts: found `0`",
        "lease: found `99ms`, allowed: a duration such as `3s`, or a number of seconds, from 100ms to 100years",
        "max_value: found `0`, allowed: a size such as `1MiB`, or a number of bytes, from 1 to 512MiB",
        "default_ttl: found",
        "disabled: found `event:*,session:*,`",
        "database: found `-1`",
        "ttl_jitter: found `51%`, allowed: a whole percentage such as `10%`, up to 50%",
        "max_refreshes: found `100001`, allowed: a whole number such as `64`, from 0 to 100000",
        "policies.events.none_ttl: found `0s`, allowed: a duration such as `30m`, or a number of seconds, from 1ms to 100years",
        "policies.nights.grace: found `",
        "replicas: found `0`, allowed: a whole number such as `1`, from 1 to 10000",
        "max_clients: found `0`, allowed: a whole number such as `100000`, from 1 to 100000000",
        "session_ttl: found `0s`, allowed: a duration such as `1day`",
        "session_absolute: found `0s`",
        "sessions_per_user: found `0`, allowed: a whole number such as `50`, from 1 to 1000",
        "limits.api: found `0/1s`, allowed: units per time, such as `100/60s` or `5/s`: 1 to 4294967295 units per 1 ms to",
        "limits.auth: found `1/999us`, allowed: units per time",
        "limits.mail: found `1/1month ",
    ] {
        assert!(
            problem.contains(&format!("\n  {line}")),
            "{line}\nis not in: {problem}"
        );
    }
    assert_eq!(problem.lines().count(), 24, "{problem}");
}

#[test]
fn values_at_their_limits_are_allowed() {
    for (jitter, refreshes) in [(0, 0), (50, 100_000)] {
        let config = Config::default()
            .ttl_jitter(jitter)
            .max_refreshes(refreshes)
            .policy(
                "events",
                TtlPolicy::default().grace(Duration::from_millis(1)),
            )
            .limit("api", quota(1, Duration::from_millis(1)))
            .limit("mail", quota(u32::MAX, MAX_WINDOW));

        config.check().expect("allowed");
    }
}

#[test]
fn the_times_of_a_policy_are_printed() {
    let policy = TtlPolicy::default()
        .ttl(Duration::from_secs(600))
        .grace(Duration::from_secs(3600))
        .none_ttl(Duration::from_secs(5));

    let printed = Config::default()
        .policy("events", policy)
        .policy("nights", TtlPolicy::default().grace(Duration::from_secs(1)))
        .describe();

    let printed: Vec<_> = printed
        .iter()
        .filter(|(name, _)| name.starts_with("policies."))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        printed,
        [
            ("policies.events.ttl", "10m"),
            ("policies.events.grace", "1h"),
            ("policies.events.none_ttl", "5s"),
            ("policies.nights.grace", "1s"),
        ]
    );
}

#[test]
fn the_quotas_of_limiters_are_printed() {
    let config = Config::default()
        .limit("mail-out", quota(5, SECOND))
        .limit("api", quota(100, Duration::from_secs(60)));

    let printed = config.to_string();

    assert!(
        printed.ends_with("\nlimits.api = 100/1m\nlimits.mail-out = 5/1s"),
        "{printed}"
    );
    let debugged = format!("{config:?}");
    assert!(
        debugged.contains("\"mail-out\": Quota { limit: 5, window: 1s }"),
        "{debugged}"
    );
}

#[test]
fn a_quota_applies_to_every_policy_with_the_same_variable_name() {
    let config = Config::default().limit("a_b", quota(1, SECOND));

    for policy in ["a_b", "a-b", "a.b", "A_B", "A-b"] {
        assert_eq!(config.quota_of(policy), Some(quota(1, SECOND)), "{policy}");
    }
    for policy in ["ab", "a", "a_b_c", ""] {
        assert_eq!(config.quota_of(policy), None, "{policy}");
    }
}

#[test]
fn a_quota_under_the_exact_name_of_a_policy_wins() {
    let config = Config::default()
        .limit("a_b", quota(1, SECOND))
        .limit("A-b", quota(2, SECOND));

    assert_eq!(config.quota_of("A-b"), Some(quota(2, SECOND)));
    assert_eq!(config.quota_of("a-b"), Some(quota(1, SECOND)));
}

#[test]
fn quotas_without_a_policy_are_reported() {
    let config = Config::default()
        .limit("api", quota(1, SECOND))
        .limit("mail_out", quota(1, SECOND))
        .limit("Own-Name", quota(1, SECOND))
        .limit("mail-in", quota(1, SECOND))
        .limit("apj", quota(1, SECOND));

    let unmatched = config.unmatched_limits(["API", "mail.out", "Own-Name", "mail_in"].into_iter());

    assert_eq!(unmatched, ["apj", "mail-in"]);
}

#[test]
fn contradictory_options_are_reported() {
    let pools = Config::default().pool_min(6).pool_max(5);
    let loads = Config::default().lease(Duration::from_secs(40));
    let user = Config::default().username("app");
    let socket = Config::default()
        .redis_url("unix:///run/redis.sock")
        .expect("valid")
        .tls(Tls::WebRoots);
    let nobody = Config::default().redis(Topology::Sentinel {
        sentinels: Vec::new(),
        master: "m".to_owned(),
    });
    let nowhere = Config::default().redis(Topology::Standalone(Address::Tcp("host".to_owned(), 0)));
    let nodes = |nodes: &[Address]| {
        Config::default().redis(Topology::Cluster {
            nodes: nodes.to_vec(),
        })
    };

    assert!(
        problem_of(pools).contains("pool_max: found `5`, allowed: at least pool_min, which is 6")
    );
    assert!(
        problem_of(loads)
            .contains("load_deadline: found `30s`, allowed: at least lease, which is 40s")
    );
    assert!(problem_of(user).contains("username: is set without a password"));
    assert!(problem_of(socket).contains("tls: cannot be on for a Unix socket"));
    assert!(problem_of(nobody).contains("redis: needs at least one sentinel"));
    assert!(problem_of(nowhere).contains("redis: found `redis://host:0`"));
    assert!(problem_of(nodes(&[])).contains("redis: needs at least one node of the cluster"));
    let socket = Address::Unix("/run/redis.sock".into());
    assert!(
        problem_of(nodes(&[socket]))
            .contains("redis: found `redis+cluster:///run/redis.sock`, allowed: a host and a port")
    );
    assert!(
        problem_of(nodes(&[Address::Tcp("h".to_owned(), 1)]).database(2))
            .contains("database: is 2, but a Redis Cluster has only the database 0")
    );
    let waiting =
        nodes(&[Address::Tcp("h".to_owned(), 1)]).evict_durability(EvictDurability::Replicas(1));
    assert!(problem_of(waiting).contains("evict_durability: is `replicas:1`, but evictions"));
}

#[test]
fn an_address_sets_only_the_parts_that_it_contains() {
    let config = Config::default()
        .username("app")
        .password("kept")
        .database(7);

    let config = config.redis_url("rediss://host").expect("valid");

    assert_eq!(
        config.redis.map(|topology| topology.to_string()).as_deref(),
        Some("redis://host:6379")
    );
    assert_eq!(
        (config.username.as_deref(), config.password),
        (Some("app"), Some("kept".into()))
    );
    assert_eq!((config.database, config.tls), (7, Tls::WebRoots));
}

#[test]
fn another_address_replaces_all_parts_of_the_first() {
    let first = || {
        Config::default()
            .redis_url("rediss://app:hunter2@first:7000/3")
            .expect("valid")
    };
    let ca = || first().tls(Tls::Ca("/ca.pem".into()));

    let bare = ca().redis_url("redis://second").expect("valid");
    let full = ca().redis_url("rediss://me:other@second/4").expect("valid");
    let socket = ca().redis_url("unix:///run/redis.sock").expect("valid");
    let sentinels = ca().redis_url("redis+sentinel://h/m").expect("valid");

    for config in [&bare, &socket, &sentinels] {
        let Config {
            username,
            password,
            database,
            tls,
            ..
        } = config;
        assert_eq!(
            (username, password, *database, tls),
            (&None, &None, 0, &Tls::Off),
            "{config}"
        );
        config.check().expect("valid");
    }
    assert_eq!(full.username.as_deref(), Some("me"));
    assert_eq!(full.password, Some("other".into()));
    assert_eq!((full.database, full.tls), (4, Tls::WebRoots));
}

#[test]
fn an_environment_sets_its_prefix_unless_the_code_does() {
    let usual = Config::default().environment(Environment::PROD);
    let own = Config::default()
        .prefix("shop_")
        .environment(Environment::PROD);

    assert_eq!(
        (usual.prefix.as_str(), own.prefix.as_str()),
        ("prod_", "shop_")
    );
}

#[test]
fn debug_output_contains_no_password() {
    let config = Config::default()
        .redis_url("redis://app:hunter2@host/1")
        .expect("valid");

    for printed in [
        format!("{config:?}"),
        format!("{config:#?}"),
        config.to_string(),
        format!("{:?}", config.describe()),
    ] {
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains("***"), "{printed}");
    }
    let error = Config::default()
        .redis_url("redis://app:hunter2@host:x")
        .expect_err("wrong");
    assert!(
        !format!("{error} {error:?}").contains("hunter2"),
        "{error:?}"
    );
}

#[tokio::test]
async fn production_without_redis_is_refused_unless_allowed() {
    let refused = async |config: Config| {
        let connected = Cache::connect(config).await;
        connected.err().map(|error| error.to_string())
    };
    let config = |environment, require: Option<bool>| {
        Config::default()
            .environment(environment)
            .require_redis(require)
    };

    let production = refused(config(Environment::PROD, None)).await;
    assert_eq!(
        production.as_deref(),
        Some(
            "invalid configuration:\n  redis: is not set, although the environment is `prod`; set REDIS_URL or call \
             `redis_url`, or set CACHE_REQUIRE_REDIS=false to keep entries, sessions and limits in the memory of each process"
        )
    );
    let required = refused(config(Environment::DEV, Some(true))).await;
    assert!(required.expect("refused").contains("`require_redis` is on"));
    for allowed in [
        config(Environment::PROD, Some(false)),
        config(Environment::TEST, None),
        config(Environment::DEV, None),
        // A configured server that is unreachable is an outage, not a configuration error.
        config(Environment::PROD, None)
            .redis_url("redis://127.0.0.1:1")
            .expect("valid"),
    ] {
        assert_eq!(refused(allowed).await, None);
    }
}

#[test]
fn session_absolute_is_at_least_the_ttl() {
    let config = Config::default()
        .session_ttl(2 * SECOND)
        .session_absolute(SECOND);

    assert_eq!(
        problem_of(config),
        "invalid configuration:\n  session_absolute: found `1s`, allowed: at least session_ttl, which is 2s; or lower that option"
    );
}

#[test]
fn session_keys_are_printed_by_name() {
    let secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let keys = SessionKeys::parse(&format!("2026-11:{secret}")).expect("keys");
    let config = Config::default().session_keys(keys);

    let printed = format!("{config}\n{config:?}");

    assert!(printed.contains("session_keys = 2026-11\n"), "{printed}");
    assert!(!printed.contains(secret), "{printed}");
}

#[test]
fn session_idle_excludes_session_ttl_and_session_extend() {
    let check = |config: Config| config.check().map_err(|error| error.to_string());
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let idle = || Config::default().session_idle(minutes(30));

    assert_eq!(check(idle()), Ok(()));
    assert_eq!(check(idle().session_absolute(minutes(30))), Ok(()));
    let both = check(idle().session_ttl(minutes(30))).unwrap_err();
    assert!(
        both.contains("session_idle: cannot be combined with `session_ttl`:"),
        "{both}"
    );
    let all = check(idle().session_ttl(minutes(30)).session_extend(minutes(5))).unwrap_err();
    assert!(
        all.contains("combined with `session_ttl` and `session_extend`:"),
        "{all}"
    );
    let short = check(idle().session_absolute(minutes(29))).unwrap_err();
    assert!(
        short.contains("session_absolute: found `29m`, allowed: at least session_idle"),
        "{short}"
    );
    let none = check(idle().session_idle(Duration::ZERO)).unwrap_err();
    assert!(none.contains("session_idle: found `0s`"), "{none}");
}

#[test]
fn session_idle_of_the_environment_excludes_the_other_variables() {
    let read = |variables: &[(&str, &str)]| {
        Config::from_vars(variables.iter().copied()).map_err(|error| error.to_string())
    };

    let config = read(&[("CACHE_SESSION_IDLE", "30m")]).unwrap();
    assert_eq!(config.session_idle, Some(Duration::from_secs(1_800)));
    assert_eq!(read(&[]).unwrap().session_idle, None);
    // Even if the other option sets its default value.
    for ttl in ["30m", "1day"] {
        let both = read(&[("CACHE_SESSION_IDLE", "30m"), ("CACHE_SESSION_TTL", ttl)]).unwrap_err();
        let told = "CACHE_SESSION_IDLE: cannot be combined with `CACHE_SESSION_TTL`:";
        assert_eq!(both.matches(told).count(), 1, "{both}");
    }
    let both = read(&[("CACHE_SESSION_IDLE", "30m"), ("CACHE_SESSION_EXTEND", "0")]).unwrap_err();
    assert!(
        both.contains("combined with `CACHE_SESSION_EXTEND`:"),
        "{both}"
    );
    let wrong = read(&[("CACHE_SESSION_IDLE", "half an hour")]).unwrap_err();
    assert!(
        wrong.contains("allowed: a duration such as `30m`"),
        "{wrong}"
    );
}
