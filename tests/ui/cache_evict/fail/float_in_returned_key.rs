use cache_runtime::cache_evict;

#[cache_evict(key = "near:<return>")]
async fn change(id: i64) -> f64 {
    id as f64
}

fn main() {}
