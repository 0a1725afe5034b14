//! All annotated functions of the program, known before the first call.

#[cfg(feature = "limits")]
use crate::site::LimitFacts;
use crate::site::Site;

/// The registration of a function with a caching attribute.
#[derive(Debug)]
pub struct Registered(pub &'static Site);

inventory::collect!(Registered);

/// The registration of a function with `#[rate_limit]`.
#[cfg(feature = "limits")]
#[derive(Debug)]
pub struct RegisteredLimit(pub &'static LimitFacts);

#[cfg(feature = "limits")]
inventory::collect!(RegisteredLimit);

/// Returns the functions with caching attributes of this program and its libraries.
pub(crate) fn sites() -> impl Iterator<Item = &'static Site> {
    inventory::iter::<Registered>().map(|registered| registered.0)
}

/// Returns the functions with `#[rate_limit]` that use the installed limiter: the name of each, and its policies.
#[cfg(feature = "limits")]
pub(crate) fn limit_sites() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    inventory::iter::<RegisteredLimit>()
        .map(|registered| registered.0)
        .filter(|facts| !facts.has_own_limiter)
        .map(|facts| (facts.name, facts.policies))
}

/// Registers a site at program start.
#[doc(hidden)]
#[macro_export]
macro_rules! __register {
    ($site:path) => {
        $crate::__private::inventory::submit! { $crate::__private::Registered(&$site) }
    };
}

/// Registers a site of `#[rate_limit]` at program start.
#[cfg(feature = "limits")]
#[doc(hidden)]
#[macro_export]
macro_rules! __register_limit {
    ($site:path) => {
        $crate::__private::inventory::submit! { $crate::__private::RegisteredLimit(&$site.facts) }
    };
}

#[cfg(test)]
mod tests {
    #![expect(dead_code, reason = "the functions are known without being called")]

    use std::pin::Pin;

    use super::*;
    use crate::limit::{Limited, RateLimiter};
    use crate::site::Role;
    use crate::{cache_evict, cache_put, cacheable, rate_limit};

    struct Holder<T>(T);

    impl<T: Sync> Holder<T> {
        #[cacheable(key = "method", crate = crate)]
        async fn method(&self) -> u8 {
            size_of_val(&self.0) as u8
        }
    }

    trait Counted {
        #[cacheable(key = "default", crate = crate)]
        async fn default_method(&self) -> u8 {
            0
        }
    }

    impl<T> Counted for Holder<T> {}

    #[cacheable(key = "generic", ignore = [value], crate = crate)]
    async fn generic<T>(value: T) -> u8 {
        drop(value);
        0
    }

    #[cacheable(key = "boxed", crate = crate)]
    fn boxed() -> Pin<Box<dyn Future<Output = u8> + Send>> {
        Box::pin(async move { 0 })
    }

    #[test]
    fn annotated_functions_of_every_shape_are_known_without_a_call() {
        let names: Vec<_> = sites().map(|site| site.name).collect();

        for function in ["method", "default_method", "generic", "boxed"] {
            let name = format!("{}::{function}", module_path!());
            let times = names.iter().filter(|known| **known == name).count();
            assert_eq!(times, 1, "{name}");
        }
    }

    #[cacheable(key = "search:<text>", crate = crate)]
    async fn search(text: &str) -> Vec<u8> {
        text.into()
    }

    #[cacheable(key = "bounded:<text>", unless = |found| found.is_empty(), crate = crate)]
    async fn bounded(text: &str) -> Vec<u8> {
        text.into()
    }

    #[cacheable(key = "found:<text>", crate = crate)]
    async fn found(text: &str) -> Result<Option<Vec<u8>>, Limited> {
        Ok(Some(text.into()))
    }

    #[cacheable(key = "remembered:<text>", none_ttl = 30, crate = crate)]
    async fn remembered(text: &str) -> Option<Vec<u8>> {
        Some(text.into())
    }

    #[cache_put(key = "put:<text>", crate = crate)]
    async fn put(text: &str) -> Vec<u8> {
        text.into()
    }

    #[cache_evict(key = "search:<text>", pattern = "found:*", crate = crate)]
    async fn evict(text: &str) {}

    #[cache_evict(all_entries, crate = crate)]
    async fn clear() {}

    #[test]
    fn roles_and_templates_of_functions_are_known_without_a_call() {
        let own = format!("{}::", module_path!());
        for (function, role, free_text) in [
            ("search", Role::Reads, "text"),
            ("bounded", Role::Reads, ""),
            ("found", Role::Reads, ""),
            ("remembered", Role::Reads, "text"),
            ("put", Role::Puts, ""),
            ("evict", Role::Evicts { keys: 1 }, ""),
            ("clear", Role::Clears, ""),
        ] {
            let site = sites()
                .find(|site| site.name.strip_prefix(&own) == Some(function))
                .expect(function);
            assert_eq!((site.role, site.free_text), (role, free_text), "{function}");
        }
    }

    #[cacheable(key = "page:<_id>:<name>", ttl = name.len() as u64, grace = 1, refresh = "background", crate = crate)]
    async fn page(
        _id: i64,
        name: String,
        _size: u8,
    ) -> Result<Option<std::string::String>, Limited> {
        Ok(Some(format!("{name}{_size}")))
    }

    #[test]
    fn what_the_signature_and_the_body_show_is_known_without_a_call() {
        let name = format!("{}::page", module_path!());
        let page = sites().find(|site| site.name == name).expect("it is known");

        assert_eq!(
            (page.value, page.numbers, page.unkeyed),
            ("String", "_id", "_size")
        );
        assert!(page.has_computed_ttl && page.refreshes_in_background);
        let location = page.location;
        let lines: Vec<_> = include_str!("registry.rs").lines().collect();
        assert!(location.file().ends_with("registry.rs"), "{location}");
        assert!(
            lines[location.line() as usize - 1].contains("page:<_id>:<name>"),
            "{location}"
        );
    }

    #[rate_limit(policy = ["payment", "api"], key = "<user>", crate = crate)]
    async fn pay(user: i64) -> Result<i64, Limited> {
        Ok(user)
    }

    #[rate_limit(policy = "payment", key = "all", limiter = limiter, crate = crate)]
    async fn refund(limiter: &RateLimiter) -> Result<(), Limited> {
        Ok(())
    }

    #[test]
    fn policies_of_the_installed_limiter_are_known_without_a_call() {
        let own = format!("{}::", module_path!());

        let sites: Vec<_> = limit_sites()
            .filter(|(name, _)| name.starts_with(&own))
            .collect();

        let expected: &[&str] = &["payment", "api"];
        assert_eq!(sites, [(format!("{own}pay").as_str(), expected)]);
    }
}
