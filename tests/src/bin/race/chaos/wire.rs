//! A network between the workers and Redis that can fail for the connections alone on which Redis announces changes. Such a
//! connection is known by the `CLIENT TRACKING` that its client sends.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Pass,
    /// They are closed, and new ones are closed as soon as they are known.
    Cut,
    /// No data passes. It passes later.
    Stall,
    /// Redis gets what they send, and they get nothing.
    HalfOpen,
}

pub(super) struct Wire {
    port: u16,
    mode: watch::Sender<Mode>,
    listeners: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Wire {
    /// Starts in front of this port of 127.0.0.1.
    pub(super) async fn start(server: u16) -> Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = socket.local_addr()?.port();
        let (mode, watched) = watch::channel(Mode::Pass);
        let listeners = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&listeners);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = socket.accept().await {
                let link = link(client, server, watched.clone(), Arc::clone(&counted));
                // A link ends with an error if either end is gone.
                tokio::spawn(async move { drop(link.await) });
            }
        });
        Ok(Self {
            port,
            mode,
            listeners,
            accepting,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn switch(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Returns how many connections have been listeners.
    pub(super) fn listeners(&self) -> u64 {
        self.listeners.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn link(
    client: TcpStream,
    server: u16,
    mode: watch::Receiver<Mode>,
    listeners: Arc<AtomicU64>,
) -> Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (known, is_listener) = watch::channel(false);
    // If one direction ends, the other is closed as well.
    tokio::select! {
        end = to_redis(from_client, to_server, mode.clone(), known, listeners) => end,
        end = from_redis(from_server, to_client, mode, is_listener) => end,
    }
}

async fn to_redis(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    known: watch::Sender<bool>,
    listeners: Arc<AtomicU64>,
) -> Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        // The command is sent in one piece, since nothing was sent before it was answered.
        let is_listener = *known.borrow()
            || bytes[..read]
                .windows(8)
                .any(|word| word.eq_ignore_ascii_case(b"TRACKING"));
        if is_listener && !known.send_replace(true) {
            listeners.fetch_add(1, Ordering::Relaxed);
        }
        if is_listener {
            mode.wait_for(|mode| *mode != Mode::Stall).await?;
        }
        to.write_all(&bytes[..read]).await?;
    }
}

async fn from_redis(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    mut is_listener: watch::Receiver<bool>,
) -> Result<()> {
    let mut bytes = vec![0; 16 << 10];
    let mut was_half_open = false;
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read?,
            cut = cut(&mut is_listener, &mut mode) => return cut,
        };
        if read == 0 {
            return Ok(());
        }
        if *is_listener.borrow() {
            mode.wait_for(|mode| *mode != Mode::Stall).await?;
            was_half_open |= *mode.borrow() == Mode::HalfOpen;
        }
        // What is left out cannot be made up for, so such a link delivers nothing more.
        if !was_half_open {
            to.write_all(&bytes[..read]).await?;
        }
    }
}

/// Waits until this link is to be closed.
async fn cut(
    is_listener: &mut watch::Receiver<bool>,
    mode: &mut watch::Receiver<Mode>,
) -> Result<()> {
    is_listener.wait_for(|is_listener| *is_listener).await?;
    mode.wait_for(|mode| *mode == Mode::Cut).await?;
    Ok(())
}
