use cache_runtime::rate_limit;

#[rate_limit(policy = "payment", key = "<user_id>")]
async fn pay(user_id: i64) {
    drop(user_id);
}

fn main() {}
