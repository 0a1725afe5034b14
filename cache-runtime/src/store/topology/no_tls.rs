//! What stands in for `tls.rs` without the feature `tls`: nothing can be encrypted.

use std::io;

use tokio::net::TcpStream;

use crate::config::Tls;
use crate::error::{Error, ErrorKind};

/// There is none.
pub(super) enum Client {}

/// The check of the configuration has refused everything else with better words.
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
