//! The certificates that encrypted connections trust.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
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
    let mut own = Vec::new();
    match tls {
        Tls::Off => return Ok(None),
        Tls::WebRoots => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Tls::Ca(path) => {
            own = certificates(path)?;
            for certificate in &own {
                roots
                    .add(certificate.clone())
                    .map_err(|error| no_authority(path).because(error))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |error| Error::new(ErrorKind::Config, "TLS cannot be set up").because(error);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let client = if own.is_empty() {
        builder.with_root_certificates(roots)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(roots, own, provider)?))
    };
    Ok(Some(Arc::new(client.with_no_client_auth())))
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

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = fs::read(path).map_err(|error| {
        let text = format!(
            "the file `{}` of `REDIS_TLS_CA` cannot be read",
            path.display()
        );
        Error::new(ErrorKind::Config, text).because(error)
    })?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| no_authority(path).because(error))?;
    if certificates.is_empty() {
        return Err(no_authority(path));
    }
    Ok(certificates)
}

fn no_authority(path: &Path) -> Error {
    Error::new(
        ErrorKind::Config,
        format!(
            "the file `{}` of `REDIS_TLS_CA` is not a certificate authority in PEM form",
            path.display()
        ),
    )
}

/// Verifies as rustls does, with one addition: a server may show a certificate of the configured file itself, although that
/// certificate is one of an authority. `openssl req -x509` creates such certificates, and a configuration with one trusts
/// exactly that certificate.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(
        roots: RootCertStore,
        own: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Config, "TLS cannot be set up").because(error)
            })?;
        Ok(Self { usual, own })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self
            .usual
            .verify_server_cert(shown, others, name, ocsp, now)
        {
            // Its dates were checked before. Only the name is left to check.
            Err(error) if is_authority(&error) && self.own.contains(shown) => {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Returns whether a certificate was rejected only because it is a certificate of an authority.
fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error))) = error
    else {
        return false;
    };
    matches!(
        error.downcast_ref::<webpki::Error>(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}
