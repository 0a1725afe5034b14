use cache_runtime::cache_put;

struct Event {
    id: i64,
    title: String,
}

#[cache_put(key = "event:<event.id>-<event.title>", ttl = "30m")]
async fn save(event: Event) -> Option<String> {
    Some(event.title)
}

fn main() {
    drop(save(Event { id: 1, title: String::new() }));
}
