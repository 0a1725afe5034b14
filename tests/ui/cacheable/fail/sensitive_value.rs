use cache_runtime::{Sensitive, cacheable};

#[cacheable(key = "card:<id>")]
async fn card_number(id: i64) -> Sensitive<String> {
    Sensitive::from(id.to_string())
}

fn main() {}
