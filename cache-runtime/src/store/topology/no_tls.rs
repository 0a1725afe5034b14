//! Replaces `tls.rs` without the feature `tls`: connections cannot be encrypted.

use std::io;

use tokio::net::TcpStream;

use crate::config::Tls;
use crate::error::{Error, ErrorKind};

/// Cannot be created without TLS.
pub(super) enum Client {}

/// The check of the configuration has already rejected everything else with a better error.
pub(super) fn client(tls: &Tls) -> Result<Option<Client>, Error> {
    match tls {
        Tls::Off => Ok(None),
        _ => Err(Error::new(
            ErrorKind::Config,
            "encryption needs the feature `tls` of cache-runtime",
        )),
    }
}

pub(super) async fn encrypt(client: &Client, _: &str, _: TcpStream) -> io::Result<TcpStream> {
    match *client {}
}
