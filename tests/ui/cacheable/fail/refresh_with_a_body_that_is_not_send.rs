use std::rc::Rc;

use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", grace = "10m", refresh = "background")]
async fn find(id: i64) -> Option<String> {
    let shared = Rc::new(id);
    std::future::ready(()).await;
    Some(shared.to_string())
}

fn main() {}
