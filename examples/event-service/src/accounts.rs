//! Accounts: users log in with a name and a password.

use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use argon2::password_hash::{self, phc::Output};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};
use cache_runtime::Sensitive;
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::timeout;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::users::{self, User};

/// The longest name, in characters.
const MAX_USERNAME: usize = 64;

/// The longest password, in bytes. A longer one would only cause work.
const MAX_PASSWORD: usize = 1024;

/// The `Retry-After` of a login that waited too long for its turn.
const BUSY: Error = Error::Busy {
    detail: "too many users are logging in",
    retry_after: 5,
};

/// The hash for unknown names. Verifying it costs as much as any other.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$lU/nWIoyQlnRiio79UW7gA$0aX1nbzPeABqA4dl7++b18lr9mzxyWXRZCOd5ao+eyY";

#[derive(Clone, Debug)]
pub struct Accounts {
    db: Db,
    turns: Arc<Semaphore>,
    /// How long a login waits for its turn.
    patience: Duration,
    memories: Arc<Mutex<Vec<Memory>>>,
}

/// The memory in which hashes are computed, as large as the largest one so far. It contains data derived from passwords.
type Memory = Sensitive<Vec<Block>>;

/// The login failed.
#[derive(Debug)]
pub struct Wrong {
    /// The user with this name, if there is one. For the log only: a client must not learn it.
    pub user_id: Option<i64>,
}

impl Accounts {
    /// Creates the accounts. A login waits for other logins for at most `patience`.
    pub fn new(db: Db, patience: Duration) -> Self {
        Self {
            db,
            // A verification keeps a core busy and takes 19 MiB. More of them at a time take more memory and do not end sooner.
            turns: Arc::new(Semaphore::new(cores())),
            patience,
            // One buffer is kept for each concurrent turn. The allocator would also keep freed memory, but once for each thread
            // that ever computed a hash.
            memories: Arc::default(),
        }
    }

    /// Returns the user with this name and password, as the database has it. Earlier cached data of the user is not served
    /// afterwards.
    ///
    /// The time that this takes does not show whether the name or the password was wrong.
    pub async fn log_in(
        &self,
        username: &str,
        password: &Sensitive<String>,
    ) -> Result<Result<User, Wrong>> {
        refuse_nonsense(username, password)?;
        let (id, hash) = match self.credentials(username).await? {
            Some((id, hash)) => (Some(id), hash),
            None => (None, NOBODYS.to_owned()),
        };
        let password = password.clone();
        let is_right = self
            .in_turn(move |memory| verify(&password, &hash, memory))
            .await?
            .map_err(Error::internal)?;
        let user = match id.filter(|_| is_right) {
            Some(id) => users::evicting(id, self.user(id)).await?,
            None => None,
        };
        Ok(user.ok_or(Wrong { user_id: id }))
    }

    async fn credentials(&self, username: &str) -> Result<Option<(i64, String)>> {
        let credentials =
            sqlx::query_as("SELECT user_id, password_hash FROM credentials WHERE username = ?")
                .bind(username);
        Ok(credentials.fetch_optional(self.db.read().await).await?)
    }

    /// Waits for a turn and runs CPU-bound work outside the threads that serve requests. The work owns the memory until it ends.
    /// The memory contains data of earlier work.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Result<T> {
        // Otherwise a flood of logins is an endless queue in front of honest users.
        let turn = timeout(self.patience, Arc::clone(&self.turns).acquire_owned());
        let turn = turn.await.map_err(|_| BUSY)?;
        let turn = turn.map_err(Error::internal)?;
        let memories = Arc::clone(&self.memories);
        let work = move || {
            // The work continues if the caller no longer waits for it, and so does its turn.
            let _turn = turn;
            let mut memory = lock(&memories).pop().unwrap_or_default().into_inner();
            let done = work(&mut memory);
            lock(&memories).push(memory.into());
            done
        };
        task::spawn_blocking(work).await.map_err(Error::internal)
    }

    async fn user(&self, id: i64) -> Result<Option<User>> {
        let user = sqlx::query_as("SELECT * FROM users WHERE id = ?").bind(id);
        Ok(user.fetch_optional(self.db.read().await).await?)
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

fn refuse_nonsense(username: &str, password: &Sensitive<String>) -> Result<()> {
    if !(1..=MAX_USERNAME).contains(&username.chars().count()) {
        let advice = format!("it must be text of 1 to {MAX_USERNAME} characters");
        return Err(Error::invalid("username", advice));
    }
    if !(1..=MAX_PASSWORD).contains(&password.expose().len()) {
        let advice = format!("it must be text of 1 to {MAX_PASSWORD} bytes");
        return Err(Error::invalid("password", advice));
    }
    Ok(())
}

/// Verifies like [`Argon2`], but in this memory.
fn verify(
    password: &Sensitive<String>,
    hash: &str,
    memory: &mut Vec<Block>,
) -> password_hash::Result<bool> {
    let hash = PasswordHash::new(hash)?;
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
        return Err(password_hash::Error::EncodingInvalid);
    };
    let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
    let version = hash.version.map(Version::try_from).transpose()?;
    let params = Params::try_from(&hash)?;
    grow(memory, params.block_count())?;
    let argon2 = Argon2::new(algorithm, version.unwrap_or_default(), params);
    let mut computed = vec![0; expected.len()];
    let password = password.expose().as_bytes();
    argon2.hash_password_into_with_memory(password, salt, &mut computed, memory)?;
    // `Output`s are compared in constant time.
    Ok(Output::new(&computed)? == *expected)
}

/// Grows the memory to at least this many blocks.
fn grow(memory: &mut Vec<Block>, blocks: usize) -> password_hash::Result<()> {
    let missing = blocks.saturating_sub(memory.len());
    memory
        .try_reserve_exact(missing)
        .map_err(|_| password_hash::Error::OutOfMemory)?;
    memory.resize(memory.len() + missing, Block::new());
    Ok(())
}

fn lock(memories: &Mutex<Vec<Memory>>) -> MutexGuard<'_, Vec<Memory>> {
    memories.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
