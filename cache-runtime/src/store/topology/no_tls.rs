//! Replaces `tls.rs` without the feature `tls`: connections cannot be encrypted.

use std::io;

use redis::RedisError;
use tokio::net::TcpStream;

use crate::config::{Access, Tls};
use crate::error::{Error, ErrorKind};

/// Cannot be created without TLS.
#[derive(Clone)]
pub(super) enum Client {}

/// The same.
pub(super) enum Certificates {}

impl Certificates {
    /// The check of the configuration has already rejected everything else with a better error.
    pub(super) fn new(access: &Access) -> Result<Option<Self>, Error> {
        let Access {
            tls,
            tls_cert,
            tls_key,
            ..
        } = access;
        match (tls, tls_cert, tls_key) {
            (Tls::Off, None, None) => Ok(None),
            _ => Err(Error::new(
                ErrorKind::Config,
                "encryption needs the feature `tls` of cache-runtime",
            )),
        }
    }

    pub(super) fn are_in_files(&self) -> bool {
        match *self {}
    }

    pub(super) fn client(&self) -> Result<Client, Error> {
        match *self {}
    }
}

impl Client {
    pub(super) fn advice(&self, _: &io::Error) -> Option<String> {
        match *self {}
    }

    pub(super) fn late_advice(&self, _: &RedisError) -> Option<String> {
        match *self {}
    }
}

pub(super) async fn encrypt(client: &Client, _: &str, _: TcpStream) -> io::Result<TcpStream> {
    match *client {}
}
