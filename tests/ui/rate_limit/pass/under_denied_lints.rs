#![deny(warnings, missing_docs, clippy::all, clippy::pedantic, unused)]
//! Nothing that the attribute generates is the user's to be warned about.

use cache_runtime::limit::Limited;
use cache_runtime::rate_limit;

/// Pays.
///
/// # Errors
///
/// If the call is refused.
#[rate_limit(policy = ["payment", "api"], key = "<user_id>:<shop>", cost = cost(cents))]
pub async fn pay(user_id: i64, shop: String, mut cents: u32) -> Result<u32, Limited> {
    cents += 1;
    Ok(cents)
}

fn cost(cents: u32) -> u32 {
    cents / 100
}

fn main() {}
