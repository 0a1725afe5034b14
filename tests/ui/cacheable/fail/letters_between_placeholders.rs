use cache_runtime::cacheable;

#[cacheable(key = "event:<id>p<page>")]
async fn find(id: i64, page: u32) -> Option<String> {
    Some(format!("{id} {page}"))
}

fn main() {}
