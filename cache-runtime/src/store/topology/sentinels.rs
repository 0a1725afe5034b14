//! Sentinels: which master they report, and which report is used.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Fuse;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{ProtocolVersion, PushInfo, RedisError, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::introduction::{fields, refusal, refuses_credentials, refuses_resp3};
use super::{Connector, Driver, Pushes, closed, silence};
use crate::config::Address;
use crate::error::{Error, ErrorKind};
use crate::store::reply;
use crate::sync::Mutex;

/// How often each sentinel is asked.
pub(in crate::store) const LOOK: Duration = Duration::from_secs(1);

/// The timeout of a sentinel: more than a working one needs.
const PATIENCE: Duration = Duration::from_secs(1);

/// For how long others may answer once one has: they may know of a newer master.
const OTHERS: Duration = Duration::from_millis(50);

/// The messages of a sentinel during and after the promotion of another master.
const CHANNELS: [&str; 4] = [
    "+switch-master",
    "+promoted-slave",
    "+failover-state-reconf-slaves",
    "+config-update-from",
];

/// Where the master is, and since which decision of the sentinels: a greater epoch is a newer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Master {
    pub(in crate::store) epoch: u64,
    pub(in crate::store) address: Address,
}

/// The sentinels of one master.
#[derive(Debug)]
pub(in crate::store) struct Sentinels {
    addresses: Vec<Address>,
    name: String,
    /// The last report of each sentinel, if it answered.
    said: Mutex<Vec<Option<Master>>>,
    believed: watch::Sender<Option<Master>>,
    /// When a sentinel last confirmed the current master.
    confirmed: Mutex<Option<Instant>>,
}

impl Sentinels {
    pub(super) fn new(addresses: Vec<Address>, name: String) -> Self {
        Self {
            said: Mutex::new(vec![None; addresses.len()]),
            addresses,
            name,
            believed: watch::Sender::new(None),
            confirmed: Mutex::default(),
        }
    }

    pub(in crate::store) fn count(&self) -> usize {
        self.addresses.len()
    }

    /// The master, as far as it is known.
    pub(in crate::store) fn master(&self) -> Option<Master> {
        self.believed.borrow().clone()
    }

    /// Notifies of a change of the master.
    pub(in crate::store) fn changes(&self) -> watch::Receiver<Option<Master>> {
        self.believed.subscribe()
    }

    /// When a sentinel confirmed the master last.
    pub(in crate::store) fn confirmed(&self) -> Option<Instant> {
        *self.confirmed.lock()
    }

    /// Waits until another server than this one is the master.
    pub(super) async fn moved_from(&self, address: &Address) {
        let is_another =
            |master: &Option<Master>| master.as_ref().is_some_and(|now| now.address != *address);
        if self.changes().wait_for(is_another).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Records the report of a sentinel, or that it did not answer.
    fn hear(&self, index: usize, answer: Option<Master>) {
        let mut said = self.said.lock();
        if let Some(place) = said.get_mut(index) {
            place.clone_from(&answer);
        }
        let believed = self.master();
        let Some(next) = judge(&said, believed.as_ref()) else {
            return;
        };
        if answer.is_some_and(|answer| answer.address == next.address) {
            *self.confirmed.lock() = Some(Instant::now());
        }
        self.believed.send_if_modified(|believed| {
            let is_another = believed
                .as_ref()
                .is_none_or(|now| now.address != next.address);
            *believed = Some(next);
            is_another
        });
    }
}

/// Returns the master to use: the newest that a sentinel reports. An older decision than the current one is used only if
/// most sentinels answer and none has a newer one, as after a new setup of the sentinels. Otherwise a newer decision may
/// just not be reachable.
fn judge(said: &[Option<Master>], believed: Option<&Master>) -> Option<Master> {
    let newest = said.iter().flatten().map(|heard| heard.epoch).max()?;
    let mut candidates = said.iter().flatten().filter(|heard| heard.epoch == newest);
    let answering = said.iter().flatten().count();
    match believed {
        Some(believed) if newest < believed.epoch && answering * 2 <= said.len() => {
            Some(believed.clone())
        }
        // One decision may be reported in two spellings, as a name and as an address.
        Some(believed)
            if candidates
                .clone()
                .any(|heard| heard.address == believed.address) =>
        {
            Some(Master {
                epoch: newest,
                address: believed.address.clone(),
            })
        }
        Some(believed) if newest == believed.epoch => Some(believed.clone()),
        _ => candidates.next().cloned(),
    }
}

/// An open connection to a sentinel.
pub(in crate::store) struct Link {
    index: usize,
    link: MultiplexedConnection,
    driver: Fuse<Driver>,
    pushes: mpsc::UnboundedReceiver<PushInfo>,
}

impl Connector {
    /// Asks all sentinels at once.
    pub(super) async fn find_master(&self, sentinels: &Sentinels) -> Result<Address, Error> {
        let mut asking: FuturesUnordered<_> = (0..sentinels.count())
            .map(|index| async move { self.link(sentinels, index).await?.ask(sentinels).await })
            .collect();
        let mut cause = None;
        let mut until = None;
        loop {
            let others = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                answer = asking.next() => match answer {
                    Some(Ok(true)) => {
                        until.get_or_insert_with(|| Instant::now() + OTHERS);
                    }
                    Some(Ok(false)) => {}
                    Some(Err(error)) => cause = Some(error),
                    None => break,
                },
                () = others => break,
            }
        }
        if let (Some(_), Some(master)) = (until, sentinels.master()) {
            return Ok(master.address);
        }
        let error = Error::new(
            ErrorKind::Connection,
            format!(
                "no sentinel reports the address of the master `{}`",
                sentinels.name
            ),
        );
        Err(match cause {
            Some(cause) => error.because(cause),
            None => error,
        })
    }

    /// Opens a connection to one of the sentinels.
    pub(in crate::store) async fn link(
        &self,
        sentinels: &Sentinels,
        index: usize,
    ) -> Result<Link, Error> {
        let address = &sentinels.addresses[index];
        let opening = async {
            let deadline = Instant::now() + PATIENCE;
            let pass = self.sentinel_gate.pass(PATIENCE).await?;
            let newest = pass.session.clone().set_protocol(ProtocolVersion::RESP3);
            let tls = pass.tls.as_ref();
            let (sender, pushes) = mpsc::unbounded_channel();
            let wire = self.reach(address, None, tls, deadline).await?;
            let push: Pushes = Arc::new(move |push| drop(sender.send(push)));
            let greeted = match self.greet(address, wire, &newest, Some(&push)).await? {
                // Without RESP3 the sentinel is polled, because it pushes nothing.
                Err(error) if refuses_resp3(&error) => {
                    let wire = self.reach(address, None, tls, deadline).await?;
                    self.greet(address, wire, &pass.session, None).await?
                }
                greeted => greeted,
            };
            let (link, driver) = greeted.map_err(|error| {
                unwelcome(address, &error).unwrap_or_else(|| pass.refusal(address, &error))
            })?;
            Ok(Link {
                index,
                link,
                driver: driver.fuse(),
                pushes,
            })
        };
        let opened = timeout(PATIENCE, opening)
            .await
            .unwrap_or_else(|_| Err(silence(address, PATIENCE)));
        if opened.is_err() {
            sentinels.hear(index, None);
        }
        opened
    }
}

impl Link {
    /// Asks for the master. Returns whether the sentinel knows it.
    pub(in crate::store) async fn ask(&mut self, sentinels: &Sentinels) -> Result<bool, Error> {
        let address = &sentinels.addresses[self.index];
        let mut question = redis::Pipeline::with_capacity(2);
        question
            .cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&sentinels.name);
        question.cmd("SENTINEL").arg("MASTER").arg(&sentinels.name);
        let answers = tokio::select! {
            answers = timeout(PATIENCE, self.link.send_packed_commands(&question, 0, 2)) => match answers {
                Ok(answers) => answers.map_err(|error| refused(address, &error)),
                Err(_) => Err(silence(address, PATIENCE)),
            },
            () = &mut self.driver => Err(closed(address)),
        };
        let master = answers.and_then(|answers| master_of(answers, address));
        sentinels.hear(self.index, master.as_ref().ok().cloned().flatten());
        Ok(master?.is_some())
    }

    /// Subscribes to every change.
    pub(in crate::store) async fn subscribe(&mut self) {
        // Where this fails, the questions remain.
        tokio::select! {
            _ = timeout(PATIENCE, self.link.subscribe(&CHANNELS)) => {}
            () = &mut self.driver => {}
        }
    }

    /// Waits until the next check: for an interval, or until the sentinel sends a message.
    pub(in crate::store) async fn pause(&mut self) {
        let told = async {
            match self.pushes.recv().await {
                Some(_) => {}
                None => pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = told => {}
            () = &mut self.driver => {}
        }
    }
}

fn refused(address: &Address, error: &RedisError) -> Error {
    unwelcome(address, error).unwrap_or_else(|| refusal(address, error))
}

/// Returns the error for a sentinel that wants other credentials: they are not those of Redis.
fn unwelcome(address: &Address, error: &RedisError) -> Option<Error> {
    refuses_credentials(error).then(|| {
        let text = format!(
            "the sentinel at {address} refused the credentials; set `REDIS_SENTINEL_USERNAME` and `REDIS_SENTINEL_PASSWORD`"
        );
        Error::new(ErrorKind::Connection, text)
    })
}

fn master_of(answers: Vec<Value>, address: &Address) -> Result<Option<Master>, Error> {
    let mut answers = answers.into_iter();
    let place = match answers.next() {
        Some(Value::Array(parts)) => parts,
        Some(Value::ServerError(error)) => return Err(refused(address, &error.into())),
        _ => return Ok(None),
    };
    let mut place = place.into_iter().filter_map(|part| reply::text(part).ok());
    let (Some(host), Some(Ok(port))) = (place.next(), place.next().map(|port| port.parse())) else {
        return Ok(None);
    };
    let epoch = answers
        .next()
        .map(fields)
        .and_then(|fields| fields.get("config-epoch")?.parse().ok())
        .unwrap_or_default();
    Ok(Some(Master {
        epoch,
        address: Address::Tcp(host, port),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(epoch: u64, port: u16) -> Master {
        Master {
            epoch,
            address: Address::Tcp("h".into(), port),
        }
    }

    /// The reports, the current master, and the expected choice.
    type Case<'a> = (&'a [Option<Master>], Option<&'a Master>, Option<&'a Master>);

    #[test]
    fn the_newest_decision_counts_and_an_old_one_needs_a_majority() {
        let (old, new) = (master(1, 1), master(2, 2));

        let cases: [Case<'_>; 7] = [
            (&[None, None, None], None, None),
            (&[Some(old.clone()), None, None], None, Some(&old)),
            (
                &[Some(old.clone()), Some(new.clone()), None],
                Some(&old),
                Some(&new),
            ),
            (
                &[Some(old.clone()), Some(old.clone()), Some(new.clone())],
                Some(&new),
                Some(&new),
            ),
            // Sentinels with a newer decision may be unreachable.
            (&[Some(old.clone()), None, None], Some(&new), Some(&new)),
            // After a new setup, epochs start again.
            (
                &[Some(old.clone()), Some(old.clone()), None],
                Some(&new),
                Some(&old),
            ),
            (&[None, None, None], Some(&new), None),
        ];

        for (said, believed, expected) in cases {
            assert_eq!(
                judge(said, believed).as_ref(),
                expected,
                "{said:?} {believed:?}"
            );
        }
    }

    #[test]
    fn one_address_in_two_spellings_is_not_a_change() {
        let (name, number) = (master(3, 1), master(3, 2));

        assert_eq!(judge(&[Some(number), None], Some(&name)), Some(name));
    }
}
