use cache_runtime::cacheable;

#[derive(serde::Serialize, serde::Deserialize)]
struct Event {
    id: i64,
}

struct Failed<'a>(&'a str);

#[cacheable(key = "event:<name>", unless = |event| event.id == 0)]
async fn find(name: &str) -> Result<Event, Failed<'_>> {
    name.parse().map(|id| Event { id }).map_err(|_| Failed(name))
}

fn main() {
    let _ = async {
        if let Err(Failed(name)) = find("1").await {
            drop(name);
        }
    };
}
