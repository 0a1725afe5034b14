//! Users who buy together.

use std::collections::BTreeSet;

use cache_runtime::testing::RedisServer;
use serde_json::{Value, json};

use crate::privacy::execute;
use crate::support::{Answer, Client, Service, entries};
use crate::tickets::DatabaseFile;

#[test]
fn the_last_participant_completes_the_group_and_everyone_gets_a_ticket() {
    let service = Service::start();
    let clients = [2, 3, 4].map(|user| (user, service.log_in(user)));
    let before = service.get("/api/events/1").body["tickets_left"].clone();
    let held = |(user, client): &(i64, Client<'_>)| tickets(client, *user).len();
    let tickets_before = clients.each_ref().map(held);

    let created = create(&clients[0].1, 2, 3);
    let path = path(&created.body);
    let joined = join(&clients[1], &path);
    let open = service.get(&path).body;
    assert_eq!(clients.each_ref().map(held), tickets_before);
    let completed = join(&clients[2], &path);

    assert_eq!(
        (created.status, created.header("location")),
        (201, path.clone())
    );
    assert_eq!(
        (&created.body["participants"], &created.body["status"]),
        (&json!(1), &json!("open"))
    );
    assert_eq!(joined.body, open);
    assert_eq!(
        (&open["participants"], &open["status"]),
        (&json!(2), &json!("open"))
    );
    assert_eq!(
        (&completed.body["participants"], &completed.body["status"]),
        (&json!(3), &json!("complete"))
    );
    assert_eq!(service.get(&path).body, completed.body);
    assert_eq!(
        clients.each_ref().map(held),
        tickets_before.map(|before| before + 1)
    );
    let left = service.get("/api/events/1").body["tickets_left"].clone();
    assert_eq!(left.as_i64(), before.as_i64().map(|before| before - 3));
}

#[test]
fn a_group_never_has_more_participants_than_its_target() {
    let service = Service::start();
    let clients: Vec<_> = (2..=11).map(|user| (user, service.log_in(user))).collect();
    let path = path(&create(&clients[0].1, 2, 4).body);

    let answers: Vec<_> = std::thread::scope(|scope| {
        let joining: Vec<_> = clients[1..]
            .iter()
            .map(|client| scope.spawn(|| join(client, &path)))
            .collect();
        let joining = joining.into_iter();
        joining
            .map(|joined| joined.join().expect("an answer"))
            .collect()
    });

    let with = |status| answers.iter().filter(move |answer| answer.status == status);
    assert_eq!((with(200).count(), with(409).count()), (3, 6));
    assert!(with(409).all(|answer| answer.body["field"] == "id"));
    let group = service.get(&path).body;
    assert_eq!(
        (&group["participants"], &group["status"]),
        (&json!(4), &json!("complete"))
    );
}

#[test]
fn a_user_joins_once() {
    let service = Service::start();
    let client = (2, service.log_in(2));
    let path = path(&create(&client.1, 2, 3).body);

    let again = join(&client, &path);

    assert_eq!(
        (again.status, &again.body["field"]),
        (409, &json!("user_id"))
    );
    assert_eq!(service.get(&path).body["participants"], 1);
}

#[test]
fn an_expired_group_takes_no_one() {
    let file = DatabaseFile::new("expired");
    let service = Service::with(&[("DATABASE_URL", &file.url())]);
    let (creator, other) = (service.log_in(2), (3, service.log_in(3)));
    let path = path(&create(&creator, 2, 2).body);
    execute(&file, "UPDATE group_buys SET expires_at = unixepoch()");

    let refused = join(&other, &path);

    assert_eq!(
        (refused.status, &refused.body["detail"]),
        (409, &json!("the group buy has expired"))
    );
    let group = service.get(&path).body;
    assert_eq!(
        (&group["participants"], &group["status"]),
        (&json!(1), &json!("expired"))
    );
}

#[test]
fn a_group_stays_open_if_the_event_has_too_few_places_for_it() {
    let file = DatabaseFile::new("few");
    let service = Service::with(&[("DATABASE_URL", &file.url())]);
    let (creator, other) = (service.log_in(2), (3, service.log_in(3)));
    let path = path(&create(&creator, 2, 2).body);
    let held = tickets(&creator, 2);
    execute(&file, "UPDATE events SET sold = capacity - 1 WHERE id = 1");

    let refused = join(&other, &path);
    let open = service.get(&path).body;
    execute(&file, "UPDATE events SET sold = capacity - 2 WHERE id = 1");
    let joined = join(&other, &path);

    assert_eq!(
        (refused.status, &refused.body["field"]),
        (409, &json!("id"))
    );
    assert_eq!(refused.body["detail"], "only 1 are left");
    assert_eq!(
        (&open["participants"], &open["status"]),
        (&json!(1), &json!("open"))
    );
    assert_eq!(joined.body["status"], "complete");
    assert_eq!(tickets(&creator, 2).len(), held.len() + 1);
}

#[test]
fn a_group_is_not_larger_than_what_is_left() {
    let file = DatabaseFile::new("larger");
    let service = Service::with(&[("DATABASE_URL", &file.url())]);
    let creator = service.log_in(2);
    execute(&file, "UPDATE events SET sold = capacity - 2 WHERE id = 1");

    let statuses = [2, 3].map(|target| create(&creator, 2, target).status);

    assert_eq!(statuses, [201, 409]);
}

#[test]
fn joining_evicts_the_group_and_completing_it_also_what_shows_the_sale() {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    let (creator, other, last) = (
        service.log_in(2),
        (3, service.log_in(3)),
        (4, service.log_in(4)),
    );
    let paths = [2, 3].map(|user| format!("/api/users/{user}/tickets"));
    let group = path(&create(&creator, 2, 3).body);
    let read = || {
        assert_eq!(service.get(&group).status, 200);
        assert_eq!(service.get("/api/events/1").status, 200);
        assert_eq!(creator.get(&paths[0]).status, 200);
        assert_eq!(other.1.get(&paths[1]).status, 200);
        entries(&server)
    };
    let before = read();
    assert!(before.contains("dev_groupbuy:1"), "{before:?}");

    join(&other, &group);
    let after_one = entries(&server);
    read();
    let hits = || service.counts()["hits"].as_i64().expect("a number");
    join(&last, &group);
    let after_all = entries(&server);
    let before_reads = hits();
    read();

    let gone: BTreeSet<_> = before.difference(&after_one).map(String::as_str).collect();
    assert_eq!(gone, BTreeSet::from(["dev_groupbuy:1"]));
    let gone: BTreeSet<_> = before.difference(&after_all).map(String::as_str).collect();
    assert_eq!(gone, BTreeSet::from(["dev_event:1", "dev_groupbuy:1"]));
    // The lists of tickets have a tag, so they stay in Redis, but are not hits.
    assert_eq!(hits(), before_reads);
}

fn create(client: &Client<'_>, user: i64, target: i64) -> Answer {
    let body = format!(r#"{{"user_id": {user}, "target": {target}, "expires_in": 3600}}"#);
    client.send("POST", "/api/events/1/groupbuys", Some(&body))
}

fn join((user, client): &(i64, Client<'_>), path: &str) -> Answer {
    let body = format!(r#"{{"user_id": {user}}}"#);
    client.send("POST", &format!("{path}/join"), Some(&body))
}

fn path(group: &Value) -> String {
    format!("/api/groupbuys/{}", group["id"])
}

fn tickets(client: &Client<'_>, user: i64) -> Vec<Value> {
    let found = client.get(&format!("/api/users/{user}/tickets"));
    found.body.as_array().expect("a list").clone()
}
