//! How this program proves itself to a broker: TLS, user name and password, or the embedded broker's unix socket.
//!
//! In: where certificates and passwords are. Out: options of the client with what the files hold now.

use std::{fs, path::Path};

use rumqttc::{MqttOptions, TlsConfiguration, Transport};

use crate::config::{BrokerLogin, BrokerTls};

/// Why no connection can even be tried.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A file for TLS cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `mqtts://` without, or `mqtt://` with, files for TLS.
    #[error("an `mqtts://` broker needs the certificate of its authority, and only such a broker takes one")]
    Tls,
    /// The broker's password cannot be read.
    #[error("cannot read the broker's password")]
    Password(#[source] std::io::Error),
}

/// Puts TLS and login into the options. `wanted`: the address is `mqtts://`.
///
/// # Errors
/// A file cannot be read, or there are files for TLS with an address without it, or the other way round.
pub(crate) fn prove(
    options: &mut MqttOptions,
    wanted: bool,
    tls: Option<&BrokerTls>,
    login: Option<&BrokerLogin>,
) -> Result<(), TransportError> {
    match (wanted, tls) {
        (true, Some(files)) => drop(options.set_transport(Transport::tls_with_config(configuration(files)?))),
        (false, None) => {}
        _ => return Err(TransportError::Tls),
    }
    if let Some(BrokerLogin { username, password }) = login {
        let password = password.text(|path| fs::read_to_string(path)).map_err(TransportError::Password)?;
        options.set_credentials(username, password);
    }
    Ok(())
}

fn configuration(files: &BrokerTls) -> Result<TlsConfiguration, TransportError> {
    let read = |path: &Path| fs::read(path).map_err(|source| TransportError::File { path: path.to_owned(), source });
    let client_auth = match &files.identity {
        Some((cert, key)) => Some((read(cert)?, read(key)?)),
        None => None,
    };
    Ok(TlsConfiguration::Simple { ca: read(&files.ca)?, alpn: None, client_auth })
}
