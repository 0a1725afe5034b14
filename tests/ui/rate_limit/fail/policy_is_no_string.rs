use cache_runtime::limit::Limited;
use cache_runtime::rate_limit;

const PAYMENT: &str = "payment";

#[rate_limit(policy = PAYMENT, key = "<user_id>")]
async fn pay(user_id: i64) -> Result<i64, Limited> {
    Ok(user_id)
}

fn main() {}
