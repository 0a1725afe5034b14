use cache_runtime::limit::Limited;
use cache_runtime::rate_limit;

#[rate_limit(policy = "pay/ment", key = "<usr_id>", cost = 1.5, cache = user_id)]
fn pay(user_id: i64) -> Result<i64, Limited> {
    Ok(user_id)
}

// The function is still there: nothing says that it is unknown.
fn caller() -> Result<i64, Limited> {
    pay(1)
}

fn main() {}
