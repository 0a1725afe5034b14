//! Guessing passwords: limited by address in front of the route ([`http`](crate::http)), and here by account, since guesses may
//! come from many addresses.
//!
//! Nobody can lock an account by guessing. Beyond a number of failures it is slow, for browsers that do not know it; one that its
//! user has logged in with before has a number of its own. Failures are counted and successes are not.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use cache_runtime::Error;
use cache_runtime::limit::{Identity, Limit, Policy, RateLimiter, Reservation};

use crate::accounts::Wrong;
use crate::devices::Device;
use crate::error::Result;

/// Accounts are counted in so many groups: a client chooses the name, and each name must not leave a record in Redis. To share one with
/// an account that is under attack costs little, since nobody is locked out.
const GROUPS: u64 = 1024;

/// The policies: failed logins of an account, and how quickly one that is over its limit can be tried on.
pub fn policies() -> [Policy; 2] {
    [
        // More than a person needs, and few enough that guessing a bad password takes weeks.
        Policy::new("account").limit(10).per("15m"),
        Policy::new("account-slow").limit(1).per("5s"),
    ]
}

#[derive(Clone, Debug)]
pub struct Guesses {
    account: Limit,
    slow: Limit,
}

/// A login that may be tried.
#[derive(Debug)]
pub struct Attempt {
    reservation: Reservation,
    /// Whether the account has too many failures already.
    is_slow: bool,
    address: IpAddr,
}

impl Guesses {
    /// # Errors
    ///
    /// A limiter without these [`policies`].
    pub fn new(limiter: &RateLimiter) -> std::result::Result<Self, Error> {
        Ok(Self {
            account: limiter.limit(&["account"])?,
            slow: limiter.limit(&["account-slow"])?,
        })
    }

    /// Charges a login before its password is looked at, so that guesses at the same time are counted, too.
    pub async fn admit(
        &self,
        username: &str,
        device: Option<&Device>,
        address: IpAddr,
    ) -> Result<Attempt> {
        let client = match device {
            Some(device) => Identity::key(format_args!("device:{}", device.id())),
            None => Identity::key(format_args!("group:{}", group(username))),
        };
        let attempt = |reservation, is_slow| Attempt {
            reservation,
            is_slow,
            address,
        };
        if let Ok(reservation) = self.account.reserve(&client).await {
            return Ok(attempt(reservation, false));
        }
        let reserved = self.slow.reserve(&client).await;
        let reservation = reserved.inspect_err(|limited| {
            self.slow
                .count_rejection(limited.decision(), "/api/auth/login");
        })?;
        Ok(attempt(reservation, true))
    }
}

impl Attempt {
    /// It was no wrong password, so it does not count.
    pub async fn forgive(self) {
        self.reservation.cancel().await;
    }

    /// It was a wrong password, which the log says, and whether the account is slow. What was typed is not in it: the password
    /// is sometimes typed where the name should be.
    pub fn failed(self, wrong: &Wrong) {
        let (address, user_id) = (self.address, shown(wrong.user_id));
        tracing::warn!(target: "audit", %address, %user_id, "login failed");
        if self.is_slow {
            tracing::warn!(target: "audit", %address, %user_id, "an account has too many failed logins and is throttled");
        }
    }
}

fn shown(user_id: Option<i64>) -> impl fmt::Display {
    user_id.map_or_else(|| "nobody".to_owned(), |id| id.to_string())
}

fn group(username: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    username.hash(&mut hasher);
    hasher.finish() % GROUPS
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_mapped_to_a_bounded_number_of_groups() {
        let groups: HashSet<_> = (0..20_000)
            .map(|number| group(&format!("name{number}")))
            .collect();

        assert_eq!(groups.len() as u64, GROUPS);
        assert_eq!(group("user1"), group("user1"));
    }
}
