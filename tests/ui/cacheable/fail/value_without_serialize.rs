use cache_runtime::cacheable;

#[derive(serde::Deserialize)]
struct Event {
    id: i64,
}

#[cacheable(key = "event:<id>")]
async fn find(id: i64) -> Result<Event, std::fmt::Error> {
    Ok(Event { id })
}

fn main() {}
