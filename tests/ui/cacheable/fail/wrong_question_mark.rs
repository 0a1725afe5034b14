use cache_runtime::cacheable;

#[cacheable(key = "event:<id>", ttl = 60)]
async fn find(id: &str) -> Result<i64, std::fmt::Error> {
    let id: i64 = id.parse()?;
    Ok(id)
}

fn main() {}
