//! Referral codes, and how they reach the leaderboard.

use serde_json::json;

use crate::support::{Client, Service};

#[test]
fn a_code_names_the_user_who_refers() {
    let service = Service::start();

    let referral = service.get("/api/referrals/REF-000007").body;

    assert_eq!(
        (&referral["code"], &referral["referrer_id"]),
        (&json!("REF-000007"), &json!(7))
    );
    assert!(referral["referrals"].is_u64(), "{referral}");
}

#[test]
fn a_referral_is_counted_and_reaches_the_leaderboard_at_once() {
    let service = Service::start();
    let user = service.log_in(1);
    let count = |referrer: i64| {
        let leaders = service.get("/api/leaderboard/referrals").body;
        let mut leaders = leaders.as_array().expect("a list").iter();
        let leader = leaders.find(|leader| leader["user_id"] == referrer);
        leader.expect("a leader")["referrals"].clone()
    };
    let code = "/api/referrals/REF-000007";
    let before = count(7);
    assert_eq!(service.get(code).body["referrals"], before);

    let used = redeem(&user, code);

    assert_eq!(used, 204);
    let more = json!(before.as_i64().expect("a number") + 1);
    assert_eq!(service.get(code).body["referrals"], more);
    assert_eq!(count(7), more);
}

#[test]
fn a_user_is_referred_once() {
    let service = Service::start();
    let user = service.log_in(1);

    let statuses = ["REF-000005", "REF-000005", "REF-000006"]
        .map(|code| redeem(&user, &format!("/api/referrals/{code}")));

    assert_eq!(statuses, [204, 409, 409]);
}

#[test]
fn a_code_is_used_in_the_name_of_the_session() {
    let service = Service::start();

    let statuses = [&service.client(), &service.log_in(2)]
        .map(|client| redeem(client, "/api/referrals/REF-000005"));

    assert_eq!(statuses, [401, 403]);
}

/// User 1, who was not referred before, uses this code.
fn redeem(client: &Client<'_>, code: &str) -> u16 {
    let body = r#"{"user_id": 1}"#;
    let used = client.send("POST", &format!("{code}/use"), Some(body));
    used.status
}
