//! Long lists come in pages of 20.

use std::str::FromStr;

use cache_runtime::KeyPart;

/// The number of a page, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, KeyPart)]
pub struct Page(u32);

impl Page {
    /// The value of `LIMIT`.
    pub const SIZE: u32 = 20;

    /// The value of `OFFSET`.
    pub fn offset(self) -> i64 {
        i64::from(self.0 - 1) * i64::from(Self::SIZE)
    }

    /// The number, from 1.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl Default for Page {
    fn default() -> Self {
        Self(1)
    }
}

impl FromStr for Page {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse()
            .ok()
            .filter(|&number| number > 0)
            .map(Self)
            .ok_or(())
    }
}
