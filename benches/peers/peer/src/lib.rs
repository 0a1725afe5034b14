//! What the process of every peer does: the value, the body, and the blocks of work that the driver asks for.
//!
//! A peer implements [`Peer`] with the calls of its library and ends with [`main!`]. The process reads a [`Command`] a line from its
//! standard input, and writes a [`Reply`] a line to its standard output. The driver, which is another process, uses the same types.

mod body;
mod protocol;
mod serve;
mod value;
mod watch;
mod work;

use std::future::Future;

pub use body::load;
pub use protocol::{Command, Hits, Outage, Reply, Setup};
pub use serve::serve;
pub use value::{Event, Held};

#[doc(hidden)]
pub use stats_alloc;

/// A cache under test.
pub trait Peer: Sized + Send + Sync + 'static {
    /// Connects as the documentation of the library recommends.
    ///
    /// # Errors
    ///
    /// If the library has no such setup, or cannot connect.
    fn connect(setup: Setup, url: &str) -> impl Future<Output = anyhow::Result<Self>> + Send;

    /// Calls the cached function. Its body is [`load`].
    ///
    /// # Errors
    ///
    /// If the library returns an error instead of a value.
    fn call(&self, id: u64) -> impl Future<Output = anyhow::Result<Held>> + Send;

    /// Removes an entry in the way that the library documents.
    ///
    /// # Errors
    ///
    /// If the library returns an error.
    fn evict(&self, id: u64) -> impl Future<Output = anyhow::Result<Evicted>> + Send;
}

/// What became of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// The library says that the entry is removed.
    Done,
    /// The library documents no eviction. Why.
    Lacking(&'static str),
}

/// Defines `main`, which runs the process of a peer.
///
/// It is a function of the library of the peer, so that the code of the peer is generated once for its two binaries.
#[macro_export]
macro_rules! main {
    ($peer:ty) => {
        /// Runs the process of this peer.
        pub fn main() -> std::process::ExitCode {
            $crate::serve::<$peer>()
        }
    };
}

/// Makes the binary count its allocations.
#[macro_export]
macro_rules! count_allocations {
    () => {
        #[global_allocator]
        static ALLOCATOR: &$crate::stats_alloc::StatsAlloc<std::alloc::System> =
            &$crate::stats_alloc::INSTRUMENTED_SYSTEM;
    };
}
