use cache_runtime::rate_limit;

struct PaymentError;

#[rate_limit(policy = "payment", key = "<user_id>")]
async fn pay(user_id: i64) -> Result<i64, PaymentError> {
    Ok(user_id)
}

fn main() {}
