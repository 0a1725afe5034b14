//! `event-service warm`, and warming on a schedule.

use std::path::PathBuf;

use cache_runtime::testing::RedisServer;

use crate::support::{PATIENCE, Service, eventually, run};

/// 1,000 events, 10 locations, 10 states, two lists and the leaderboard.
const ITEMS: usize = 1023;

/// The requests for the warmed entries.
const PATHS: &[&str] = &[
    "/api/events/1",
    "/api/events/1000",
    "/api/events",
    "/api/events/trending",
    "/api/events/near/Amsterdam",
    "/api/events/near/Cape%20Town",
    "/api/events?state=Berlin",
    "/api/events?state=Lagos",
    "/api/leaderboard/referrals",
];

#[test]
fn entries_warmed_by_one_process_are_hits_in_another() {
    let (server, database) = (redis(), Database::new("found"));
    let environment = [
        ("REDIS_URL", &*server.url()),
        ("DATABASE_URL", &database.url()),
        PATIENCE,
    ];

    let warmed = run(&["warm"], &environment);
    let service = Service::with(&environment);
    for path in PATHS {
        assert_eq!(service.get(path).status, 200, "{path}");
    }

    assert_eq!(warmed.code, Some(0), "{warmed:?}");
    assert!(
        warmed
            .printed
            .starts_with(&format!("{ITEMS} loaded, 0 fresh, 0 failed in ")),
        "{warmed:?}"
    );
    let counts = service.counts();
    assert_eq!(
        (&counts["hits"], &counts["misses"]),
        (&PATHS.len().into(), &0.into())
    );
}

#[test]
fn fresh_entries_are_not_loaded_again_and_progress_is_lines_without_a_terminal() {
    let (server, database) = (redis(), Database::new("fresh"));
    let environment = [
        ("REDIS_URL", &*server.url()),
        ("DATABASE_URL", &database.url()),
        PATIENCE,
    ];
    run(&["warm"], &environment);

    let again = run(&["warm"], &environment);

    assert!(
        again
            .printed
            .starts_with(&format!("0 loaded, {ITEMS} fresh, 0 failed in ")),
        "{again:?}"
    );
    let lines: Vec<_> = again.said.lines().collect();
    assert_eq!(lines.len(), 10, "{again:?}");
    assert_eq!(lines[9], "1023 of 1023 done");
}

#[test]
fn warming_fails_with_a_reason_without_redis() {
    let mut server = RedisServer::tcp().expect("redis-server starts");
    server.kill();
    let database = Database::new("away");

    let warmed = run(
        &["warm"],
        &[
            ("REDIS_URL", &server.url()),
            ("DATABASE_URL", &database.url()),
        ],
    );

    assert_eq!(warmed.code, Some(1));
    assert!(
        warmed.printed.contains("0 loaded, 0 fresh, 1023 failed"),
        "{warmed:?}"
    );
    assert!(warmed.said.contains("Redis is unavailable"), "{warmed:?}");
}

#[test]
fn warming_needs_a_redis_and_a_database_file() {
    let (server, database) = (redis(), Database::new("nobody"));

    let without_redis = run(&["warm"], &[("DATABASE_URL", &database.url())]);
    let without_database = run(&["warm"], &[("REDIS_URL", &server.url())]);

    assert_eq!(
        (without_redis.code, without_database.code),
        (Some(1), Some(1))
    );
    assert!(
        without_redis
            .said
            .starts_with("event-service: set REDIS_URL")
    );
    assert!(
        without_database
            .said
            .starts_with("event-service: set DATABASE_URL")
    );
}

#[test]
fn an_unknown_command_is_refused_and_help_lists_the_commands() {
    for arguments in [
        &["wram"][..],
        &["warm", "now"],
        &["catalog", "json"],
        &["--version"],
    ] {
        let refused = run(arguments, &[]);

        let given = format!("`{}`", arguments.join(" "));
        assert_eq!(refused.code, Some(2));
        assert!(
            refused.said.contains(&given) && refused.said.contains("--help"),
            "{refused:?}"
        );
    }

    let help = run(&["--help"], &[]);

    assert_eq!((help.code, &*help.said), (Some(0), ""));
    for command in ["  warm ", "  catalog "] {
        assert!(help.printed.contains(command), "{help:?}");
    }
}

#[test]
fn with_warm_every_the_service_warms_on_a_schedule() {
    let server = redis();
    let mut service = Service::with(&[("REDIS_URL", &server.url()), ("WARM_EVERY", "1s")]);

    eventually("a first round", || {
        service.has_said(&format!("warmed: {ITEMS} loaded, 0 fresh, 0 failed"))
    });
    eventually("another", || {
        service.has_said(&format!("warmed: 0 loaded, {ITEMS} fresh, 0 failed"))
    });
    service.terminate();

    assert!(service.wait().0.success());
}

fn redis() -> RedisServer {
    RedisServer::start().expect("redis-server starts")
}

/// A database file that is removed with its test.
struct Database(PathBuf);

impl Database {
    fn new(name: &str) -> Self {
        let folder = format!("event-service-warming-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn url(&self) -> String {
        format!("sqlite:{}/events.db", self.0.display())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
