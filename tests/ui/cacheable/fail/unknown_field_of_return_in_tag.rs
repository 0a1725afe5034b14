use cache_runtime::cacheable;

#[derive(serde::Serialize, serde::Deserialize)]
struct Event {
    id: i64,
}

#[cacheable(key = "event:<id>", tag = "organizer:<return.organizer>")]
async fn find(id: i64) -> Option<Event> {
    Some(Event { id })
}

fn main() {}
