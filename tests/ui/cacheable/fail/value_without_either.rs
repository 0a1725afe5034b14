use cache_runtime::cacheable;

struct Event {
    id: i64,
}

#[cacheable(key = "event:<id>")]
async fn find(id: i64) -> Event {
    Event { id }
}

fn main() {}
