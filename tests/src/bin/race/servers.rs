//! The servers behind a URL, read without the cache.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use cache_runtime::{Address, Config, Topology};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisConnectionInfo, Value};

/// More than the client allows by default: on a busy machine Redis may need seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// One server, or a cluster.
pub(crate) enum Servers {
    One(Client),
    /// Some nodes of a cluster.
    Cluster(Vec<Client>),
}

impl Servers {
    /// Reads a URL in any form that a [`Config`] reads.
    pub(crate) fn at(url: &str) -> Result<Self> {
        let config = Config::default().redis_url(url)?;
        let Some(Topology::Cluster { nodes }) = &config.redis else {
            return Ok(Self::One(Client::open(url)?));
        };
        let mut login = RedisConnectionInfo::default();
        if let Some(username) = &config.username {
            login = login.set_username(username);
        }
        if let Some(password) = &config.password {
            login = login.set_password(password.expose());
        }
        let clients = nodes.iter().map(|node| {
            let Address::Tcp(host, port) = node else {
                bail!("{node} is not a host and a port");
            };
            let place = (host.as_str(), *port).into_connection_info()?;
            Ok(Client::open(place.set_redis_settings(login.clone()))?)
        });
        Ok(Self::Cluster(clients.collect::<Result<_>>()?))
    }

    /// Returns what each of these keys holds. In a cluster it may be in two places while its slot moves, and both are returned.
    pub(crate) async fn get(&self, keys: &[String]) -> Result<Vec<Vec<Vec<u8>>>> {
        let mut found = vec![Vec::new(); keys.len()];
        for mut server in self.connect().await? {
            let mut questions = redis::Pipeline::with_capacity(2 * keys.len());
            for key in keys {
                // With this, a node answers for the slots that it is about to get, too.
                if let Self::Cluster(_) = self {
                    questions.cmd("ASKING");
                }
                questions.cmd("GET").arg(key);
            }
            let answers: Vec<Value> = server
                .send_packed_commands(&questions, 0, questions.len())
                .await?;
            let each = answers.len() / keys.len().max(1);
            for (answers, found) in answers.chunks(each.max(1)).zip(&mut found) {
                match answers.last() {
                    Some(Value::BulkString(value)) => found.push(value.clone()),
                    Some(Value::Nil) => {}
                    Some(Value::ServerError(error))
                        if matches!(error.code(), "MOVED" | "ASK" | "CLUSTERDOWN") => {}
                    other => bail!("an unexpected answer: {other:?}"),
                }
            }
        }
        Ok(found)
    }

    /// Connects to the server, or to all primaries of the cluster.
    async fn connect(&self) -> Result<Vec<MultiplexedConnection>> {
        let nodes = match self {
            Self::One(client) => {
                return Ok(vec![connect(client).await?]);
            }
            Self::Cluster(nodes) => nodes,
        };
        let mut last = None;
        for node in nodes {
            match primaries(node).await {
                Ok(primaries) => return Ok(primaries),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("a cluster without nodes")?)
    }
}

/// Connects to the primaries that a node knows.
async fn primaries(node: &Client) -> Result<Vec<MultiplexedConnection>> {
    let mut asked = connect(node).await?;
    let nodes: String = redis::cmd("CLUSTER")
        .arg("NODES")
        .query_async(&mut asked)
        .await?;
    let mut primaries = Vec::new();
    for line in nodes.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let [_, place, flags, ..] = fields[..] else {
            bail!("an unexpected line: {line}");
        };
        let has = |flag| flags.split(',').any(|other| other == flag);
        if !has("master") || has("fail") {
            continue;
        }
        let (place, _) = place.split_once('@').context("a node without a place")?;
        let (host, port) = place.rsplit_once(':').context("a node without a port")?;
        let place = (host, port.parse()?).into_connection_info()?;
        let login = node.get_connection_info().redis_settings().clone();
        let client = Client::open(place.set_redis_settings(login))?;
        primaries.push(connect(&client).await?);
    }
    Ok(primaries)
}

async fn connect(client: &Client) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    Ok(connection.await?)
}
