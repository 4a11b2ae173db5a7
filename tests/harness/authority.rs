//! A certificate authority in memory, for brokers, planners and agents of tests.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// An authority, which issues certificates.
pub struct Authority(Issuer<'static, KeyPair>, rcgen::Certificate);

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one, which no one else trusts.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters of a certificate");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self(Issuer::new(params, key), certificate)
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.1.pem()
    }

    /// A certificate with this name as common name and as DNS name or address.
    pub fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, &self.0).expect("a certificate"), key)
    }

    /// Writes `<name>.pem` and `<name>-key.pem` into `dir`, for a certificate of this name.
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        self.write_as(dir, name, name)
    }

    /// The same for a certificate whose name is not that of its files.
    pub fn write_as(&self, dir: &Path, file: &str, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue(name);
        let paths = (dir.join(format!("{file}.pem")), dir.join(format!("{file}-key.pem")));
        fs::write(&paths.0, certificate.pem()).expect("a file");
        fs::write(&paths.1, key.serialize_pem()).expect("a file");
        paths
    }

    /// A client that trusts this authority, and bears a certificate of `issuer` if there is one.
    pub fn client(&self, issuer: Option<(&Self, &str)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.1.der().clone()).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots);
        Arc::new(match issuer {
            None => builder.with_no_client_auth(),
            Some((issuer, name)) => {
                let (certificate, key) = issuer.issue(name);
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).expect("a certificate and its key")
            }
        })
    }
}
