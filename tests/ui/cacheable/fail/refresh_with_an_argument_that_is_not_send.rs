use std::rc::Rc;

use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", ignore = [source], grace = "10m", refresh = "background")]
async fn find(id: i64, source: Rc<str>) -> Option<String> {
    Some(format!("{id} {source}"))
}

fn main() {}
