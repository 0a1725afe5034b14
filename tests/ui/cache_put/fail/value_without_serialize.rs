use cache_runtime::cache_put;

#[derive(serde::Deserialize)]
struct Event {
    id: i64,
}

#[cache_put(key = "event:<id>")]
async fn save(id: i64) -> Result<Event, std::fmt::Error> {
    Ok(Event { id })
}

fn main() {}
