use cache_runtime::cacheable;

#[derive(serde::Serialize, serde::Deserialize)]
struct Event {
    organizer_id: i64,
}

#[cacheable(key = "event:<id>", tag = "<return.organizer_id>")]
async fn find(id: i64) -> Event {
    Event { organizer_id: id }
}

fn main() {}
