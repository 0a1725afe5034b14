//! Accounts: users log in with a name and a password.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use argon2::{Argon2, PasswordVerifier as _, password_hash};
use axum::http::StatusCode;
use cache_runtime::Sensitive;
use serde::Deserialize;
use sqlx::FromRow;
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::timeout;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::input::Text;

/// The hash for unknown names. Verifying it costs as much as any other, so the time of a login does not reveal names.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$cnEtZGVtby1zYWx0LTAwMA$uMg0WSVmfgPutAbzvxC04ZlPAVE6cqlz5yrhQZZW0pY";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    name: Text<64>,
    password: Sensitive<String>,
}

#[derive(Clone, Debug, FromRow)]
pub struct User {
    pub id: i64,
    pub name: String,
    password_hash: String,
}

#[derive(Clone, Debug)]
pub struct Accounts {
    db: Db,
    turns: Arc<Semaphore>,
    /// How long a login waits for its turn.
    wait: Duration,
}

impl Accounts {
    pub fn new(db: Db) -> Self {
        // A verification keeps a core busy and takes 19 MiB. Containers often have only 256 MiB, of which 4 take a third.
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self::limited(db, cores.min(4), Duration::from_secs(5))
    }

    /// At most `turns` logins are verified at a time, and others wait for at most `wait`.
    pub fn limited(db: Db, turns: usize, wait: Duration) -> Self {
        let turns = Arc::new(Semaphore::new(turns));
        Self { db, turns, wait }
    }

    /// Returns the user with this name and password. Nothing of it is cached.
    pub async fn log_in(&self, credentials: Credentials) -> Result<User> {
        let Credentials { name, password } = credentials;
        let user = sqlx::query_as("SELECT id, name, password_hash FROM users WHERE name = $1");
        let user = user.bind(name.as_str()).fetch_optional(self.db.pool());
        let user: Option<User> = user.await?;
        let hash = user.as_ref().map_or(NOBODYS, |user| &user.password_hash);
        let hash = hash.to_owned();
        // Otherwise a flood of logins is an endless queue in front of honest users.
        let turn = timeout(self.wait, Arc::clone(&self.turns).acquire_owned()).await;
        let detail = "too many users are logging in: try again";
        let turn = turn.map_err(|_| Error::refused(StatusCode::SERVICE_UNAVAILABLE, detail))?;
        let turn = turn.map_err(Error::internal)?;
        let verify = move || {
            let _turn = turn;
            Argon2::default().verify_password(password.expose().as_bytes(), &*hash)
        };
        let verified = task::spawn_blocking(verify).await;
        match (verified.map_err(Error::internal)?, user) {
            (Ok(()), Some(user)) => Ok(user),
            (Ok(()), None) | (Err(password_hash::Error::PasswordInvalid), _) => {
                // The same text for a wrong name and a wrong password.
                let detail = "the name or the password is wrong";
                Err(Error::refused(StatusCode::UNAUTHORIZED, detail))
            }
            (Err(error), _) => Err(Error::internal(error)),
        }
    }
}
