//! Keys that a client chooses: the number of entries that many requests create.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::TcpStream;

use cache_runtime::testing::RedisServer;

use crate::edge::{answer, connect};
use crate::support::{Service, entries};

const MANY: i64 = 200;

/// The kind of request, its paths, and the status of the responses.
type Kind = (&'static str, fn(i64) -> String, u16);

#[test]
fn requests_without_results_leave_no_entries() {
    let redis = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&redis);
    let client = service.log_in(1);
    let mut connection = connect(&service);
    let kinds: [Kind; 19] = [
        (
            "pages",
            |number| format!("/api/events?page={}", 51 + number),
            200,
        ),
        (
            "trending",
            |number| format!("/api/events/trending?page={}", 51 + number),
            200,
        ),
        (
            "places",
            |number| format!("/api/events/near/nowhere%20{number}%3A%2A"),
            200,
        ),
        (
            "pages of a place",
            |number| format!("/api/events/near/Oslo?page={}", 4 + number),
            200,
        ),
        (
            "states",
            |number| format!("/api/events?state=nowhere%20{number}%3A%2A"),
            200,
        ),
        (
            "types",
            |number| format!("/api/events?state=Oslo&type=opera{number}"),
            400,
        ),
        (
            "pages of a state",
            |number| format!("/api/events?state=Oslo&type=concert&page={}", 2 + number),
            200,
        ),
        (
            "statuses of tickets",
            |number| format!("/api/users/1/tickets?status=lost{number}"),
            400,
        ),
        (
            "referral codes",
            |number| format!("/api/referrals/CODE-{number}"),
            404,
        ),
        (
            "group buys",
            |number| format!("/api/groupbuys/{number}"),
            404,
        ),
        (
            "pages of a user",
            |number| format!("/api/users/8/events?page={}", 2 + number),
            200,
        ),
        (
            "pages of the user's own data",
            |number| format!("/api/users/1/events?page={}", 4 + number),
            200,
        ),
        (
            "users",
            |number| format!("/api/users/{}", 201 + number),
            404,
        ),
        (
            "followers",
            |number| format!("/api/users/{}/followers", -number),
            404,
        ),
        (
            "events of users",
            |number| format!("/api/users/{}/events?page={number}", 201 + number),
            404,
        ),
        (
            "events",
            |number| format!("/api/events/{}", 1001 + number),
            404,
        ),
        (
            "analytics",
            |number| format!("/api/events/{}/analytics", 1001 + number),
            404,
        ),
        (
            "payments",
            |number| format!("/api/payments/tx-{number}"),
            404,
        ),
        (
            "statuses of payments",
            |number| format!("/api/payments/tx-{number}/status"),
            404,
        ),
    ];

    for (kind, path, status) in kinds {
        flood(&mut connection, &client.cookie(), status, path);

        assert_eq!(entries(&redis), BTreeSet::new(), "{kind}");
    }
    flood(&mut connection, &client.cookie(), 404, |number| {
        format!("/api/payments/verify/ref-{number}")
    });
    assert_eq!(entries(&redis), BTreeSet::new());
}

#[test]
fn each_page_with_results_leaves_one_entry() {
    let redis = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&redis);
    let mut connection = connect(&service);

    for list in [
        "/api/events?",
        "/api/events/trending?",
        "/api/events/near/Oslo?",
        "/api/events?state=Oslo&",
    ] {
        flood(&mut connection, "", 200, |number| {
            format!("{list}page={number}")
        });
    }

    // 1,000 events in pages of 20, in two lists, and 50 events in Oslo, in two lists.
    assert_eq!(entries(&redis).len(), 50 + 50 + 3 + 3);
}

/// Sends many requests of one kind, one after the other.
fn flood(connection: &mut TcpStream, cookie: &str, expected: u16, path: impl Fn(i64) -> String) {
    let mut answers = BufReader::new(connection.try_clone().expect("a clone"));
    for number in 1..=MANY {
        let path = path(number);
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\n\r\n");
        connection
            .write_all(head.as_bytes())
            .expect("an open connection");
        let (status, body) = answer(&mut answers);
        assert_eq!(status, expected, "{path}: {body}");
    }
}
