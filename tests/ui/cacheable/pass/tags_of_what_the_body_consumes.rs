#![deny(warnings)]

use std::sync::Arc;

use cache_runtime::cacheable;

#[derive(serde::Serialize, serde::Deserialize)]
struct Event {
    place: String,
}

struct Query {
    tenant: String,
    id: i64,
}

#[cacheable(
    key = "event:<query.tenant>:<query.id>",
    tag = ["events", "tenant:<query.tenant>", "place:<query.tenant>:<return.place>"],
    unless = |event| event.is_none()
)]
async fn find(query: Query) -> Result<Option<Event>, std::fmt::Error> {
    Ok(Some(Event {
        place: query.tenant,
    }))
}

#[cacheable(
    key = "shared:<query.tenant>:<query.id>",
    tag = ["place:<query.tenant>:<return.place>", "shared:<return.place.len()>"],
    ttl = |event| event.place.len() as u64,
    local = "5s",
    local_outage = "serve"
)]
async fn shared(query: Query) -> Arc<Event> {
    Arc::new(Event {
        place: query.tenant,
    })
}

#[cacheable(
    key = "numbers:<tenant>",
    tag = "first:<tenant>:<return.len()>",
    local = 5,
    grace = "5m",
    refresh = "background"
)]
async fn numbers(tenant: String) -> Vec<u64> {
    vec![tenant.len() as u64]
}

fn main() {
    let query = |id| Query {
        tenant: String::new(),
        id,
    };
    drop(find(query(1)));
    drop(shared(query(2)));
    drop(numbers(String::new()));
}
