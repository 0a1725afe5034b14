use cache_runtime::cache_evict;

struct Event {
    id: i64,
}

#[cache_evict(key = "event:<return.idd>")]
async fn change(id: i64) -> Result<Event, std::fmt::Error> {
    Ok(Event { id })
}

fn main() {}
