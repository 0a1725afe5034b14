use std::error::Error;

use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", grace = "10m", refresh = "background")]
async fn find(id: i64) -> Result<String, Box<dyn Error>> {
    Ok(id.to_string())
}

fn main() {}
