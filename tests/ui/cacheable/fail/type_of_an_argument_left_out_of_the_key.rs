use cache_runtime::cacheable;

#[cacheable(key = "owner:<id>")]
async fn owner<T: Into<i64> + cache_runtime::KeyPart>(id: T) -> i64 {
    id.into()
}

fn main() {}
