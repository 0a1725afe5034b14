use cache_runtime::limit::Limited;
use cache_runtime::rate_limit;

#[rate_limit(policy = "payment", key = "<amount>")]
async fn pay(amount: f64) -> Result<f64, Limited> {
    Ok(amount)
}

fn main() {}
