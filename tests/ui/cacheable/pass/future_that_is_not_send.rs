use cache_runtime::cacheable;

use std::rc::Rc;

#[cacheable(key = "event:<id>")]
async fn find(id: Rc<i64>) -> i64 {
    std::future::ready(()).await;
    *id
}

fn main() {
    drop(find(Rc::new(1)));
}
