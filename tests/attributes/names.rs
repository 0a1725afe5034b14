//! Generated code ignores local types that have names of the standard library.

#![allow(dead_code, non_camel_case_types, reason = "the names are under test")]

use ::cache_runtime::limit::{Limited, Policy, RateLimiter};
use ::cache_runtime::{KeyPart, cache_evict, cache_put, cacheable, rate_limit};
use serde::{Deserialize, Serialize};

use crate::lab::Lab;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Result<T>(T);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Option(u8);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct String(u8);

struct Some;
struct None;
struct Ok;
struct Err;
struct Box;
struct Vec;
struct Future;
struct Site;
struct Call;
struct LimitSite;
struct LimitCall;
struct cache_runtime;

trait ToOwned {}
trait AsRef {}
trait From {}

mod core {}
mod std {}

#[cacheable(key = "a", cache = lab.cache)]
async fn result(lab: &Lab) -> Result<Option> {
    lab.run();
    Result(Option(1))
}

#[cache_put(key = "b", cache = lab.cache)]
async fn string(lab: &Lab) -> String {
    lab.run();
    String(2)
}

#[cache_evict(key = "<name>:<return.0>", cache = lab.cache)]
async fn option(lab: &Lab, name: &str) -> Option {
    lab.run();
    Option(3)
}

#[rate_limit(policy = "search", key = "<name>", cost = 1, limiter = limiter)]
async fn standard_result(limiter: &RateLimiter, name: &str) -> ::core::result::Result<u8, Limited> {
    ::core::result::Result::Ok(4)
}

#[tokio::test]
async fn a_limited_function_ignores_surrounding_names() {
    let search = Policy::new("search").limit(1).per("1h");
    let limiter = RateLimiter::new(&Lab::new().cache, [search]).expect("a policy");

    assert!(standard_result(&limiter, "x").await.is_ok());
    assert!(standard_result(&limiter, "x").await.is_err());
}

#[tokio::test]
async fn local_types_can_have_any_name() {
    let lab = Lab::new();

    result(&lab).await;
    assert_eq!(result(&lab).await, Result(Option(1)));
    string(&lab).await;
    option(&lab, "x").await;

    assert_eq!(lab.runs(), 3);
    assert!(lab.holds("a").await);
    assert!(lab.holds("b").await);
}

#[tokio::test]
async fn a_derived_key_part_ignores_surrounding_names() {
    #[derive(KeyPart)]
    enum Self_ {
        None,
    }
    #[derive(KeyPart)]
    struct Part {
        __cache_key: u8,
        kind: Self_,
    }
    #[cacheable(key = "<part>", cache = lab.cache)]
    async fn count(lab: &Lab, part: Part) -> usize {
        lab.run()
    }
    let lab = Lab::new();
    let kind = Self_::None;

    let part = Part {
        __cache_key: 1,
        kind,
    };
    count(&lab, part).await;

    assert!(lab.holds("1%cNone").await);
}

#[tokio::test]
async fn arguments_can_have_the_names_of_generated_variables() {
    #[cacheable(key = "<__cache_key>:<__cache_call>:<__cache_body>:<__cache_never>", cache = lab.cache)]
    #[cache_evict(key = "x:<__cache_return>:<return>:<__cache_held>", cache = lab.cache)]
    async fn sum(
        lab: &Lab,
        __cache_key: u8,
        __cache_call: u8,
        __cache_body: u8,
        __cache_never: u8,
        __cache_return: u8,
        __cache_held: u8,
    ) -> u8 {
        __cache_key + __cache_call + __cache_body + __cache_never + __cache_return + __cache_held
    }
    let lab = Lab::new();

    assert_eq!(sum(&lab, 1, 2, 3, 4, 5, 6).await, 21);

    assert!(lab.holds("1:2:3:4").await);
}
