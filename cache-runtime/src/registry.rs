//! Every annotated function of the program, known before the first of them is called.

use crate::site::Site;

/// What an attribute leaves behind about its function.
#[derive(Debug)]
pub struct Registered(pub &'static Site);

inventory::collect!(Registered);

/// The annotated functions of this program and of all that it links.
pub(crate) fn sites() -> impl Iterator<Item = &'static Site> {
    inventory::iter::<Registered>().map(|registered| registered.0)
}

/// Makes a site known at start.
#[doc(hidden)]
#[macro_export]
macro_rules! __register {
    ($site:path) => {
        $crate::__private::inventory::submit! { $crate::__private::Registered(&$site) }
    };
}

#[cfg(test)]
mod tests {
    #![expect(dead_code, reason = "the functions are known without being called")]

    use std::pin::Pin;

    use super::*;
    use crate::cacheable;

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

    #[cacheable(key = "generic", crate = crate)]
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
}
