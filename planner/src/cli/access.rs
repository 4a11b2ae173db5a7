//! The options by which commands prove themselves to a broker.

use std::path::PathBuf;

use groundplan_protocol::broker::Secret;

use crate::config::{BrokerLogin, BrokerTls, PASSWORD_VARIABLE};

/// Certificates, user name and password. A password is never an argument, which other users of the machine could read.
#[derive(Debug, clap::Args)]
pub(super) struct BrokerAccess {
    /// Certificates of the authorities that may issue the broker's certificate, in PEM; required for `mqtts://`.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_BROKER_CA")]
    broker_ca: Option<PathBuf>,

    /// The client certificate, in PEM, for mutual TLS.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_BROKER_CERT", requires_all = ["broker_ca", "broker_key"])]
    broker_cert: Option<PathBuf>,

    /// The private key of that certificate, in PEM.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_BROKER_KEY", requires = "broker_cert")]
    broker_key: Option<PathBuf>,

    /// The broker's user; its password comes from --broker-password-file or $GROUNDPLAN_BROKER_PASSWORD.
    #[arg(long, value_name = "NAME", env = "GROUNDPLAN_BROKER_USERNAME")]
    broker_username: Option<String>,

    /// The file with the password of the broker's user.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_BROKER_PASSWORD_FILE")]
    broker_password_file: Option<PathBuf>,
}

impl BrokerAccess {
    /// The files for TLS.
    pub(super) fn tls(&self) -> Option<BrokerTls> {
        let identity = self.broker_cert.clone().zip(self.broker_key.clone());
        self.broker_ca.clone().map(|ca| BrokerTls { ca, identity })
    }

    /// The user, if there is a password; `default` if it is not named.
    pub(super) fn login(&self, default: &str) -> Option<BrokerLogin> {
        let password = match &self.broker_password_file {
            Some(path) => Secret::File(path.clone()),
            None => Secret::Text(std::env::var(PASSWORD_VARIABLE).ok()?),
        };
        Some(BrokerLogin { username: self.broker_username.clone().unwrap_or_else(|| default.to_owned()), password })
    }
}
