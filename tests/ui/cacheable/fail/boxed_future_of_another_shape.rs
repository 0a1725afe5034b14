use std::pin::Pin;

use cache_runtime::cacheable;

#[cacheable(key = "event:<id>")]
fn find(id: i64) -> Pin<Box<dyn Future<Output = i64> + Send>> {
    Box::pin(std::future::ready(id))
}

fn main() {}
