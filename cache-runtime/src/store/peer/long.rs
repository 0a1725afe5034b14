//! Values that are too long to be entries: written by another program, or by hand. Reading one takes longer than any caller
//! waits, so it is never recognized as unreadable and would cost every caller a timeout.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Peer;
use crate::config::Config;
use crate::key::Key;
use crate::singleton::Singleton;
use crate::store::connection::{Connection, Ticket};
use crate::store::pool::{Access, BULK, Pool};
use crate::store::reply::{self, Failure};
use crate::store::script::Script;

static DELETE_LONG: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/delete_long.lua")));

/// The size of an entry besides its value: its header and its tags, with room for later formats.
const HEADER: usize = 64 << 10;

/// How often the server is asked, and the pause in between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// What is too long, and the task that checks for it.
#[derive(Debug)]
pub(super) struct Longest {
    bytes: usize,
    mask_keys: bool,
    looking: Singleton,
}

impl Longest {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            bytes: config.max_value.saturating_add(HEADER),
            mask_keys: config.mask_keys,
            looking: Singleton::default(),
        })
    }
}

/// A read of values. If it is dropped before its answer arrives, it was given up.
pub(super) struct Reading<'a> {
    peer: &'a Peer,
    values: &'a [Key],
    pub(super) ticket: Ticket,
}

impl<'a> Reading<'a> {
    pub(super) fn new(peer: &'a Peer, values: &'a [Key], ticket: Ticket) -> Self {
        Self {
            peer,
            values,
            ticket,
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.values.is_empty() || self.ticket.is_answered() {
            return;
        }
        let longest = &self.peer.longest;
        // One check at a time: a server that does not respond must not get one more request from each caller.
        longest.looking.start(|running| {
            let longest = Arc::clone(longest);
            let (pool, keys) = (Arc::clone(&self.peer.pool), self.values.to_vec());
            let connection = Arc::clone(self.ticket.connection());
            async move {
                let _running = running;
                if let Err(failure) = longest.remove_long(&pool, &keys, &connection).await {
                    debug!(?failure, "could not check whether a value is too long");
                }
            }
        });
    }
}

/// Asks over the connection for large answers, or over one without a late answer. A server that copies a long value answers
/// no other client during that time and may lose connections, so this is tried more than once.
async fn ask(pool: &Pool, command: &Cmd) -> Result<Value, Failure> {
    let mut attempt = 1;
    loop {
        let answer = match pool.ticket(BULK, Access::Caller) {
            Ok(mut ticket) => ticket.ask(command).await,
            Err(failure) => Err(failure),
        };
        match answer {
            Err(Failure::Lost(_) | Failure::Unavailable) if attempt < ATTEMPTS => {
                attempt += 1;
                sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

impl Longest {
    /// Removes the values that are too long. It does not wait for the answer that contains one.
    async fn remove_long(
        &self,
        pool: &Pool,
        keys: &[Key],
        connection: &Connection,
    ) -> Result<(), Failure> {
        // Not behind the same answer that takes so long.
        connection.be_late();
        for key in keys {
            let names = [key.as_str()];
            let arguments = |command: &mut Cmd| {
                command.arg(self.bytes);
            };
            let answer = match ask(pool, &DELETE_LONG.by_hash(&names, arguments)).await {
                Err(Failure::Refused(error)) if reply::is_no_script(&error) => {
                    ask(pool, &DELETE_LONG.by_text(&names, arguments)).await
                }
                answer => answer,
            };
            let length = match answer {
                // A value that is not a string is not read as one.
                Err(Failure::Refused(error)) if reply::is_wrong_type(&error) => continue,
                answer => reply::count(answer?)?,
            };
            if length > 0 {
                warn!(
                    key = %key.shown(self.mask_keys),
                    length,
                    "removed a value that is too long to read; raise `CACHE_MAX_VALUE` if it is one of yours"
                );
                connection.lose("a value that is too long was being received");
            }
        }
        Ok(())
    }
}
