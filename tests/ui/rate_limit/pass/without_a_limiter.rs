use std::cell::Cell;

use cache_runtime::limit::Limited;
use cache_runtime::rate_limit;

// With no limiter installed the body runs, and nothing is asked of the arguments.
#[rate_limit(policy = "payment", key = "<asked.never()>", cost = asked.never())]
async fn pay(asked: Asked<'_>) -> Result<&Cell<bool>, Limited> {
    Ok(asked.0)
}

struct Asked<'a>(&'a Cell<bool>);

impl Asked<'_> {
    fn never(&self) -> u32 {
        self.0.set(true);
        1
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let asked = Cell::new(false);

    for _ in 0..100 {
        assert!(pay(Asked(&asked)).await.is_ok());
    }

    assert!(!asked.get());
}
