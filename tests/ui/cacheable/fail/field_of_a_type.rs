use cache_runtime::cacheable;

#[cacheable(key = "count:<T.name()>")]
async fn count<T>() -> usize {
    size_of::<T>()
}

fn main() {}
