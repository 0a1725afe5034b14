use cache_runtime::cacheable;

#[derive(serde::Serialize)]
struct Event {
    id: i64,
}

#[cacheable(key = "event:<id>")]
async fn find(id: i64) -> Option<Event> {
    Some(Event { id })
}

fn main() {}
