use cache_runtime::cacheable;

#[derive(serde::Serialize, serde::Deserialize)]
struct Event {
    id: i64,
}

#[cacheable(key = "event:<id>", local = "5s")]
async fn find(id: i64) -> Result<Event, std::fmt::Error> {
    Ok(Event { id })
}

fn main() {}
