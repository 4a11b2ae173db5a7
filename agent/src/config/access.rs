//! How the agent proves itself to the broker: files of TLS, user name and password.
//!
//! In: the raw settings. Out: where certificate and password are, after they could be read once. They are read again for each connection,
//! so a file that was replaced counts from the next one on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use groundplan_protocol::broker::{BrokerAddress, Secret};

use super::{error::ConfigError, file::Raw};

/// The environment variable with the broker's password.
pub(super) const PASSWORD_VARIABLE: &str = "GROUNDPLAN_BROKER_PASSWORD";

/// How to connect to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// The broker's host and port, and whether it speaks TLS.
    pub address: BrokerAddress,
    /// What TLS needs; present if, and only if, the address is `mqtts://`.
    pub tls: Option<Tls>,
    /// User name and password, if the broker wants any.
    pub login: Option<Login>,
}

/// TLS to the broker: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that may have signed the broker's certificate.
    pub ca: PathBuf,
    /// The node's own certificate and its key, for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A user of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

pub(super) fn tls(raw: &Raw, spoken: bool, faults: &mut Vec<String>) -> Result<Option<Tls>, ConfigError> {
    let tls = raw.tls.clone().unwrap_or_default();
    if !spoken {
        if raw.tls.is_some() && raw.broker.is_some() {
            faults.push("`tls` is set but `broker` is not mqtts://: one of the two is wrong".to_owned());
        }
        return Ok(None);
    }
    let Some(ca) = tls.ca else {
        faults.push(
            "`tls.ca` is not set: give the PEM file of the authority that signed the broker's certificate".to_owned(),
        );
        return Ok(None);
    };
    let identity = match (tls.cert, tls.key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            faults.push("of `tls.cert` and `tls.key` only one is set: give both, or neither".to_owned());
            None
        }
    };
    // Now, so that a wrong path is an error of the configuration and not of each connection.
    for path in [&ca].into_iter().chain(identity.iter().flat_map(|(cert, key)| [cert, key])) {
        readable(path)?;
    }
    Ok(Some(Tls { ca, identity }))
}

pub(super) fn login(
    raw: &Raw,
    environment: Option<String>,
    faults: &mut Vec<String>,
) -> Result<Option<Login>, ConfigError> {
    let password = match (&raw.password_file, environment) {
        (Some(path), _) => {
            readable(path)?;
            Secret::File(path.clone())
        }
        (None, Some(text)) => Secret::Text(text),
        (None, None) => {
            if raw.username.is_some() {
                faults.push(format!(
                    "`username` is set without a password: give `password_file`, or ${PASSWORD_VARIABLE}"
                ));
            }
            return Ok(None);
        }
    };
    let username = raw.username.clone().or_else(|| raw.node.clone()).unwrap_or_default();
    Ok(Some(Login { username, password }))
}

fn readable(path: &Path) -> Result<(), ConfigError> {
    fs::File::open(path).map(drop).map_err(|source| ConfigError::Io { path: path.to_owned(), source })
}
