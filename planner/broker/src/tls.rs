//! Mutual TLS: the server's configuration, and the names in a client's certificate.
//!
//! In: PEM files. Out: a rustls configuration that requires a certificate of the given authority from every client, and
//! the DNS names of such a certificate once rustls has verified it. No other trust roots, no revocation lists.
//! Files that change are read again for the next connection; while they cannot be used, the last ones that could be are.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
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

/// Why a TLS configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or does not contain the expected PEM item.
    #[error("cannot read {what} from {path}")]
    Pem {
        /// The expected item.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: pem::Error,
    },
    /// The file is valid but contains no certificate.
    #[error("{path} contains no certificate")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The authority's certificates cannot be used to verify clients.
    #[error("the certificate authority cannot be used")]
    Authority(#[source] VerifierBuilderError),
    /// rustls refuses certificate or key, for example because they do not belong together.
    #[error("the certificate or its key cannot be used")]
    Rejected(#[source] rustls::Error),
}

/// How often files are checked for changes, at most: many clients may connect at one moment.
const CHECK: Duration = Duration::from_millis(200);

/// What distinguishes one version of a file from another: inode, size and time of modification.
type Version = Option<(u64, u64, i64, i64)>;

/// Mutual TLS of a listener, from files that may be replaced while it listens.
#[derive(Debug)]
pub struct ServerTls {
    /// Authority, certificate and key.
    files: [PathBuf; 3],
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    versions: [Version; 3],
    checked: Instant,
}

impl ServerTls {
    /// Reads the files. `authority`: the certificates that must have issued client certificates. `certificate` and `key`: the broker's own
    /// chain and private key. All are PEM files.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn open(authority: &Path, certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let files = [authority, certificate, key].map(Path::to_owned);
        // Before the content: a file that is replaced in between is read again.
        let versions = files.each_ref().map(|path| version(path));
        let config = server_config(authority, certificate, key)?;
        let current = Current { config, versions, checked: Instant::now() };
        Ok(Arc::new(Self { files, current: Mutex::new(current) }))
    }

    /// The configuration for the next connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.checked.elapsed() >= CHECK {
            current.checked = Instant::now();
            let versions = self.files.each_ref().map(|path| version(path));
            if versions != current.versions {
                let [authority, certificate, key] = &self.files;
                match server_config(authority, certificate, key) {
                    Ok(config) => {
                        tracing::info!(certificate = %certificate.display(), "the broker's certificates were read again");
                        (current.config, current.versions) = (config, versions);
                    }
                    // Certificate and key are replaced one after the other: the next check finds both.
                    Err(error) => tracing::debug!(%error, "the broker's new certificates cannot be used"),
                }
            }
        }
        Arc::clone(&current.config)
    }
}

fn version(path: &Path) -> Version {
    fs::metadata(path).ok().map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()))
}

fn server_config(authority: &Path, certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
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

/// The DNS names of a certificate; none if it has none or cannot be parsed.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Arc<[String]> {
    match webpki::EndEntityCert::try_from(certificate) {
        Ok(parsed) => parsed.valid_dns_names().map(str::to_owned).collect(),
        Err(_) => Arc::default(),
    }
}
