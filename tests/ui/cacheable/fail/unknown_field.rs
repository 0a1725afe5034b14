use cache_runtime::cacheable;

struct Page {
    number: u32,
}

#[cacheable(key = "events:<page.numbr>")]
async fn events(page: Page) -> Vec<u32> {
    vec![page.number]
}

fn main() {}
