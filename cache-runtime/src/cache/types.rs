//! Which function stores which types, and whether their values come back.

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::site::Site;
use crate::sync::RwLock;

/// The first value of a function is decoded again when it is stored, and then one in this many.
const EVERY: u64 = 1_000;

/// What was stored so far. A function stores one type, unless it is generic.
#[derive(Debug, Default)]
pub(super) struct Types {
    /// By the address of the site, and the number of the type.
    written: RwLock<HashMap<(usize, u64), Arc<Written>>>,
}

/// What one function stores of one type.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) function: &'static str,
    pub(super) name: &'static str,
    values: AtomicU64,
    is_lossy: AtomicBool,
}

impl Types {
    pub(super) fn written(
        &self,
        site: &'static Site,
        of_type: u64,
        name: &'static str,
    ) -> Arc<Written> {
        let key = (ptr::from_ref(site).addr(), of_type);
        if let Some(known) = self.written.read().get(&key) {
            return Arc::clone(known);
        }
        let mut written = self.written.write();
        let written = written.entry(key).or_insert_with(|| {
            Arc::new(Written {
                function: site.name,
                name,
                values: AtomicU64::new(0),
                is_lossy: AtomicBool::new(false),
            })
        });
        Arc::clone(written)
    }

    /// Returns a function that stores the type with this number.
    pub(super) fn with_type(&self, of_type: u64) -> Option<Arc<Written>> {
        let written = self.written.read();
        let known = written.iter().find(|((_, known), _)| *known == of_type);
        known.map(|(_, written)| Arc::clone(written))
    }
}

impl Written {
    /// Returns whether the next value is decoded again. After one value that did not round-trip, all are.
    pub(super) fn is_due(&self) -> bool {
        self.values.fetch_add(1, Relaxed).is_multiple_of(EVERY) || self.is_lossy.load(Relaxed)
    }

    pub(super) fn set_lossy(&self) {
        self.is_lossy.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SITE: Site = Site::new("app::find", "x:<id>");
    static OTHER: Site = Site::new("app::list", "x:<id>");

    #[test]
    fn the_first_value_and_one_in_a_thousand_are_due() {
        let types = Types::default();

        let due = |site, of_type| types.written(site, of_type, "u8").is_due();

        let of_first: Vec<_> = (0..2_001).filter(|_| due(&SITE, 1)).collect();
        assert_eq!(of_first, [0, 1_000, 2_000]);
        assert!(due(&SITE, 2) && due(&OTHER, 1));
        assert!(!due(&SITE, 2) && !due(&OTHER, 1));
    }

    #[test]
    fn every_value_is_due_after_a_lossy_value() {
        let types = Types::default();
        let written = types.written(&SITE, 1, "u8");
        assert!(written.is_due() && !written.is_due());

        written.set_lossy();

        assert!((0..10).all(|_| types.written(&SITE, 1, "u8").is_due()));
    }

    #[test]
    fn the_function_that_stores_a_type_is_found_by_its_number() {
        let types = Types::default();
        types.written(&SITE, 7, "alloc::string::String");

        let known = types.with_type(7).map(|known| (known.function, known.name));

        assert_eq!(known, Some(("app::find", "alloc::string::String")));
        assert!(types.with_type(8).is_none());
    }
}
