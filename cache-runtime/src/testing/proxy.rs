//! A network that fails on command.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Endpoint, RedisServer};
use crate::config::{Address, Config};

/// A proxy for a server, on a port of 127.0.0.1, that can block or delay traffic.
///
/// A switch applies to open and new connections as soon as its method returns. The proxy begins by forwarding everything, and
/// ends when it is dropped.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::testing::{FaultProxy, RedisServer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = RedisServer::start()?;
/// let network = FaultProxy::start(&server)?;
/// let cache = Cache::connect(network.config()).await?;
/// assert!(cache.set("stock:7", &12, 60).await);
///
/// network.cut();
/// assert!(cache.try_get::<i32>("stock:7").await.is_err());
/// assert_eq!(cache.get::<i32>("stock:7").await, None); // the service goes on without Redis
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the proxy ends when it is dropped"]
pub struct FaultProxy {
    endpoint: Endpoint,
    counts: Arc<Counts>,
    switches: Option<mpsc::UnboundedSender<Switch>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Stall,
    Cut,
    HalfOpen,
    Delay(Duration),
    Trickle(Duration),
}

/// A new mode, and the channel that confirms it.
type Switch = (Mode, std::sync::mpsc::Sender<()>);

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl FaultProxy {
    /// Starts a proxy for this server. [`url`](Self::url) and [`config`](Self::config) contain the password of the server.
    ///
    /// # Errors
    ///
    /// If no port is free or no thread can be started.
    pub fn start(server: &RedisServer) -> io::Result<Self> {
        Self::before(server.endpoint())
    }

    /// Starts a proxy for any server, which need not run yet.
    ///
    /// # Errors
    ///
    /// If no port is free or no thread can be started.
    pub fn to(server: Address) -> io::Result<Self> {
        Self::before(&Endpoint {
            address: server,
            password: None,
        })
    }

    fn before(server: &Endpoint) -> io::Result<Self> {
        let counts = Arc::new(Counts::default());
        let (switches, orders) = mpsc::unbounded_channel();
        let (opened, port) = std::sync::mpsc::channel();
        let (upstream, counted) = (server.address.clone(), Arc::clone(&counts));
        let thread = thread::Builder::new()
            .name("fault-proxy".into())
            .spawn(move || run(&opened, upstream, counted, orders))?;
        let port = port
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the proxy's thread ended early")))?;
        Ok(Self {
            endpoint: Endpoint {
                address: Address::Tcp(Ipv4Addr::LOCALHOST.to_string(), port),
                password: server.password.clone(),
            },
            counts,
            switches: Some(switches),
            thread: Some(thread),
        })
    }

    /// Returns `redis://…` with the password of the server.
    pub fn url(&self) -> String {
        self.endpoint.url()
    }

    /// Returns the address of the proxy.
    pub fn address(&self) -> &Address {
        &self.endpoint.address
    }

    /// Returns the default configuration with the prefix `test_` and the server behind this proxy.
    pub fn config(&self) -> Config {
        self.endpoint.config()
    }

    /// Forwards everything, beginning with the data that a stall held back.
    pub fn pass(&self) {
        self.switch(Mode::Pass);
    }

    /// Accepts connections and keeps them open, but forwards nothing in either direction.
    pub fn stall(&self) {
        self.switch(Mode::Stall);
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.switch(Mode::Cut);
    }

    /// Accepts connections and forwards requests, but no answers. The answers are lost, so a connection that has lost one delivers
    /// none after this mode either, until it is closed.
    pub fn half_open(&self) {
        self.switch(Mode::HalfOpen);
    }

    /// Delays every answer, so that each round trip takes this much longer.
    pub fn delay(&self, by: Duration) {
        self.switch(Mode::Delay(by));
    }

    /// Forwards answers one byte at a time, with a pause of this length after each.
    pub fn trickle(&self, pause: Duration) {
        self.switch(Mode::Trickle(pause));
    }

    /// Returns the number of connections accepted since the start.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes sent to the server.
    pub fn bytes_to_server(&self) -> u64 {
        self.counts.to_server.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes sent to clients.
    pub fn bytes_to_client(&self) -> u64 {
        self.counts.to_client.load(Ordering::Relaxed)
    }

    fn switch(&self, mode: Mode) {
        let (done, in_force) = std::sync::mpsc::channel();
        if let Some(switches) = &self.switches
            && switches.send((mode, done)).is_ok()
        {
            // An error means that the thread has ended. Then nothing is forwarded.
            let _ = in_force.recv();
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.switches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs on the thread of the proxy. Its runtime starts and ends here, because a runtime cannot do so inside another, and the
/// owner of a proxy may be inside one.
fn run(
    opened: &std::sync::mpsc::Sender<io::Result<u16>>,
    server: Address,
    counts: Arc<Counts>,
    orders: mpsc::UnboundedReceiver<Switch>,
) {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = built.and_then(|runtime| {
        let port = runtime.block_on(async { Port::open() })?;
        // `start` waits for this.
        let _ = opened.send(Ok(port.address.port()));
        runtime.block_on(forward(port, server, counts, orders));
        Ok(())
    });
    if let Err(error) = outcome {
        let _ = opened.send(Err(error));
    }
}

/// Accepts connections and switches modes until the proxy is dropped.
async fn forward(
    mut port: Port,
    server: Address,
    counts: Arc<Counts>,
    mut orders: mpsc::UnboundedReceiver<Switch>,
) {
    let (mode, watched) = watch::channel(Mode::Pass);
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => {
                let Some((ordered, done)) = order else { return };
                mode.send_replace(ordered);
                if ordered == Mode::Cut {
                    port.close();
                    links.shutdown().await;
                } else {
                    port.reopen().await;
                }
                // The caller may be gone by now.
                let _ = done.send(());
            }
            client = port.next() => {
                counts.connections.fetch_add(1, Ordering::Relaxed);
                links.spawn(link(client, server.clone(), Arc::clone(&counts), watched.clone()));
            }
            Some(_) = links.join_next() => {}
        }
    }
}

/// A listener that can be closed, which refuses connections, and opened again on the same port.
struct Port {
    address: SocketAddr,
    listener: Option<TcpListener>,
    /// A socket that is bound and never listens. It reserves the port while the listener is closed. Linux allows it next to a
    /// listener. On systems that do not, another process may take the port.
    _reservation: Option<TcpSocket>,
}

impl Port {
    fn open() -> io::Result<Self> {
        let reservation = reusable((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = reservation.local_addr()?;
        match reusable(address) {
            Ok(socket) => Ok(Self {
                address,
                listener: Some(socket.listen(1024)?),
                _reservation: Some(reservation),
            }),
            Err(_) => Ok(Self {
                address,
                listener: Some(reservation.listen(1024)?),
                _reservation: None,
            }),
        }
    }

    async fn next(&self) -> TcpStream {
        loop {
            match &self.listener {
                None => std::future::pending().await,
                Some(listener) => match listener.accept().await {
                    Ok((stream, _)) => return stream,
                    // Out of file descriptors, or the client has already left. The next attempt may succeed.
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                },
            }
        }
    }

    fn close(&mut self) {
        self.listener = None;
    }

    async fn reopen(&mut self) {
        while self.listener.is_none() {
            match reusable(self.address).and_then(|socket| socket.listen(1024)) {
                Ok(listener) => self.listener = Some(listener),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

fn reusable(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves one client over a separate connection to the server. If the server refuses it, the connection of the client is closed.
async fn link(
    client: TcpStream,
    server: Address,
    counts: Arc<Counts>,
    mut mode: watch::Receiver<Mode>,
) {
    // A closed channel ends the proxy and this task.
    let _ = mode.wait_for(|mode| *mode != Mode::Stall).await;
    let _ = client.set_nodelay(true);
    // An error of a connection is visible only to its two ends.
    let _ = match server {
        Address::Tcp(host, port) => match TcpStream::connect((host.as_str(), port)).await {
            Ok(server) => {
                let _ = server.set_nodelay(true);
                both_ways(client, server, &counts, mode).await
            }
            Err(error) => Err(error),
        },
        Address::Unix(path) => match UnixStream::connect(path).await {
            Ok(server) => both_ways(client, server, &counts, mode).await,
            Err(error) => Err(error),
        },
    };
}

async fn both_ways(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    counts: &Counts,
    mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let requests = pump(
        from_client,
        to_server,
        &counts.to_server,
        mode.clone(),
        Direction::Requests,
    );
    let answers = pump(
        from_server,
        to_client,
        &counts.to_client,
        mode,
        Direction::Answers,
    );
    tokio::try_join!(requests, answers).map(|_| ())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Answers,
}

/// Moves bytes in one direction. Reading continues while a chunk waits, so a delay applies to each chunk and does not add up.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: &AtomicU64,
    mut mode: watch::Receiver<Mode>,
    direction: Direction,
) -> io::Result<()> {
    let (arrived, mut leaving) = mpsc::channel::<(Instant, Vec<u8>)>(256);
    let reading = async move {
        loop {
            let mut chunk = Vec::with_capacity(16 << 10);
            from.read_buf(&mut chunk).await?;
            let end = chunk.is_empty();
            // An empty chunk means the end, and is delayed like any other.
            if arrived.send((Instant::now(), chunk)).await.is_err() || end {
                return Ok(());
            }
        }
    };
    let writing = async move {
        let mut has_lost = false;
        while let Some((since, chunk)) = leaving.recv().await {
            due(since, &mut mode, direction).await;
            if chunk.is_empty() {
                return to.shutdown().await;
            }
            has_lost |= direction == Direction::Answers && *mode.borrow() == Mode::HalfOpen;
            if has_lost {
                continue;
            }
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let pause = match *mode.borrow_and_update() {
                    Mode::Trickle(pause) if direction == Direction::Answers => Some(pause),
                    _ => None,
                };
                let (now, later) = rest.split_at(pause.map_or(rest.len(), |_| 1));
                // Counted first, so that an answer is counted when a client sees it.
                count.fetch_add(now.len() as u64, Ordering::Relaxed);
                to.write_all(now).await?;
                rest = later;
                if let Some(pause) = pause {
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = mode.changed() => due(since, &mut mode, direction).await,
                    }
                }
            }
        }
        Ok(())
    };
    tokio::try_join!(reading, writing).map(|_| ())
}

/// Waits until a chunk that arrived at `since` may be forwarded, across changes of the mode.
async fn due(since: Instant, mode: &mut watch::Receiver<Mode>, direction: Direction) {
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Delay(by) if direction == Direction::Answers => tokio::select! {
                () = sleep_until(since + by) => return,
                _ = mode.changed() => {}
            },
            Mode::Pass | Mode::HalfOpen | Mode::Delay(_) | Mode::Trickle(_) => return,
            // `Cut` ends this task.
            Mode::Stall | Mode::Cut => {
                if mode.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
