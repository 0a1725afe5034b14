use cache_runtime::cacheable;

struct Pool;

impl Pool {
    fn find(&self, name: &str, ids: &[i64]) -> Option<String> {
        (!ids.is_empty()).then(|| name.to_owned())
    }
}

#[cacheable(key = "event:<name>", ignore = [pool, ids], grace = "10m", refresh = "background")]
async fn find(pool: &Pool, name: &str, ids: &[i64]) -> Option<String> {
    pool.find(name, ids)
}

fn main() {}
