//! Whom encrypted connections trust.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Tls;
use crate::error::{Error, ErrorKind};

pub(super) type Client = Arc<ClientConfig>;

/// One `ClientConfig` for all connections, so that sessions are resumed. The provider is named here and not looked up,
/// because rustls panics in a process that has installed none.
pub(super) fn client(tls: &Tls) -> Result<Option<Client>, Error> {
    let mut roots = RootCertStore::empty();
    match tls {
        Tls::Off => return Ok(None),
        Tls::WebRoots => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Tls::Ca(path) => {
            let wrong = || {
                format!(
                    "`{}` is no certificate authority in PEM form",
                    path.display()
                )
            };
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| Error::new(ErrorKind::Config, wrong()).because(error))?;
            for certificate in certificates {
                roots
                    .add(certificate)
                    .map_err(|error| Error::new(ErrorKind::Config, wrong()).because(error))?;
            }
            if roots.is_empty() {
                return Err(Error::new(ErrorKind::Config, wrong()));
            }
        }
    }
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(ErrorKind::Config, "TLS cannot be set up").because(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    Ok(Some(Arc::new(config)))
}

/// Encrypts a socket to the server of this name.
pub(super) async fn encrypt(
    client: &Client,
    host: &str,
    socket: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(client))
        .connect(name, socket)
        .await
}
