//! The claims of confirmations, including abandoned claims.

use std::time::Duration;

use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn one_of_many_confirmations_claims_the_payment() {
    let payments = payments().await;
    let payment = initiate(&payments, 1).await;

    let mut confirmations = JoinSet::new();
    for _ in 0..10 {
        let (payments, tx) = (payments.clone(), payment.tx.clone());
        confirmations.spawn(async move { payments.claim(&tx, 1).await });
    }
    let claims = confirmations.join_all().await;

    let claimed = claims.iter().flatten().count();
    assert_eq!(claimed, 1);
    assert!(
        claims
            .iter()
            .flatten()
            .all(|claim| claim.status == Status::Capturing)
    );
}

#[tokio::test]
async fn an_abandoned_claim_is_taken_over_when_it_is_old() {
    let payments = payments().await;
    let payment = initiate(&payments, 1).await;
    payments.claim(&payment.tx, 1).await.expect("a claim");

    let early = payments.confirm(&payment.tx, 1).await;
    age(&payments, CLAIM - 5).await;
    let still_early = payments.confirm(&payment.tx, 1).await;
    age(&payments, 10).await;
    let late = payments.confirm(&payment.tx, 1).await;

    for refused in [early, still_early] {
        assert_eq!(status(refused), Some(409));
    }
    assert_eq!(late.expect("a payment").status, Status::Confirmed);
}

#[tokio::test]
async fn a_confirmation_continues_without_its_client() {
    let payments = payments().await;
    let payment = initiate(&payments, 1).await;

    let confirmation = payments.confirm(&payment.tx, 1);
    let cancelled = tokio::time::timeout(Duration::from_millis(20), confirmation).await;

    assert!(cancelled.is_err());
    let confirmed = async {
        while stored(&payments, &payment.tx).await != Status::Confirmed {
            tokio::task::yield_now().await;
        }
    };
    let confirmed = tokio::time::timeout(Duration::from_secs(10), confirmed).await;
    assert!(confirmed.is_ok());
}

#[tokio::test]
async fn the_database_decides_who_owns_a_payment() {
    let payments = payments().await;
    let payment = initiate(&payments, 1).await;

    let (others, unknown) = (
        payments.confirm(&payment.tx, 2).await,
        payments.confirm("none", 2).await,
    );

    assert_eq!((status(others), status(unknown)), (Some(403), Some(404)));
    assert_eq!(stored(&payments, &payment.tx).await, Status::Pending);
}

async fn payments() -> Payments {
    let db = Db::open(None, Duration::ZERO).await.expect("a database");
    Payments::new(db, Gateway::default())
}

async fn initiate(payments: &Payments, user_id: i64) -> Payment {
    let new = format!(
        r#"{{"user_id":{user_id},"event_id":1,"amount_cents":100,"card_number":"4111111111111111"}}"#
    );
    let new = serde_json::from_str(&new).expect("a payment");
    payments.initiate("tx-1", &new).await.expect("a payment")
}

/// Makes all claims older by some seconds.
async fn age(payments: &Payments, seconds: i64) {
    let aged = sqlx::query("UPDATE payments SET claimed_at = claimed_at - ?").bind(seconds);
    aged.execute(payments.db.write())
        .await
        .expect("a statement");
}

async fn stored(payments: &Payments, tx: &str) -> Status {
    let status = sqlx::query_scalar("SELECT status FROM payments WHERE tx = ?").bind(tx);
    status
        .fetch_one(payments.db.write())
        .await
        .expect("a payment")
}

fn status(outcome: Result<Payment>) -> Option<u16> {
    match outcome {
        Err(Error::Refused { status, .. }) => Some(status.as_u16()),
        _ => None,
    }
}
