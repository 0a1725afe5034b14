use cache_runtime::rate_limit;

#[rate_limit(policy = "payment", key = "<user_id>")]
async fn pay(user_id: i64) -> Option<i64> {
    Some(user_id)
}

fn main() {}
