//! The certificates that encrypted connections trust and show.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redis::RedisError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError,
    RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::file::{contents, unusable};
use crate::config::{Access, Tls};
use crate::error::{Error, ErrorKind};
use crate::sync::Mutex;

/// What connections trust and show. Connections with the same one resume the sessions of each other.
#[derive(Clone)]
pub(super) struct Client {
    config: Arc<ClientConfig>,
    advice: Arc<Advice>,
}

/// The files of certificates, and what they held last.
pub(super) struct Certificates {
    authority: Option<PathBuf>,
    /// The certificate and its key.
    own: Option<[PathBuf; 2]>,
    provider: Arc<CryptoProvider>,
    advice: Arc<Advice>,
    /// With a digest of the files, because private keys should be in as few places as possible.
    last: Mutex<Option<(Contents, Client)>>,
}

/// A digest of all files.
type Contents = [u8; 32];

impl Certificates {
    /// Returns [`None`] if connections are not encrypted. Reads nothing.
    pub(super) fn new(access: &Access) -> Result<Option<Self>, Error> {
        let authority = match &access.tls {
            Tls::Off => return Ok(None),
            Tls::WebRoots => None,
            Tls::Ca(path) => Some(path.clone()),
        };
        let own = access.tls_cert.clone().zip(access.tls_key.clone());
        let advice = Advice {
            authority: access.variable("tls_ca"),
            certificate: access.variable("tls_cert"),
            key: access.variable("tls_key"),
            shown: access.tls_cert.clone(),
        };
        Ok(Some(Self {
            authority,
            own: own.map(|(certificate, key)| [certificate, key]),
            provider: provider()?,
            advice: Arc::new(advice),
            last: Mutex::default(),
        }))
    }

    pub(super) fn are_in_files(&self) -> bool {
        self.authority.is_some() || self.own.is_some()
    }

    /// Reads the files. Returns the last client if they have not changed.
    pub(super) fn client(&self) -> Result<Client, Error> {
        let advice = &self.advice;
        let authority = self.authority.as_ref();
        let authority = authority
            .map(|path| contents(path, &advice.authority))
            .transpose()?;
        let own = match &self.own {
            Some([certificate, key]) => Some([
                contents(certificate, &advice.certificate)?,
                contents(key, &advice.key)?,
            ]),
            None => None,
        };
        let mut digest = Sha256::new();
        for file in authority.iter().chain(own.iter().flatten()) {
            digest.update(Sha256::digest(file));
        }
        let contents = digest.finalize().into();
        let mut last = self.last.lock();
        match &*last {
            Some((known, client)) if *known == contents => Ok(client.clone()),
            _ => {
                let client = Client {
                    config: Arc::new(self.build(authority.as_deref(), own.as_ref())?),
                    advice: Arc::clone(advice),
                };
                *last = Some((contents, client.clone()));
                Ok(client)
            }
        }
    }

    fn build(
        &self,
        authority: Option<&[u8]>,
        own: Option<&[Vec<u8>; 2]>,
    ) -> Result<ClientConfig, Error> {
        let mut roots = RootCertStore::empty();
        let mut trusted = Vec::new();
        match (&self.authority, authority) {
            (Some(path), Some(pem)) => {
                let no_authority = || {
                    let what = "is not a certificate authority in PEM form";
                    unusable(path, &self.advice.authority, what)
                };
                trusted = certificates(pem, no_authority)?;
                for certificate in &trusted {
                    roots
                        .add(certificate.clone())
                        .map_err(|error| no_authority().because(error))?;
                }
            }
            _ => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| not_set_up().because(error))?;
        let builder = if trusted.is_empty() {
            builder.with_root_certificates(roots)
        } else {
            let verifier = Verifier::new(roots, trusted, Arc::clone(&self.provider))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
        };
        let (Some([path, key_path]), Some([certificate, key])) = (&self.own, own) else {
            return Ok(builder.with_no_client_auth());
        };
        let Advice {
            certificate: variable,
            key: key_variable,
            ..
        } = &*self.advice;
        let chain = certificates(certificate, || {
            unusable(path, variable, "is not a certificate in PEM form")
        })?;
        let key = private_key(key, key_path, key_variable)?;
        builder.with_client_auth_cert(chain, key).map_err(|error| {
            let error_of = |what: &str| unusable(key_path, key_variable, what);
            match error {
                rustls::Error::InconsistentKeys(_) => error_of(&format!(
                    "is not the key of the certificate in `{}`; set `{variable}` and `{key_variable}` to files that belong together",
                    path.display()
                )),
                error => error_of("is not a key that can be used; use an RSA, ECDSA or Ed25519 key").because(error),
            }
        })
    }
}

/// The provider of the features, or that of the process. It is named here, because rustls panics in a process that has several
/// providers and has chosen none.
fn provider() -> Result<Arc<CryptoProvider>, Error> {
    #[cfg(feature = "aws-lc")]
    return Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc")))]
    return Ok(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "aws-lc", feature = "ring")))]
    CryptoProvider::get_default().cloned().ok_or_else(|| {
        let text = "TLS has no cryptography; enable the feature `ring` or `aws-lc` of cache-runtime, or install a provider in rustls";
        Error::new(ErrorKind::Config, text)
    })
}

fn not_set_up() -> Error {
    Error::new(ErrorKind::Config, "TLS cannot be set up")
}

/// Returns the certificates in a PEM file, at least one.
fn certificates(
    pem: &[u8],
    wrong: impl Fn() -> Error,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong().because(error))?;
    match certificates.is_empty() {
        true => Err(wrong()),
        false => Ok(certificates),
    }
}

fn private_key(pem: &[u8], path: &Path, variable: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
        let is_encrypted = pem.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED);
        match error {
            pem::Error::NoItemsFound if is_encrypted => {
                let what = "is encrypted; use a key without a passphrase, as `openssl pkcs8 -in key.pem` writes it";
                unusable(path, variable, what)
            }
            error => unusable(path, variable, "is not a private key in PEM form").because(error),
        }
    })
}

/// Encrypts a socket to the server of this name.
pub(super) async fn encrypt(
    client: &Client,
    host: &str,
    socket: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(&client.config))
        .connect(name, socket)
        .await
}

/// What to do about a failed handshake, by the names of variables.
struct Advice {
    authority: String,
    certificate: String,
    key: String,
    /// The file of the certificate that is shown.
    shown: Option<PathBuf>,
}

impl Client {
    /// Returns what to do about a failed connection, if encryption is the reason.
    pub(super) fn advice(&self, error: &io::Error) -> Option<String> {
        let error = error.get_ref()?.downcast_ref()?;
        self.advice.about(error)
    }

    /// The same for a connection that failed after the handshake: in TLS 1.3, a server checks the certificate of the client then.
    pub(super) fn late_advice(&self, error: &RedisError) -> Option<String> {
        let cause: &Arc<dyn std::error::Error + Send + Sync> =
            std::error::Error::source(error)?.downcast_ref()?;
        self.advice(cause.downcast_ref()?)
    }
}

impl Advice {
    fn about(&self, error: &rustls::Error) -> Option<String> {
        use AlertDescription::{
            AccessDenied, BadCertificate, CertificateExpired, CertificateRequired,
            CertificateRevoked, CertificateUnknown, DecryptError, HandshakeFailure, UnknownCA,
            UnsupportedCertificate,
        };
        let Self {
            authority,
            certificate,
            key,
            shown,
        } = self;
        Some(match (error, shown) {
            (
                rustls::Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ),
                _,
            ) => format!(
                "its certificate is not from an authority that is trusted; set `{authority}` to the file with the certificate of \
                 its authority"
            ),
            // TLS 1.2 has no alert of its own for a missing certificate.
            (rustls::Error::AlertReceived(CertificateRequired | HandshakeFailure), None) => {
                format!(
                    "it asks for a client certificate; set `{certificate}` and `{key}`, or set `tls-auth-clients` to `no` on the server"
                )
            }
            (
                rustls::Error::AlertReceived(
                    AccessDenied
                    | BadCertificate
                    | CertificateExpired
                    | CertificateRequired
                    | CertificateRevoked
                    | CertificateUnknown
                    | DecryptError
                    | UnknownCA
                    | UnsupportedCertificate,
                ),
                Some(shown),
            ) => format!(
                "it refused the certificate in `{}` of `{certificate}`; use one that is valid today and from an authority in the \
                 `tls-ca-cert-file` of the server",
                shown.display()
            ),
            _ => return None,
        })
    }
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
            .map_err(|error| not_set_up().because(error))?;
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
