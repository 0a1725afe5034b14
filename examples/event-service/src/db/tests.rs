//! New and old database files.

use std::path::PathBuf;

use super::*;

#[tokio::test]
async fn a_new_file_is_created_and_seeded() {
    let file = File::new("new");

    let db = file.open().await.expect("a database");

    assert_eq!(number(&db, "PRAGMA user_version").await, 4);
    assert_eq!(number(&db, "SELECT count(*) FROM users").await, 200);
    assert_eq!(number(&db, "SELECT count(*) FROM credentials").await, 200);
    let codes = "SELECT count(*) FROM referral_codes WHERE code = printf('REF-%06d', user_id)";
    assert_eq!(number(&db, codes).await, 200);
}

#[tokio::test]
async fn events_of_an_old_file_get_a_state_and_a_type() {
    let file = File::of_version_1(
        "states",
        &[
            "UPDATE events SET title = 'Opening', location = 'Utrecht' WHERE id = 1",
            "UPDATE events SET title = 'Concertina night' WHERE id = 2",
        ],
    )
    .await;

    let db = file.open().await.expect("a database");

    let of_seed = "SELECT count(*) FROM events
                   WHERE id > 2 AND lower(title) = type || ' no. ' || id AND state <> ''
                     AND (location <> 'Paris' OR state = 'Île-de-France')";
    assert_eq!(number(&db, of_seed).await, 998);
    let others = "SELECT count(*) FROM events
                  WHERE id <= 2 AND type = 'meetup' AND (id = 2 OR state = 'Utrecht')";
    assert_eq!(number(&db, others).await, 2);
    let states = "SELECT count(DISTINCT state) FROM events WHERE id > 2";
    assert_eq!(number(&db, states).await, 20);
}

#[tokio::test]
async fn tickets_of_an_old_file_are_valid() {
    let file = File::of_version_1("valid", &[]).await;

    let db = file.open().await.expect("a database");

    let valid = "SELECT count(*) FROM tickets WHERE status = 'valid'";
    assert_eq!(number(&db, valid).await, 3000);
}

#[tokio::test]
async fn a_current_file_is_not_changed() {
    let file = File::new("current");
    let db = file.open().await.expect("a database");
    execute(&db, "DELETE FROM credentials WHERE user_id = 7").await;
    db.close().await;

    let db = file.open().await.expect("a database");

    assert_eq!(number(&db, "SELECT count(*) FROM credentials").await, 199);
}

#[tokio::test]
async fn a_file_of_version_1_keeps_its_data_and_gets_credentials() {
    let file = File::of_version_1("old", &[
        "UPDATE users SET name = 'New' WHERE id = 1",
        "DELETE FROM referrals WHERE 200 IN (referred_id, referrer_id)",
        "DELETE FROM followers WHERE 200 IN (user_id, follower_id)",
        "DELETE FROM tickets WHERE user_id = 200",
        "UPDATE events SET organizer_id = 1 WHERE organizer_id = 200",
        "DELETE FROM users WHERE id = 200",
        "INSERT INTO users (id, name, email, bio) VALUES (201, 'Other', 'other@example.com', '')",
    ])
    .await;

    let db = file.open().await.expect("a database");

    assert_eq!(number(&db, "PRAGMA user_version").await, 4);
    let names = "SELECT count(*) FROM credentials WHERE username = 'user' || user_id";
    assert_eq!(number(&db, names).await, 199);
    let others = "SELECT count(*) FROM credentials WHERE user_id NOT BETWEEN 1 AND 199";
    assert_eq!(number(&db, others).await, 0);
    let kept = "SELECT count(*) FROM users WHERE name = 'New' OR id = 201";
    assert_eq!(number(&db, kept).await, 2);
}

#[tokio::test]
async fn payments_of_an_old_file_are_kept_and_can_be_claimed() {
    let file = File::of_version_1("payments", &[
        "INSERT INTO payments (tx, reference, user_id, event_id, amount_cents) VALUES ('a', 'ref-a', 1, 2, 300)",
        "INSERT INTO payments (tx, reference, user_id, event_id, amount_cents, status)
         VALUES ('b', 'ref-b', 4, 5, 600, 'confirmed')",
    ])
    .await;

    let db = file.open().await.expect("a database");

    let kept = "SELECT count(*) FROM payments WHERE (tx, reference, user_id, event_id, amount_cents, status) IN
                (VALUES ('a', 'ref-a', 1, 2, 300, 'pending'), ('b', 'ref-b', 4, 5, 600, 'confirmed'))";
    assert_eq!(number(&db, kept).await, 2);
    let claim = "UPDATE payments SET status = 'capturing', claimed_at = 1 WHERE tx = 'a'";
    execute(&db, claim).await;
    let unfounded = sqlx::query("UPDATE payments SET status = 'confirmed' WHERE tx = 'a'");
    assert!(
        unfounded.execute(db.write()).await.is_err(),
        "its claim is kept"
    );
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_with_advice() {
    let file = File::new("future");
    let db = file.open().await.expect("a database");
    execute(&db, "PRAGMA user_version = 5").await;
    db.close().await;

    let refused = file.open().await.expect_err("version 5 is unknown");

    assert_eq!(
        format!("{refused:#}"),
        "the database has version 5, but this event-service supports only versions up to 4: \
         start a newer event-service, or set DATABASE_URL to another file"
    );
}

#[tokio::test]
async fn a_failed_migration_changes_nothing() {
    let file = File::of_version_1("taken", &["CREATE TABLE credentials (mine)"]).await;

    let refused = file.open().await.expect_err("the table already exists");

    assert!(format!("{refused:#}").contains("another program's database"));
    let options = in_file(&file.url()).expect("a URL");
    let pool = pool(&options, 1).await.expect("a file");
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&pool)
        .await
        .expect("a version");
    assert_eq!(version, 1);
}

/// A database file that is removed with its test.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let folder = format!("event-service-db-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    /// A database from before there were credentials, with later changes.
    async fn of_version_1(name: &str, since: &[&'static str]) -> Self {
        let file = Self::new(name);
        let options = in_file(&file.url()).expect("a URL");
        let pool = pool(&options, 1).await.expect("a file");
        for script in STEPS[0].iter().chain(since) {
            sqlx::raw_sql(script)
                .execute(&pool)
                .await
                .expect("a statement");
        }
        pool.close().await;
        file
    }

    async fn open(&self) -> anyhow::Result<Db> {
        Db::open(Some(&self.url()), Duration::ZERO).await
    }

    fn url(&self) -> String {
        format!("sqlite:{}/events.db", self.0.display())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn execute(db: &Db, statement: &'static str) {
    let done = sqlx::query(statement).execute(db.write()).await;
    done.expect("a statement");
}

async fn number(db: &Db, query: &'static str) -> i64 {
    let number = sqlx::query_scalar(query).fetch_one(db.write()).await;
    number.expect("a number")
}
