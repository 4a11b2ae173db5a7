//! Mutual TLS: the server's side of it, and the names of a client's certificate.
//!
//! In: PEM files. Out: a rustls configuration that asks every client for a certificate of the given authority, and
//! the DNS names of such a certificate, once rustls has verified it. No other trust roots, no revocation lists.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{VerifierBuilderError, WebPkiClientVerifier},
};

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or does not hold what it should.
    #[error("cannot read {what} from {path}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: pem::Error,
    },
    /// The file is fine but holds no certificate.
    #[error("{path} holds no certificate")]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The authority's certificates cannot verify clients.
    #[error("the certificate authority cannot be used")]
    Authority(#[source] VerifierBuilderError),
    /// Certificate, key and authority are there, but rustls refuses them, say because they do not fit together.
    #[error("the certificate or its key cannot be used")]
    Rejected(#[source] rustls::Error),
}

/// The configuration of a listener that asks for client certificates.
///
/// `authority`: the certificates that client certificates must come from. `certificate` and `key`: the broker's own
/// chain and private key. All PEM.
pub fn server_config(authority: &Path, certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(authority)? {
        roots.add(root).map_err(TlsError::Rejected)?;
    }
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem {
        what: "a private key",
        path: key.to_owned(),
        source,
    })?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(TlsError::Authority)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rejected)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Rejected)?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::Pem { what: "certificates", path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(error)?.collect();
    match found.map_err(error)? {
        none if none.is_empty() => Err(TlsError::NoCertificate { path: path.to_owned() }),
        found => Ok(found),
    }
}

/// The DNS names of a certificate; none if it has none, or cannot be read.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Arc<[String]> {
    match webpki::EndEntityCert::try_from(certificate) {
        Ok(parsed) => parsed.valid_dns_names().map(str::to_owned).collect(),
        Err(_) => Arc::default(),
    }
}
