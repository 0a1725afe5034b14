use cache_runtime::limit::Limited;
use cache_runtime::rate_limit;

use std::rc::Rc;

#[rate_limit(policy = "payment", key = "<user_id>")]
async fn pay(user_id: Rc<i64>) -> Result<Rc<i64>, Limited> {
    std::future::ready(()).await;
    Ok(user_id)
}

fn main() {
    drop(pay(Rc::new(1)));
}
