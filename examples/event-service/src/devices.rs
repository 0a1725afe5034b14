//! Browsers in which a user has logged in before. An attacker who guesses a password slows down logins from unknown browsers
//! ([`guesses`](crate::guesses)), but not from browsers that the user has used: each has a cookie that outlives the session.
//!
//! The method is "Slow Down Online Guessing Attacks with Device Cookies" by OWASP. The cookie is not a login.

use std::fmt;

use axum::http::header::InvalidHeaderValue;
use axum::http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::db::Db;
use crate::error::Result;

/// The most devices of one user. Beyond that, the least recently used device is forgotten.
const MOST: i64 = 20;

/// Half a year, in seconds: users return from time to time to buy tickets.
const MAX_AGE: u64 = 15_552_000;

#[derive(Clone, Debug)]
pub struct Devices {
    db: Db,
}

/// A browser in which this account has logged in before.
#[derive(Clone)]
pub struct Device {
    token: String,
}

/// The attributes of the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCookie {
    /// Sent only over TLS.
    Secure,
    /// Also sent over plain HTTP.
    Insecure,
}

impl Devices {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Returns the device with this cookie, if the user with that name has logged in with it.
    pub async fn find(&self, cookie: Option<&str>, username: &str) -> Result<Option<Device>> {
        let Some(token) = cookie else { return Ok(None) };
        let known = sqlx::query(
            "SELECT 1 FROM devices JOIN credentials USING (user_id) WHERE token_hash = ? AND username = ?",
        )
        .bind(hash(token))
        .bind(username)
        .fetch_optional(self.db.write())
        .await?;
        Ok(known.map(|_| Device {
            token: token.to_owned(),
        }))
    }

    /// Records that the user has logged in with this device, or with a new one.
    pub async fn remember(&self, user_id: i64, device: Option<Device>) -> Result<Device> {
        let device = device.unwrap_or_else(|| Device {
            token: Uuid::new_v4().simple().to_string(),
        });
        let mut transaction = self.db.write().begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("INSERT OR REPLACE INTO devices (token_hash, user_id, used_at) VALUES (?, ?, unixepoch('subsec') * 1000)")
            .bind(hash(&device.token))
            .bind(user_id)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "DELETE FROM devices WHERE user_id = ?1 AND token_hash NOT IN
             (SELECT token_hash FROM devices WHERE user_id = ?1 ORDER BY used_at DESC LIMIT ?2)",
        )
        .bind(user_id)
        .bind(MOST)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(device)
    }
}

impl Device {
    /// Returns its name in limits, from which the cookie cannot be derived.
    pub fn id(&self) -> String {
        let hash = hash(&self.token);
        hash[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Device(***)")
    }
}

impl DeviceCookie {
    fn name(self) -> &'static str {
        match self {
            Self::Secure => "__Host-device",
            Self::Insecure => "device",
        }
    }

    /// Returns the cookie that the browser sent.
    pub fn read(self, headers: &HeaderMap) -> Option<&str> {
        let cookies = headers.get_all(header::COOKIE).iter();
        let mut pairs = cookies
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'));
        pairs.find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == self.name()).then_some(value)
        })
    }

    /// Returns the cookie that the browser should keep.
    ///
    /// # Errors
    ///
    /// Never for a token that was created or found here.
    pub fn set(self, device: &Device) -> std::result::Result<HeaderValue, InvalidHeaderValue> {
        let (name, token) = (self.name(), &device.token);
        let secure = match self {
            Self::Secure => "; Secure",
            Self::Insecure => "",
        };
        let mut cookie = HeaderValue::try_from(format!(
            "{name}={token}; Path=/; Max-Age={MAX_AGE}; HttpOnly; SameSite=Lax{secure}"
        ))?;
        cookie.set_sensitive(true);
        Ok(cookie)
    }
}

/// A token has 122 random bits, so its hash does not reveal it.
fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_device_is_known_only_to_its_account() {
        let devices = devices().await;

        let device = devices.remember(1, None).await.expect("a device");

        assert!(find(&devices, &device, "user1").await);
        assert!(!find(&devices, &device, "user2").await);
        assert!(
            !find(
                &devices,
                &Device {
                    token: "0".repeat(32)
                },
                "user1"
            )
            .await
        );
        assert!(
            devices
                .find(None, "user1")
                .await
                .expect("no error")
                .is_none()
        );
    }

    #[tokio::test]
    async fn only_the_newest_devices_of_a_user_are_kept() {
        let devices = devices().await;
        let first = devices.remember(1, None).await.expect("a device");
        let other = devices.remember(2, None).await.expect("a device");
        // Inserted by hand, because devices of the same millisecond have no order.
        age(&devices).await;

        let mut last = None;
        for _ in 0..MOST {
            last = Some(devices.remember(1, None).await.expect("a device"));
        }

        assert!(find(&devices, &last.expect("a device"), "user1").await);
        assert!(!find(&devices, &first, "user1").await);
        assert!(find(&devices, &other, "user2").await);
    }

    #[test]
    fn a_cookie_is_found_among_other_cookies() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("session=a; device=b"));
        headers.append("cookie", HeaderValue::from_static("__Host-device=c"));

        assert_eq!(DeviceCookie::Insecure.read(&headers), Some("b"));
        assert_eq!(DeviceCookie::Secure.read(&headers), Some("c"));
        assert_eq!(DeviceCookie::Secure.read(&HeaderMap::new()), None);
    }

    async fn devices() -> Devices {
        Devices::new(Db::open(None, Duration::ZERO).await.expect("a database"))
    }

    async fn find(devices: &Devices, device: &Device, username: &str) -> bool {
        let found = devices.find(Some(&device.token), username).await;
        found.expect("no error").is_some()
    }

    async fn age(devices: &Devices) {
        let aged = sqlx::query("UPDATE devices SET used_at = used_at - 1000");
        aged.execute(devices.db.write()).await.expect("a statement");
    }
}
