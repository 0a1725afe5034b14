//! Functions with `#[rate_limit]`: which calls run their bodies, and what refused calls return.

use std::sync::Arc;

use async_trait::async_trait;
use cache_runtime::limit::{Identity, Limited, Policy, RateLimiter};
use cache_runtime::{KeyPart, cache_evict, cacheable, rate_limit};

use crate::lab::{Event, Lab};

/// The error type of a service.
#[derive(Debug)]
enum Failure {
    Refused(Limited),
    Declined,
}

impl From<Limited> for Failure {
    fn from(limited: Limited) -> Self {
        Self::Refused(limited)
    }
}

impl Failure {
    fn policy(&self) -> &str {
        match self {
            Self::Refused(limited) => limited.policy(),
            Self::Declined => "",
        }
    }
}

type Answer<T> = Result<T, Failure>;

/// A separate limiter, and the lab of the bodies.
struct Desk {
    lab: Lab,
    limiter: RateLimiter,
}

/// Each client may make two payments, three API calls and one search.
fn policies() -> [Policy; 3] {
    [
        Policy::new("payment").limit(2).per("1h"),
        Policy::new("api").limit(3).per("1h"),
        Policy::new("search").limit(1).per("1h"),
    ]
}

impl Desk {
    fn new() -> Self {
        let lab = Lab::new();
        let limiter = RateLimiter::new(&lab.cache, policies()).expect("valid policies");
        Self { lab, limiter }
    }

    fn limiter(&self) -> RateLimiter {
        self.limiter.clone()
    }

    #[rate_limit(policy = "payment", key = "<user>", limiter = self.limiter)]
    async fn pay(&self, user: i64) -> Answer<usize> {
        Ok(self.lab.run())
    }

    #[rate_limit(policy = "payment", key = "<payment.0>", limiter = self.limiter())]
    async fn shared(self: Arc<Self>, payment: (String, u32)) -> Answer<String> {
        self.lab.run();
        drop(self);
        Ok(payment.0)
    }

    #[rate_limit(policy = "api", key = "<user>", cost = items.len() as u32, limiter = self.limiter)]
    async fn list<'a>(&self, user: &str, items: &'a [Event]) -> Answer<Option<&'a Event>> {
        self.lab.run();
        Ok(items.first())
    }

    #[rate_limit(policy = ["payment", "api"], key = "<user>", limiter = self.limiter)]
    async fn both(&self, user: i64) -> Answer<()> {
        self.lab.run();
        Ok(())
    }

    #[rate_limit(policy = "refund", key = "<user>", limiter = self.limiter)]
    async fn of_an_unknown_policy(&self, user: i64) -> Answer<usize> {
        Ok(self.lab.run())
    }
}

#[tokio::test]
async fn a_call_over_the_limit_returns_an_error_without_running_the_body() {
    let desk = Desk::new();
    desk.pay(1).await.expect("the first");
    desk.pay(1).await.expect("the second");

    let third = desk.pay(1).await.expect_err("refused");

    assert_eq!(third.policy(), "payment");
    assert!(matches!(third, Failure::Refused(limited) if limited.retry_after().is_some()));
    assert_eq!(desk.lab.runs(), 2);
}

#[tokio::test]
async fn each_client_has_its_own_count() {
    let desk = Desk::new();

    for user in [1, 2, 1, 2] {
        desk.pay(user).await.expect("two for each");
    }

    desk.pay(1).await.expect_err("refused");
    desk.pay(2).await.expect_err("refused");
}

#[tokio::test]
async fn the_key_identifies_the_client() {
    let desk = Desk::new();
    desk.pay(1).await.expect("the first");
    desk.pay(1).await.expect("the second");

    let client = Identity::key(1);
    desk.limiter.reset("payment", &client).await.expect("reset");

    desk.pay(1).await.expect("the first after the reset");
}

#[tokio::test]
async fn an_error_of_the_body_is_returned_and_counted() {
    #[rate_limit(policy = "search", key = "all", limiter = desk.limiter)]
    async fn declined(desk: &Desk) -> Answer<()> {
        Err(Failure::Declined)
    }
    let desk = Desk::new();

    assert!(matches!(declined(&desk).await, Err(Failure::Declined)));
    assert!(matches!(declined(&desk).await, Err(Failure::Refused(_))));
}

#[tokio::test]
async fn a_body_can_consume_an_argument_of_the_key() {
    let desk = Arc::new(Desk::new());
    let payment = || ("ann".to_owned(), 5);

    let first = Arc::clone(&desk).shared(payment()).await.expect("paid");
    Arc::clone(&desk).shared(payment()).await.expect("paid");
    Arc::clone(&desk)
        .shared(payment())
        .await
        .expect_err("refused");

    assert_eq!(first, "ann");
    assert_eq!(desk.lab.runs(), 2);
}

#[tokio::test]
async fn cost_can_depend_on_the_arguments() {
    let desk = Desk::new();
    let events = [Event::new(1), Event::new(2)];

    let first = desk.list("ann", &events).await.expect("2 of 3 units");
    desk.list("ann", &events).await.expect_err("4 of 3 units");
    desk.list("ann", &[]).await.expect("a cost of 0");
    desk.list("ann", &events[..1]).await.expect("3 of 3 units");

    assert_eq!(first, events.first());
    assert_eq!(desk.lab.runs(), 3);
}

#[tokio::test]
async fn policies_are_decided_together() {
    let desk = Desk::new();
    desk.both(1).await.expect("the first");
    desk.both(1).await.expect("the second");

    let third = desk.both(1).await.expect_err("refused by one policy");

    assert_eq!(third.policy(), "payment");
    let left = desk.limiter.peek("api", &Identity::key(1)).await;
    assert_eq!(left.expect("it exists").policies[0].remaining, 1);
}

#[tokio::test]
async fn functions_with_one_policy_share_a_count() {
    #[rate_limit(policy = "payment", key = "<user>", limiter = desk.limiter)]
    async fn refund(desk: &Desk, user: i64) -> Result<(), Box<dyn std::error::Error>> {
        desk.lab.run();
        Ok(())
    }
    let desk = Desk::new();
    desk.pay(1).await.expect("the first");
    refund(&desk, 1).await.expect("the second");

    let third = refund(&desk, 1).await.expect_err("refused");

    assert!(third.is::<Limited>());
}

#[tokio::test]
async fn an_unknown_policy_does_not_limit() {
    let desk = Desk::new();

    for _ in 0..5 {
        desk.of_an_unknown_policy(1).await.expect("not limited");
    }

    assert_eq!(desk.lab.runs(), 5);
}

#[tokio::test]
async fn a_generic_function_is_limited() {
    #[rate_limit(policy = "search", key = "<client>", limiter = desk.limiter)]
    async fn largest<C, T, E, const N: usize>(
        desk: &Desk,
        client: C,
        values: [T; N],
    ) -> Result<Option<T>, E>
    where
        C: KeyPart + Send,
        T: Ord + Send,
        E: From<Limited>,
    {
        drop(client);
        Ok(values.into_iter().max())
    }
    let desk = Desk::new();

    let first: Result<_, Limited> = largest(&desk, "a", [1, 3, 2]).await;
    let second: Result<_, Failure> = largest(&desk, String::from("a"), ["x"]).await;

    assert_eq!(first.expect("found"), Some(3));
    second.expect_err("refused");
}

#[tokio::test]
async fn the_future_is_send_if_the_body_is() {
    #[rate_limit(policy = "search", key = "<event.id>", limiter = desk.limiter)]
    async fn save(desk: Arc<Desk>, event: Event) -> Answer<std::rc::Rc<i64>> {
        tokio::task::yield_now().await;
        Ok(event.id.into())
    }
    let desk = Arc::new(Desk::new());
    let call = save(Arc::clone(&desk), Event::new(1));

    let id = tokio::spawn(async { call.await.map(|id| *id).ok() });

    assert_eq!(id.await.expect("no panic"), Some(1));
}

#[tokio::test]
async fn the_installed_limiter_is_the_default() {
    #[rate_limit(policy = "payment", key = "installed:<user>")]
    async fn pay(user: i64) -> Answer<i64> {
        Ok(user)
    }
    pay(1).await.expect("no limiter is installed yet");
    let desk = Desk::new();
    desk.limiter
        .install()
        .expect("no other limiter is installed");
    pay(1).await.expect("the first");
    pay(1).await.expect("the second");

    pay(1).await.expect_err("refused");
    desk.limiter.install().expect("the same limiter");
    let second = Desk::new().limiter.install().expect_err("another");
    assert!(
        second.to_string().starts_with(
            "another rate limiter is already installed and stays installed; in tests, wrap the calls in `limiter.run("
        ),
        "{second}"
    );

    let other = Desk::new();
    other
        .limiter
        .run(pay(1))
        .await
        .expect("the first call of the installed limiter");
    pay(1).await.expect_err("the installed limiter refuses");
}

trait Native {
    async fn search(&self, text: &str) -> Answer<usize>;

    fn desk(&self) -> &Desk;

    #[rate_limit(policy = "search", key = "default", limiter = self.desk().limiter)]
    async fn search_all(&self) -> Answer<usize> {
        Ok(self.desk().lab.run())
    }
}

impl Native for Desk {
    #[rate_limit(policy = "search", key = "<text>", limiter = self.limiter)]
    async fn search(&self, text: &str) -> Answer<usize> {
        Ok(self.lab.run())
    }

    fn desk(&self) -> &Desk {
        self
    }
}

#[async_trait]
trait Gateway: Send + Sync {
    fn desk(&self) -> &Desk;

    async fn pay(&self, user: String) -> Answer<String>;
    async fn pay_shared(self: Arc<Self>, payment: (i64, u32)) -> Answer<u32>;
    async fn event(&self, id: i64) -> Answer<Event>;

    #[rate_limit(policy = "search", key = "default", limiter = self.desk().limiter)]
    async fn status(&self) -> Answer<usize> {
        Ok(self.desk().lab.run())
    }
}

#[async_trait]
impl Gateway for Desk {
    fn desk(&self) -> &Desk {
        self
    }

    #[rate_limit(policy = "search", key = "<user>", limiter = self.limiter)]
    async fn pay(&self, user: String) -> Answer<String> {
        self.lab.run();
        Ok(user)
    }

    #[rate_limit(policy = "search", key = "<user>", cost = cents, limiter = self.limiter)]
    async fn pay_shared(self: Arc<Self>, (user, cents): (i64, u32)) -> Answer<u32> {
        self.lab.run();
        Ok(cents)
    }

    #[rate_limit(policy = "api", key = "all", limiter = self.limiter)]
    #[cacheable(key = "event:<id>", cache = self.lab.cache)]
    #[rate_limit(policy = "search", key = "all", limiter = self.limiter)]
    async fn event(&self, id: i64) -> Answer<Event> {
        self.lab.run();
        Ok(Event::new(id))
    }
}

#[tokio::test]
async fn native_trait_methods_are_limited() {
    let desk = Desk::new();

    desk.search("a").await.expect("the first");
    desk.search("a").await.expect_err("refused");
    desk.search_all().await.expect("the first");
    desk.search_all().await.expect_err("refused");

    assert_eq!(desk.lab.runs(), 2);
}

#[tokio::test]
async fn async_trait_methods_are_limited() {
    let desk = Arc::new(Desk::new());
    let gateway: &dyn Gateway = &*desk;

    gateway.pay("ann".to_owned()).await.expect("the first");
    gateway.pay("ann".to_owned()).await.expect_err("refused");
    gateway.status().await.expect("the first");
    gateway.status().await.expect_err("refused");
    Arc::clone(&desk)
        .pay_shared((1, 1))
        .await
        .expect("the first");
    Arc::clone(&desk)
        .pay_shared((1, 1))
        .await
        .expect_err("refused");

    assert_eq!(desk.lab.runs(), 3);
}

#[tokio::test]
async fn an_async_trait_method_accepts_several_attributes() {
    let desk = Desk::new();

    desk.event(1).await.expect("the first search");
    desk.event(1).await.expect_err("a hit counts too");

    assert_eq!(desk.lab.runs(), 1);
}

#[tokio::test]
async fn a_limit_below_cacheable_counts_every_call() {
    #[cacheable(key = "event:<id>", cache = desk.lab.cache)]
    #[rate_limit(policy = "payment", key = "all", limiter = desk.limiter)]
    async fn event(desk: &Desk, id: i64) -> Answer<Event> {
        desk.lab.run();
        Ok(Event::new(id))
    }
    let desk = Desk::new();
    event(&desk, 1).await.expect("a load");
    event(&desk, 1).await.expect("a hit");

    event(&desk, 1).await.expect_err("a hit is refused too");

    assert_eq!(desk.lab.runs(), 1);
}

#[tokio::test]
async fn a_limit_above_cacheable_counts_only_loads() {
    #[rate_limit(policy = "payment", key = "all", limiter = desk.limiter)]
    #[cacheable(key = "event:<id>", cache = desk.lab.cache)]
    async fn event(desk: &Desk, id: i64) -> Answer<Event> {
        desk.lab.run();
        Ok(Event::new(id))
    }
    let desk = Desk::new();
    for id in [1, 1, 2, 2, 1] {
        event(&desk, id).await.expect("two loads and three hits");
    }

    event(&desk, 3).await.expect_err("a third load");

    event(&desk, 1).await.expect("a hit");
    assert!(!desk.lab.holds("event:3").await);
    assert_eq!(desk.lab.runs(), 2);
}

#[tokio::test]
async fn a_refused_call_evicts_nothing() {
    #[rate_limit(policy = "search", key = "above", limiter = desk.limiter)]
    #[cache_evict(key = "event:<id>", cache = desk.lab.cache)]
    async fn above(desk: &Desk, id: i64) -> Answer<()> {
        Ok(())
    }
    #[cache_evict(key = "event:<id>", always, cache = desk.lab.cache)]
    #[rate_limit(policy = "search", key = "below", limiter = desk.limiter)]
    async fn below(desk: &Desk, id: i64) -> Answer<()> {
        Ok(())
    }
    let desk = Desk::new();
    above(&desk, 1).await.expect("the first");
    below(&desk, 1).await.expect("the first");
    desk.lab.cache.set("event:1", &Event::new(1), 60_u64).await;

    above(&desk, 1).await.expect_err("refused");
    below(&desk, 1).await.expect_err("refused");

    assert!(desk.lab.holds("event:1").await);
}

#[tokio::test]
async fn two_limits_on_one_function_count_in_order() {
    #[rate_limit(policy = "api", key = "all", limiter = desk.limiter)]
    #[rate_limit(policy = "payment", key = "<user>", limiter = desk.limiter)]
    async fn pay(desk: &Desk, user: i64) -> Answer<()> {
        desk.lab.run();
        Ok(())
    }
    let desk = Desk::new();
    pay(&desk, 1).await.expect("the first");
    pay(&desk, 1).await.expect("the second");
    assert_eq!(
        pay(&desk, 1)
            .await
            .expect_err("the third call of user 1")
            .policy(),
        "payment"
    );
    pay(&desk, 2)
        .await
        .expect("the third call that reached `api`");

    assert_eq!(pay(&desk, 3).await.expect_err("the fourth").policy(), "api");
    assert_eq!(desk.lab.runs(), 3);
}

#[tokio::test]
async fn arguments_can_have_the_names_of_generated_variables() {
    #[rate_limit(policy = "search", key = "<__limit_key>:<__limit_call>", cost = __limit_limited, limiter = desk.limiter)]
    async fn sum(
        desk: &Desk,
        __limit_key: u32,
        __limit_call: u32,
        __limit_limited: u32,
    ) -> Answer<u32> {
        Ok(__limit_key + __limit_call + __limit_limited)
    }
    let desk = Desk::new();

    assert_eq!(sum(&desk, 2, 3, 1).await.expect("the first"), 6);
    sum(&desk, 2, 3, 1).await.expect_err("refused");
}
