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
