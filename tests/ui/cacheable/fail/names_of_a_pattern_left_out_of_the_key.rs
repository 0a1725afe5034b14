use cache_runtime::cacheable;

struct Path<T>(T);
struct Query {
    page: u32,
    size: u32,
}

#[cacheable(key = "list:<slug>:<page>")]
async fn list(Path((slug, id)): Path<(String, i64)>, Query { page, size: limit }: Query) -> String {
    format!("{slug} {id}, page {page} of {limit}")
}

fn main() {}
