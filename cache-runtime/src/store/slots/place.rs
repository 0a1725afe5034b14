//! The addresses that nodes announce, and how they are reached.

use std::collections::HashMap;

use redis::{ServerError, ServerErrorKind};

use super::Slot;
use crate::config::Address;

/// How announced addresses are reached.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Places {
    /// The addresses behind NAT, by what is announced.
    reachable: HashMap<Address, Address>,
}

/// The answer of a node that does not serve a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Redirect {
    /// Another node owns the slot.
    Moved(Slot, Address),
    /// The slot is on its way to another node, which has the key if it exists.
    Ask(Slot, Address),
}

impl Places {
    pub(in crate::store) fn new(pairs: impl IntoIterator<Item = (Address, Address)>) -> Self {
        Self {
            reachable: pairs.into_iter().collect(),
        }
    }

    /// Returns where a node is reached. A node that does not know its own host, or does not tell it, is at the host that was
    /// `asked`.
    pub(in crate::store) fn reach(&self, host: &str, port: u16, asked: &Address) -> Address {
        let host = match asked {
            Address::Tcp(asked, _) if host.is_empty() || host == "?" => asked,
            _ => host,
        };
        let announced = Address::Tcp(host.to_owned(), port);
        self.reachable.get(&announced).cloned().unwrap_or(announced)
    }

    /// Reads `MOVED 93 127.0.0.1:7000` or `ASK …`, which `asked` answered. Returns [`None`] for every other error.
    pub(in crate::store) fn redirect(
        &self,
        error: &ServerError,
        asked: &Address,
    ) -> Option<Redirect> {
        let redirect = match error.kind()? {
            ServerErrorKind::Moved => Redirect::Moved,
            ServerErrorKind::Ask => Redirect::Ask,
            _ => return None,
        };
        let mut words = error.details()?.split_whitespace();
        let slot = Slot::numbered(words.next()?.parse().ok()?)?;
        // An IPv6 address is announced without brackets.
        let (host, port) = words.next()?.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        Some(redirect(slot, self.reach(host, port, asked)))
    }
}
