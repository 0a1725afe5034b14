//! The limits of connections, in total and per address, and a reserve for health checks.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cache_runtime::http::ClientIpSource;
use cache_runtime::limit::Identity;
use tokio::sync::Notify;

/// The number of connections beyond the limits that are still served. They get the health, and 503 for everything else.
const RESERVE: usize = 16;

/// Other files that the process has open: the pool to Redis, the database, logs.
const OTHER_FILES: usize = 100;

/// The smallest limit, however few files the process may open.
const FEWEST: usize = 16;

/// How often refused connections are logged.
const REPORTED: Duration = Duration::from_secs(10);

/// The limits of connections.
#[derive(Clone, Debug)]
pub struct Limits {
    all: usize,
    of_an_address: usize,
    /// Proxies hold the connections of all their clients, so they are not limited by address.
    client_ip: ClientIpSource,
}

impl Limits {
    /// Returns these limits, or lower ones if the process may not open that many files.
    pub fn new(all: usize, of_an_address: usize, client_ip: ClientIpSource) -> Self {
        let files = open_files();
        let possible = files.map_or(all, |files| {
            files.saturating_sub(OTHER_FILES + RESERVE).max(FEWEST)
        });
        if possible < all {
            tracing::warn!(
                max_connections = possible,
                files,
                "the process cannot open files for {all} connections: raise `ulimit -n`, or lower MAX_CONNECTIONS"
            );
        }
        let all = all.min(possible);
        Self {
            all,
            // One address must not take all connections.
            of_an_address: of_an_address.min(all.div_ceil(2)),
            client_ip,
        }
    }
}

/// Returns the number of files that the process may open, if the system reports it.
fn open_files() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// All connections.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    /// The connections by address.
    by_address: HashMap<Identity, usize>,
    /// Connections of the reserve that have not asked for anything yet, the oldest first.
    silent: VecDeque<Arc<Waiter>>,
    /// Connections of the reserve that are being answered.
    answered: usize,
    refused: u64,
    reported: Option<Instant>,
}

/// A connection of the reserve.
#[derive(Debug, Default)]
struct Waiter {
    is_needed: Notify,
}

/// A place for a connection. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    state: Arc<Mutex<State>>,
    kind: Kind,
    has_begun: AtomicBool,
}

#[derive(Debug)]
enum Kind {
    /// The address under which it is counted, unless it is a proxy.
    Usual(Option<Identity>),
    Reserved(Arc<Waiter>),
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Arc::default(),
        }
    }

    /// Takes a place for another connection. Beyond the limits, the place is in the reserve, where it replaces the longest silent
    /// connection. Returns `None` if the whole reserve is busy, and the connection is refused.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<Place> {
        let is_proxy = self.limits.client_ip.trusts(peer);
        let address = (!is_proxy).then(|| Identity::ip(peer));
        let mut state = lock(&self.state);
        let of_address = address
            .as_ref()
            .and_then(|address| state.by_address.get(address));
        let is_over = of_address.is_some_and(|open| *open >= self.limits.of_an_address);
        if state.open < self.limits.all && !is_over {
            state.open += 1;
            if let Some(address) = &address {
                *state.by_address.entry(address.clone()).or_default() += 1;
            }
            return Some(self.place(Kind::Usual(address)));
        }
        state.report(peer, is_over);
        if state.silent.len() + state.answered >= RESERVE {
            state.silent.pop_front()?.is_needed.notify_one();
        }
        let waiter = Arc::new(Waiter::default());
        state.silent.push_back(Arc::clone(&waiter));
        Some(self.place(Kind::Reserved(waiter)))
    }

    /// Logs the reason, at a limited rate.
    pub(super) fn cannot_accept(&self, error: &io::Error) {
        if let Some(times) = lock(&self.state).due() {
            tracing::warn!(%error, times, "cannot accept connections");
        }
    }

    fn place(&self, kind: Kind) -> Place {
        Place {
            state: Arc::clone(&self.state),
            kind,
            has_begun: AtomicBool::new(false),
        }
    }
}

impl State {
    fn report(&mut self, peer: IpAddr, is_over: bool) {
        if let Some(times) = self.due() {
            let limit = match is_over {
                true => "MAX_CONNECTIONS_PER_ADDRESS",
                false => "MAX_CONNECTIONS",
            };
            tracing::warn!(%peer, limit, times, "too many connections; further connections are answered only about health");
        }
    }

    /// Returns the number of events since the last log line, if another line may be logged.
    fn due(&mut self) -> Option<u64> {
        self.refused += 1;
        if self.reported.is_some_and(|at| at.elapsed() < REPORTED) {
            return None;
        }
        self.reported = Some(Instant::now());
        Some(std::mem::take(&mut self.refused))
    }
}

impl Place {
    /// Records that the connection has sent a request.
    pub(super) fn begin(&self) {
        if self.has_begun.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Kind::Reserved(waiter) = &self.kind {
            let mut state = lock(&self.state);
            forget(&mut state.silent, waiter);
            state.answered += 1;
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    pub(super) fn is_reserved(&self) -> bool {
        matches!(self.kind, Kind::Reserved(_))
    }

    /// Completes when the place is needed for another connection.
    pub(super) async fn is_needed(&self) {
        match &self.kind {
            Kind::Reserved(waiter) => waiter.is_needed.notified().await,
            Kind::Usual(_) => std::future::pending().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        match &self.kind {
            Kind::Usual(address) => {
                state.open -= 1;
                if let Some(address) = address
                    && let Some(open) = state.by_address.get_mut(address)
                {
                    *open -= 1;
                    if *open == 0 {
                        state.by_address.remove(address);
                    }
                }
            }
            Kind::Reserved(_) if *self.has_begun.get_mut() => state.answered -= 1,
            Kind::Reserved(waiter) => forget(&mut state.silent, waiter),
        }
    }
}

fn forget(silent: &mut VecDeque<Arc<Waiter>>, waiter: &Arc<Waiter>) {
    silent.retain(|other| !Arc::ptr_eq(other, waiter));
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_the_share_of_an_address_use_the_reserve() {
        let connections = connections(100, 2);

        let mine: Vec<_> = (0..3).map(|_| admit(&connections, "192.0.2.1")).collect();
        let other = admit(&connections, "192.0.2.2");

        let reserved: Vec<_> = mine.iter().map(Place::is_reserved).collect();
        assert_eq!(reserved, [false, false, true]);
        assert!(!other.is_reserved());
        drop(mine);
        assert!(!admit(&connections, "192.0.2.1").is_reserved());
        drop(other);
        assert!(lock(&connections.state).by_address.is_empty());
    }

    #[test]
    fn an_ipv6_client_is_identified_by_its_network() {
        let connections = connections(100, 1);
        let _first = admit(&connections, "2001:db8::1");

        assert!(admit(&connections, "2001:db8::2").is_reserved());
        assert!(!admit(&connections, "2001:db8:0:1::1").is_reserved());
    }

    #[test]
    fn a_proxy_may_have_the_connections_of_all_its_clients() {
        let proxies = ClientIpSource::trusted_proxies(["192.0.2.1"]).expect("a proxy");
        let limits = Limits {
            all: 100,
            of_an_address: 1,
            client_ip: proxies,
        };
        let connections = Connections::new(limits);
        let _first = admit(&connections, "192.0.2.1");

        assert!(!admit(&connections, "192.0.2.1").is_reserved());
    }

    #[tokio::test]
    async fn a_new_connection_replaces_the_longest_silent_one_in_the_reserve() {
        let connections = connections(1, 1);
        let _usual = admit(&connections, "192.0.2.1");
        let reserved: Vec<_> = (0..RESERVE)
            .map(|_| admit(&connections, "192.0.2.1"))
            .collect();
        reserved[0].begin();

        let _newest = admit(&connections, "192.0.2.1");

        reserved[1].is_needed().await;
        let state = lock(&connections.state);
        assert_eq!((state.silent.len(), state.answered), (RESERVE - 1, 1));
    }

    #[test]
    fn a_connection_is_refused_if_the_whole_reserve_is_busy() {
        let connections = connections(1, 1);
        let _usual = admit(&connections, "192.0.2.1");
        let reserved: Vec<_> = (0..RESERVE)
            .map(|_| admit(&connections, "192.0.2.1"))
            .collect();
        reserved.iter().for_each(Place::begin);

        assert!(
            connections
                .admit("192.0.2.2".parse().expect("one"))
                .is_none()
        );
        drop(reserved);
        assert!(admit(&connections, "192.0.2.2").is_reserved());
    }

    fn connections(all: usize, of_an_address: usize) -> Connections {
        Connections::new(Limits {
            all,
            of_an_address,
            client_ip: ClientIpSource::peer(),
        })
    }

    fn admit(connections: &Connections, address: &str) -> Place {
        let address = address.parse().expect("an address");
        connections.admit(address).expect("a place")
    }
}
