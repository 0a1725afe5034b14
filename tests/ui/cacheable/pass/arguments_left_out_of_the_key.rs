//! What a key may leave out, and in which ways.
#![deny(warnings)]

use cache_runtime::{Cache, cache_evict, cache_put, cacheable};

struct Path<T>(T);
struct Query {
    page: u32,
    size: u32,
}
struct App {
    cache: Cache,
}

#[cacheable(key = "list:<kind>:<page>", ignore = [db, now])]
async fn ignored(db: &str, now: u64, kind: &str, page: u32) -> String {
    format!("{db} {now} {kind} {page}")
}

#[cacheable(key = "one:<kind>", ignore = r#type)]
async fn one(kind: &str, r#type: u8) -> String {
    format!("{kind} {}", r#type)
}

#[cacheable(key = "pattern:<slug>:<page>", ignore = [id], cache = app.cache)]
async fn patterns(
    app: &App,
    _trace: u128,
    Path((slug, id)): Path<(String, i64)>,
    Query { page, .. }: Query,
    _: u8,
) -> String {
    format!("{slug} {id} {page}")
}

#[cacheable(key = "whole:<query.page>:<query.size>")]
async fn whole(query @ Query { page, size }: &Query) -> u32 {
    query.page + page * size
}

impl App {
    #[cacheable(key = "receiver", cache = self.cache)]
    async fn receiver(&self) -> bool {
        true
    }

    #[cache_put(key = "list:<kind>")]
    async fn put(&self, kind: &str, page: u32) -> String {
        format!("{kind} {page}")
    }

    #[cache_evict(key = "list:<kind>")]
    async fn evict(&self, kind: &str, page: u32) -> String {
        format!("{kind} {page}")
    }
}

fn main() {
    let app = App {
        cache: Cache::memory(),
    };
    drop((app.receiver(), app.put("a", 1), app.evict("a", 1)));
    let query = || Query { page: 1, size: 2 };
    drop(ignored("db", 0, "a", 1));
    drop(one("a", 1));
    drop(patterns(&app, 0, Path(("a".to_owned(), 1)), query(), 0));
    drop(whole(&query()));
}
