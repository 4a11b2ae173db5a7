//! TLS to the broker: rustls with ring, and only the authority and the identity from the configuration. Its files are read each time.

use std::{fs, io, path::Path, path::PathBuf, sync::Arc};

use rumqttc::{TlsConfiguration, Transport};
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};

use crate::config::Tls;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The broker's password cannot be read.
    #[error("cannot read `password_file`")]
    Password {
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM, or has no certificate or key.
    #[error("`tls.{key}` holds no usable PEM")]
    Pem {
        /// The key of the table `tls` in the configuration.
        key: &'static str,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// A certificate or key cannot be used.
    #[error("`tls.{key}` cannot be used")]
    Unusable {
        /// The key of the table `tls` in the configuration.
        key: &'static str,
        /// The reason of rustls.
        #[source]
        source: rustls::Error,
    },
}

fn certificates<'a>(key: &'static str, text: &'a [u8]) -> Result<Vec<CertificateDer<'a>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(TlsError::Pem { key, source: pem::Error::NoItemsFound }),
        other => other.map_err(|source| TlsError::Pem { key, source }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

pub(super) fn transport(tls: &Tls) -> Result<Transport, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", &read(&tls.ca)?)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable { key: "ca", source })?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable { key: "ca", source })?
        .with_root_certificates(roots);
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain =
                certificates("cert", &read(certificate)?)?.into_iter().map(CertificateDer::into_owned).collect();
            let key =
                PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|source| TlsError::Pem { key: "key", source })?;
            builder.with_client_auth_cert(chain, key).map_err(|source| TlsError::Unusable { key: "cert", source })?
        }
    };
    Ok(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))))
}
