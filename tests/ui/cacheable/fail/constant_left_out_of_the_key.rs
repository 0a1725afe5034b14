use cache_runtime::cacheable;

#[cacheable(key = "first")]
async fn first<const N: usize>() -> Vec<usize> {
    (0..N).collect()
}

fn main() {}
