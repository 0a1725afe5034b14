use cache_runtime::cacheable;

#[cacheable(key = "near:<latitude>")]
async fn near(latitude: f64) -> Option<String> {
    Some(latitude.to_string())
}

fn main() {}
