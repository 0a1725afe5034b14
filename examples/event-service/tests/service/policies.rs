//! TTLs that operators change without a new build.

use cache_runtime::testing::RedisServer;

use crate::support::Service;

#[test]
fn a_variable_changes_the_ttl_of_profiles() {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::with(&[
        ("REDIS_URL", &server.url()),
        ("CACHE_POLICY_PROFILES_TTL", "10m"),
    ]);
    let user = service.log_in(1);

    service.get("/api/users/1");
    let loaded = ttl(&server, "dev_user:profile:1");
    user.send("PUT", "/api/users/1", Some(r#"{"name": "Zoé"}"#));
    let put = ttl(&server, "dev_user:profile:1");

    for seconds in [loaded, put] {
        assert!((595..=600).contains(&seconds), "{seconds} s");
    }
}

#[test]
fn a_variable_changes_the_ttl_of_payment_statuses() {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::with(&[
        ("REDIS_URL", &server.url()),
        ("CACHE_POLICY_PAYMENT_STATUS_TTL", "20s"),
    ]);
    let client = service.log_in(1);
    let body = r#"{"user_id":1,"event_id":1,"amount_cents":100,"card_number":"4111111111111111"}"#;
    let payment = client.send("POST", "/api/payments", Some(body)).body;
    let tx = payment["tx"].as_str().expect("text");

    let status = client.get(&format!("/api/payments/{tx}/status"));

    assert_eq!(status.body["status"], "pending");
    let seconds = ttl(&server, &format!("dev_payment:status:{tx}"));
    assert!((15..=20).contains(&seconds), "{seconds} s");
}

fn ttl(server: &RedisServer, key: &str) -> i64 {
    let mut redis = redis::Client::open(server.url())
        .and_then(|client| client.get_connection())
        .expect("a connection");
    let seconds = redis::cmd("TTL").arg(key).query(&mut redis);
    seconds.expect("an answer")
}
