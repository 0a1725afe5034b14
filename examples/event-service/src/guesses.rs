//! Limits for guessed passwords: by address in front of the route ([`http`](crate::http)), and here by account, because guesses can
//! come from many addresses.
//!
//! Guesses cannot lock an account. After a number of failures, logins from unknown browsers are slow. A browser in which the user
//! has logged in before has its own count. Only failures are counted.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use cache_runtime::Error;
use cache_runtime::limit::{Identity, Limit, Policy, RateLimiter, Reservation};

use crate::accounts::Wrong;
use crate::devices::Device;
use crate::error::Result;

/// The number of groups in which accounts are counted. A client chooses the name, and a record for each name would fill Redis. Sharing
/// a group with an account under attack costs little, because accounts are not locked.
const GROUPS: u64 = 1024;

/// The policies: failed logins of an account, and the rate of logins after that.
pub fn policies() -> [Policy; 2] {
    [
        // More than a person needs, and so few that guessing a weak password takes weeks.
        Policy::new("account").limit(10).per("15m"),
        Policy::new("account-slow").limit(1).per("5s"),
    ]
}

#[derive(Clone, Debug)]
pub struct Guesses {
    account: Limit,
    slow: Limit,
}

/// A login that is admitted.
#[derive(Debug)]
pub struct Attempt {
    reservation: Reservation,
    /// Whether the account already has too many failures.
    is_slow: bool,
    address: IpAddr,
}

impl Guesses {
    /// # Errors
    ///
    /// If the limiter does not have these [`policies`].
    pub fn new(limiter: &RateLimiter) -> std::result::Result<Self, Error> {
        Ok(Self {
            account: limiter.limit(&["account"])?,
            slow: limiter.limit(&["account-slow"])?,
        })
    }

    /// Charges a login before its password is checked, so that concurrent guesses are counted too.
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
    /// The password was not wrong, so the login does not count.
    pub async fn forgive(self) {
        self.reservation.cancel().await;
    }

    /// The password was wrong. Logs this, and whether the account is slow, but no input: users sometimes type the password as the
    /// name.
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
