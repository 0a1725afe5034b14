use cache_runtime::cacheable;

#[cacheable(key = "event:<name.lenght()>")]
async fn find(name: String) -> Option<String> {
    Some(name)
}

fn main() {}
