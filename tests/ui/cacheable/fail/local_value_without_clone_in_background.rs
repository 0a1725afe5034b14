use cache_runtime::cacheable;

#[derive(serde::Serialize, serde::Deserialize)]
struct Event {
    id: i64,
}

#[cacheable(key = "event:<id>", local = "5s", grace = "5m", refresh = "background")]
async fn find(id: i64) -> Event {
    Event { id }
}

fn main() {}
