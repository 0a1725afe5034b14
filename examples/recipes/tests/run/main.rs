//! Every example does what it says, with Redis and without.

mod program;

use cache_runtime::testing::RedisServer;
use recipes::events::events_client::EventsClient;
use recipes::events::{GetRequest, RenameRequest};
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Channel;

use crate::program::{Program, Running};

/// Runs an example to its end, once in Redis and once in memory, and returns its output, which must be the same.
fn output(example: &str) -> Vec<String> {
    let redis = RedisServer::tcp().expect("a Redis");
    let cached = Program::new(example).redis(&redis).run();
    let in_memory = Program::new(example).run();
    assert_eq!(cached, in_memory, "{example} in Redis and in memory");
    cached
}

#[test]
fn quickstart() {
    let quartet = r#"Some(Event { id: 1, title: "A quartet" })"#;
    let quintet = r#"Some(Event { id: 1, title: "A quintet" })"#;
    let query = "query for event 1";
    assert_eq!(
        output("quickstart"),
        [query, quartet, quartet, query, quintet]
    );
}

#[test]
fn worker() {
    let redis = RedisServer::tcp().expect("a Redis");
    let (status, cached) = Program::new("worker").redis(&redis).end();
    let (_, in_memory) = Program::new("worker").end();
    assert_eq!(cached, in_memory);

    // The last job fails, and is not lost.
    assert_eq!(status.code(), Some(1));
    assert_eq!(
        cached,
        [
            "query for the rate of EUR",
            "job 1: Some(Product { id: 1, cents: 1100 })",
            "job 2: Some(Product { id: 2, cents: 1100 })",
            "query for the rate of JPY",
            "job 3: Some(Product { id: 1, cents: 10 })",
            "query for the rate of CHF",
            "jobs left: 1",
        ]
    );
}

#[test]
fn sqlx_transaction() {
    let output = output("sqlx_transaction");
    let refused = output.iter().position(|line| line.starts_with("refused: "));
    let (before, after) = output.split_at(refused.expect("a refused transfer"));
    let queries = ["query for account 1", "query for account 2"];
    let [first, second] = queries;
    assert_eq!(
        before,
        [first, second, "1000 and 0", first, second, "600 and 400"]
    );
    // Too little money, then an unknown account.
    assert!(
        after[1].starts_with("refused: no rows returned"),
        "{after:?}"
    );
    assert_eq!(after[2..], ["600 and 400"]);
}

#[test]
fn sea_orm() {
    let model = |title| format!(r#"Model {{ id: 1, title: "{title}", organizer: 7 }}"#);
    let (quartet, quintet) = (model("A quartet"), model("A quintet"));
    assert_eq!(
        output("sea_orm"),
        [
            "query for event 1".to_owned(),
            format!("Some({quartet})"),
            format!("Some({quartet})"),
            "query for the events of 7".to_owned(),
            "1 of organizer 7".to_owned(),
            "query for event 1".to_owned(),
            format!("Some({quintet})"),
            "query for the events of 7".to_owned(),
            format!("[{quintet}]"),
        ]
    );
}

#[test]
fn warming() {
    let redis = RedisServer::tcp().expect("a Redis");
    let first = Program::new("warming").redis(&redis).start("warmed");
    assert!(first.said("100 done"), "{first:?}");
    assert!(
        first.said("not warmed: item 100: there is no event 101"),
        "{first:?}"
    );
    assert!(
        first.said(r#"Ok("Event 1") after 101 queries"#),
        "{first:?}"
    );

    // The entries are in Redis, so only the event that does not exist is loaded again.
    let second = Program::new("warming").redis(&redis).start("warmed");
    assert!(
        second.said(r#"Ok("Event 1") after 1 queries"#),
        "{second:?}"
    );
}

#[test]
fn several_caches() {
    let expected = [
        "query for the profile of 7",
        "request for the token of 7",
        "User 7 with token-7",
        "User 7 with token-7",
        "session of user 7",
        "profile among the entries: true",
        "token among the entries: false",
    ];
    assert_eq!(output("several_caches"), expected);

    let (entries, sessions) = (
        RedisServer::tcp().expect("a Redis"),
        RedisServer::tcp().expect("another"),
    );
    let program = Program::new("several_caches").redis(&entries);
    assert_eq!(
        program.env("SESSIONS_REDIS_URL", &sessions.url()).run(),
        expected
    );
    assert!(holds(&sessions, "session:") && !holds(&sessions, "profile:"));
    assert!(holds(&entries, "profile:") && !holds(&entries, "session:"));
}

/// Returns whether the server has a key that contains the text.
fn holds(server: &RedisServer, text: &str) -> bool {
    let mut connection = redis::Client::open(server.url())
        .and_then(|client| client.get_connection())
        .expect("a connection");
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query(&mut connection)
        .expect("keys");
    keys.iter().any(|key| key.contains(text))
}

#[test]
fn axum() {
    let redis = RedisServer::tcp().expect("a Redis");
    let server = Program::new("axum").redis(&redis).serve();

    let miss = server.get("/events/1");
    assert_eq!(miss.json(), json!({"id": 1, "title": "A quartet"}));
    assert!(miss.header("cache-status").contains("fwd=miss"), "{miss:?}");
    let hit = server.get("/events/1");
    assert_eq!(hit.json(), miss.json());
    assert!(hit.header("cache-status").contains("; hit"), "{hit:?}");

    assert_eq!(
        server.send("PUT", "/events/1", &json!("A quintet")).status,
        204
    );
    assert_eq!(server.get("/events/1").json()["title"], "A quintet");

    assert_eq!(server.get("/events/2").status, 404);
    assert_eq!(
        server.send("PUT", "/events/2", &json!("A sextet")).status,
        404
    );
    assert_eq!(server.get("/readyz").status, 200);
    assert!(server.get("/metrics").body.contains("cache_gets_total"));
    let limited = (0..100)
        .map(|_| server.get("/events/1"))
        .find(|response| response.status == 429);
    assert!(
        limited
            .expect("a limit")
            .header("retry-after")
            .parse::<u32>()
            .is_ok()
    );
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn servers_end_with_sigterm() {
    let ready = "listening on ";
    for (example, ready) in [
        ("axum", ready),
        ("graphql", ready),
        ("tonic", ready),
        ("warming", "warmed"),
    ] {
        let mut running = Program::new(example).start(ready);
        running.terminate();
        assert_eq!(running.ended().code(), Some(0), "{example}: {running:?}");
    }
}

#[test]
fn actix() {
    let redis = RedisServer::tcp().expect("a Redis");
    let server = Program::new("actix").redis(&redis).serve();

    assert_eq!(server.get("/events/1").json(), json!({"id": 1, "likes": 0}));
    assert_eq!(server.get("/events/2").status, 404);
    let like = "/events/1/likes";
    assert_eq!(server.send("POST", like, &Value::Null).status, 401);
    for likes in 1..=3 {
        assert_eq!(server.post_as("7", like).status, 204);
        assert_eq!(server.get("/events/1").json()["likes"], likes);
    }
    let limited = server.post_as("7", like);
    assert_eq!(limited.status, 429);
    assert!(limited.header("retry-after").parse::<u32>().is_ok());
    assert_eq!(server.post_as("8", like).status, 204);
    assert!(
        (0..100).any(|_| server.get("/events/1").status == 429),
        "a limit for the address"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tonic() {
    let redis = RedisServer::tcp().expect("a Redis");
    let server = Program::new("tonic").redis(&redis).serve();
    let channel = Channel::from_shared(server.url.clone()).expect("a URL");
    let mut client = EventsClient::new(channel.connect().await.expect("a connection"));

    let get = |id| GetRequest { id };
    let event = client.get(get(1)).await.expect("an event").into_inner();
    assert_eq!(event.title, "A quartet");
    assert_eq!(
        client.get(get(2)).await.expect_err("no event").code(),
        Code::NotFound
    );

    let rename = || RenameRequest {
        id: 1,
        title: "A quintet".to_owned(),
    };
    for _ in 0..3 {
        client.rename(rename()).await.expect("a rename");
    }
    assert_eq!(
        client
            .get(get(1))
            .await
            .expect("an event")
            .into_inner()
            .title,
        "A quintet"
    );
    let limited = client.rename(rename()).await.expect_err("a limit");
    assert_eq!(limited.code(), Code::ResourceExhausted);

    let mut refused = None;
    for _ in 0..100 {
        if let Err(status) = client.get(get(1)).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("a limit for the address");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused.message().starts_with("rate limit `api` exceeded"),
        "{refused:?}"
    );
    assert!(refused.metadata().contains_key("retry-after"));
}

#[test]
fn graphql() {
    let redis = RedisServer::tcp().expect("a Redis");
    let server = Program::new("graphql").redis(&redis).serve();
    let ask = |query: &str| server.send("POST", "/", &json!({ "query": query })).json();

    let three = "{ a: event(id: 1) { title } b: event(id: 2) { title } c: event(id: 9) { title } }";
    let answer =
        json!({"data": {"a": {"title": "A quartet"}, "b": {"title": "A quintet"}, "c": null}});
    assert_eq!(ask(three), answer);
    assert_eq!(rows_asked_for(&server), 3);

    assert_eq!(
        ask("{ a: event(id: 1) { id } b: event(id: 2) { id } }"),
        json!({"data": {"a": {"id": 1}, "b": {"id": 2}}})
    );
    assert_eq!(ask(three), answer);
    // Only the event that does not exist was loaded again.
    assert_eq!(rows_asked_for(&server), 4);
}

/// In how many queries depends on how busy the machine is.
fn rows_asked_for(server: &Running) -> u32 {
    let lines = server.lines();
    let queries = lines
        .iter()
        .filter_map(|line| line.strip_prefix("query for "));
    queries
        .filter_map(|query| query.split(' ').next()?.parse::<u32>().ok())
        .sum()
}
