use cache_runtime::limit::Limited;
use cache_runtime::rate_limit;

#[rate_limit(policy = "payment", key = "<user_id>", tag = "payments")]
async fn pay(user_id: i64) -> Result<i64, Limited> {
    Ok(user_id)
}

fn main() {}
