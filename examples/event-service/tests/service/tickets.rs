//! 200 buyers for 50 places.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Client, Service};

const EVENT: &str = r#"{"organizer_id": 3, "title": "Opening", "description": "All are welcome.", "location": "Oslo",
                        "state": "Oslo", "type": "meetup", "starts_at": 1900000000, "price_cents": 100, "capacity": 50}"#;

#[test]
fn a_database_in_memory_is_never_oversold() {
    never_oversold(&Service::start());
}

#[test]
fn a_database_in_a_file_is_never_oversold() {
    let file = DatabaseFile::new("oversold");

    never_oversold(&Service::with(&[("DATABASE_URL", &file.url())]));
}

fn never_oversold(service: &Service) {
    let event = on_sale(service);
    // Ten purchases for each of 20 users, because 200 logins would take longer than everything else.
    let users: Vec<_> = (1..=20).map(|user| (user, service.log_in(user))).collect();
    let buy = |(user, client): &(i64, Client<'_>)| {
        let purchase = format!(r#"{{"user_id": {user}, "quantity": 1}}"#);
        let path = format!("/api/events/{event}/tickets");
        client.send("POST", &path, Some(&purchase))
    };

    let answers: Vec<_> = std::thread::scope(|scope| {
        let buyers = users.iter().cycle().take(200);
        let buyers: Vec<_> = buyers.map(|user| scope.spawn(move || buy(user))).collect();
        buyers
            .into_iter()
            .map(|buyer| buyer.join().expect("an answer"))
            .collect()
    });

    let sold = answers.iter().filter(|answer| answer.status == 201).count();
    let refused = answers
        .iter()
        .filter(|answer| answer.status == 409 && answer.body["field"] == "quantity")
        .count();
    assert_eq!((sold, refused), (50, 150));
    assert_eq!(
        service.get(&format!("/api/events/{event}")).body["tickets_left"],
        0
    );
    assert_eq!(
        service.get(&format!("/api/events/{event}/analytics")).body["tickets_sold"],
        50
    );
}

#[test]
fn a_read_during_a_purchase_does_not_cache_the_old_value() {
    let file = DatabaseFile::new("read");
    let service = Service::with(&[("DATABASE_URL", &file.url())]);
    let event = on_sale(&service);
    let buyer = service.log_in(5);
    let is_over = AtomicBool::new(false);
    let left = || service.get(&format!("/api/events/{event}")).body["tickets_left"].clone();

    let seen: Vec<_> = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    left();
                }
            });
        }
        let seen = (1..=50).map(|_| {
            let purchase = r#"{"user_id": 5, "quantity": 1}"#;
            let path = format!("/api/events/{event}/tickets");
            assert_eq!(buyer.send("POST", &path, Some(purchase)).status, 201);
            left()
        });
        let seen = seen.collect();
        is_over.store(true, Ordering::Relaxed);
        seen
    });

    let expected: Vec<_> = (0..50).rev().collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_draft_cannot_be_bought() {
    let service = Service::start();
    let organiser = service.log_in(3);
    let event = organiser.send("POST", "/api/events", Some(EVENT)).body["id"].to_string();

    let answer = organiser.send(
        "POST",
        &format!("/api/events/{event}/tickets"),
        Some(r#"{"user_id": 3, "quantity": 1}"#),
    );

    assert_eq!(
        (answer.status, answer.body["field"].as_str()),
        (409, Some("id"))
    );
}

#[test]
fn a_file_keeps_sold_tickets() {
    let file = DatabaseFile::new("kept");
    let environment = [("DATABASE_URL", &*file.url())];
    let first = Service::with(&environment);
    let ticket = first
        .log_in(5)
        .send(
            "POST",
            "/api/events/1/tickets",
            Some(r#"{"user_id": 5, "quantity": 1}"#),
        )
        .body;
    drop(first);

    let second = Service::with(&environment);

    let tickets = second.log_in(5).get("/api/users/5/tickets").body;
    assert_eq!(
        tickets.as_array().and_then(|tickets| tickets.last()),
        Some(&ticket)
    );
    assert_eq!(second.get("/api/events").body["total"], 1000);
}

/// Returns the id of a new event with 50 places.
fn on_sale(service: &Service) -> String {
    let organiser = service.log_in(3);
    let event = organiser.send("POST", "/api/events", Some(EVENT)).body["id"].to_string();
    organiser.send("POST", &format!("/api/events/{event}/publish"), None);
    event
}

/// A database file that is removed with its test.
pub(crate) struct DatabaseFile(std::path::PathBuf);

impl DatabaseFile {
    pub(crate) fn new(name: &str) -> Self {
        let file = Self(
            std::env::temp_dir().join(format!("event-service-{}-{name}.db", std::process::id())),
        );
        file.parts().for_each(|part| _ = std::fs::remove_file(part));
        file
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite:{}", self.0.display())
    }

    /// The file, and the files that SQLite keeps next to it.
    pub(crate) fn parts(&self) -> impl Iterator<Item = std::path::PathBuf> {
        ["", "-wal", "-shm"]
            .map(|suffix| format!("{}{suffix}", self.0.display()).into())
            .into_iter()
    }
}

impl Drop for DatabaseFile {
    fn drop(&mut self) {
        self.parts().for_each(|part| _ = std::fs::remove_file(part));
    }
}
