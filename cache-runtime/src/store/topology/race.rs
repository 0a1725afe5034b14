//! Attempts several addresses. A silent address must not delay the others.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use crate::config::Address;
use crate::error::{Error, ErrorKind, with_causes};
use crate::sync::Mutex;

/// The pause before the next address is tried beside those that have not answered yet: the Connection Attempt Delay that
/// RFC 8305, section 5, recommends.
const STAGGER: Duration = Duration::from_millis(250);

/// Tries the addresses in their order. The next one begins when an earlier one fails, or after a pause beside those under way;
/// the first that succeeds wins, and the others are dropped. All of them have begun after half of `patience`.
pub(super) async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    patience: Duration,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), Vec<(SocketAddr, Error)>>
where
    F: Future<Output = Result<T, Error>>,
{
    let share = patience / 2 / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let stagger = STAGGER.min(share);
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        match waiting.next() {
            Some(address) => {
                let attempt = attempt(address);
                running.push(async move { (address, attempt.await) });
            }
            None if running.is_empty() => return Err(failures),
            None => {}
        }
        tokio::select! {
            Some((address, result)) = running.next() => match result {
                Ok(opened) => return Ok((address, opened)),
                Err(error) => failures.push((address, error)),
            },
            () = sleep(stagger), if waiting.len() > 0 => {}
        }
    }
}

/// Returns the error if no address of a host could be used.
pub(super) fn none_of(host: &Address, mut failures: Vec<(SocketAddr, Error)>) -> Error {
    if failures.len() <= 1 {
        return match failures.pop() {
            Some((_, error)) => error,
            None => Error::new(
                ErrorKind::Connection,
                format!("{host} resolves to no address"),
            ),
        };
    }
    let kind = failures[0].1.kind();
    let is_one_kind = failures.iter().all(|(_, error)| error.kind() == kind);
    let causes: Vec<_> = failures
        .iter()
        .map(|(address, error)| format!("at {address}: {}", with_causes(error)))
        .collect();
    let kind = if is_one_kind {
        kind
    } else {
        ErrorKind::Connection
    };
    Error::new(kind, format!("cannot connect to {host}")).because(causes.join("; "))
}

/// Which address of each host worked last.
#[derive(Debug, Default)]
pub(super) struct Favourites(Mutex<HashMap<Address, SocketAddr>>);

impl Favourites {
    /// Returns the addresses of `host` in the order of attempts: first the one that worked last, then alternating families,
    /// as in RFC 8305, section 4.
    pub(super) fn order(&self, host: &Address, found: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let mut ordered: Vec<SocketAddr> = Vec::with_capacity(found.len());
        let favourite = self.lock().get(host).copied();
        let is_first_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
        let (mut first, mut second): (Vec<_>, Vec<_>) = found
            .iter()
            .partition(|address| address.is_ipv6() == is_first_v6);
        first.reverse();
        second.reverse();
        ordered.extend(favourite.filter(|favourite| found.contains(favourite)));
        while !(first.is_empty() && second.is_empty()) {
            for next in [first.pop(), second.pop()].into_iter().flatten() {
                if !ordered.contains(&next) {
                    ordered.push(next);
                }
            }
        }
        ordered
    }

    /// Remembers the address that worked, of a host with several.
    pub(super) fn worked(&self, host: &Address, address: SocketAddr) {
        self.lock().insert(host.clone(), address);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Address, SocketAddr>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_alternate_after_the_address_that_worked_last() {
        let favourites = Favourites::default();
        let host = Address::Tcp("redis.example.com".into(), 1);
        let [a6, b6, a4, b4] = ["[::1]:1", "[::2]:1", "1.1.1.1:1", "2.2.2.2:1"].map(address);
        let found = vec![a6, b6, a4, b4];

        assert_eq!(favourites.order(&host, found.clone()), [a6, a4, b6, b4]);
        favourites.worked(&host, b4);
        assert_eq!(favourites.order(&host, found), [b4, a6, a4, b6]);
        assert_eq!(favourites.order(&host, vec![a6, a4]), [a6, a4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_delays_the_next_by_a_pause_and_a_failed_one_does_not() {
        let [silent, refused, good] = ["1.1.1.1:1", "2.2.2.2:1", "3.3.3.3:1"].map(address);
        let began = tokio::time::Instant::now();

        let attempt = |address| async move {
            match address {
                _ if address == silent => std::future::pending().await,
                _ if address == refused => Err(Error::new(ErrorKind::Connection, "refused")),
                _ => Ok("opened"),
            }
        };
        let won = race(
            vec![silent, refused, good],
            Duration::from_secs(10),
            attempt,
        )
        .await;

        assert_eq!(won.ok(), Some((good, "opened")));
        assert_eq!(began.elapsed(), STAGGER);
    }

    #[tokio::test(start_paused = true)]
    async fn all_addresses_are_tried_within_half_of_the_timeout() {
        let addresses: Vec<_> = (1..=20)
            .map(|host| address(&format!("10.0.0.{host}:1")))
            .collect();
        let last = *addresses.last().unwrap();
        let began = tokio::time::Instant::now();

        let attempt = |address| async move {
            match address == last {
                true => Ok(()),
                false => std::future::pending().await,
            }
        };
        let won = race(addresses, Duration::from_secs(1), attempt).await;

        assert!(won.is_ok());
        assert!(began.elapsed() <= Duration::from_millis(500));
    }

    #[test]
    fn failures_are_reported_for_each_address() {
        let host = Address::Tcp("redis.example.com".into(), 1);
        let failure = |text: &'static str| Error::new(ErrorKind::Connection, text);

        let error = none_of(
            &host,
            vec![
                (address("[::1]:1"), failure("it is refused")),
                (address("1.1.1.1:1"), failure("it is silent")),
            ],
        );

        assert_eq!(
            with_causes(&error),
            "cannot connect to redis.example.com:1: at [::1]:1: it is refused; at 1.1.1.1:1: it is silent"
        );
    }
}
