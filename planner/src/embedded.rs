//! The embedded broker beside a planner: who may connect to it, and how.
//!
//! In: an address, and certificates or a secret. Out: a running broker whose rights are those of the site, or a failure with a hint. The
//! planner itself connects by a unix socket in its state directory, which no flood on the address can block. Agents have certificates, or on
//! a loopback address the password of their node. An address that others can reach is refused without TLS.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use groundplan_broker::{Access, Broker, Config, Limits, Listener, LocalSocket, Passwords, ServerTls, SitePolicy};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ring::hmac;

use crate::{
    config::EmbeddedBroker,
    private,
    terminal::Failure,
    trust::{self, TrustError},
};

/// The file of the secret, in the planner's state directory.
const SECRET: &str = "broker.secret";
/// The unix socket, there as well.
const SOCKET: &str = "broker.sock";

/// The passwords of all users, which follow from one secret: HMAC-SHA256 (RFC 2104) of the user's name.
#[derive(Clone)]
pub(crate) struct NodePasswords(hmac::Key);

impl fmt::Debug for NodePasswords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodePasswords")
    }
}

impl NodePasswords {
    /// Passwords that end with this process.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(crate) fn random() -> Result<Self, TrustError> {
        Ok(Self::of(trust::random()?))
    }

    /// The passwords of a planner, whose secret is made if it is not there.
    ///
    /// # Errors
    /// The file cannot be read or made.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, TrustError> {
        let path = state_dir.join(SECRET);
        let io = |source| TrustError::Io { path: path.clone(), source };
        let secret = loop {
            match private::open(&path, fs::File::options().read(true)) {
                Ok(mut file) => {
                    let mut secret = Vec::new();
                    file.read_to_end(&mut secret).map_err(io)?;
                    break secret;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(error)),
            }
            private::parents(state_dir).map_err(io)?;
            // Complete under a name of its own, then under its name if nothing is there: two processes end with the same one.
            let mark: [u8; 8] = trust::random()?;
            let new = state_dir.join(format!("{SECRET}.{:016x}", u64::from_ne_bytes(mark)));
            let mut file = private::open(&new, fs::File::options().write(true).create_new(true)).map_err(io)?;
            file.write_all(&trust::random::<32>()?).and_then(|()| file.sync_all()).map_err(io)?;
            let made = fs::hard_link(&new, &path);
            fs::remove_file(&new).map_err(io)?;
            match made {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
                _ => {}
            }
        };
        let secret = secret.try_into().map_err(|_| io(io::Error::other("it does not hold 32 bytes")))?;
        Ok(Self::of(secret))
    }

    fn of(secret: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// The password of a user: a node, or `observer`.
    pub(crate) fn password(&self, user: &str) -> String {
        BASE64.encode(hmac::sign(&self.0, user.as_bytes()))
    }
}

impl Passwords for NodePasswords {
    fn verify(&self, user: &str, password: &str) -> bool {
        // In constant time, as ring promises.
        BASE64.decode(password).is_ok_and(|tag| hmac::verify(&self.0, user.as_bytes(), &tag).is_ok())
    }
}

/// Files of mutual TLS of the embedded broker, in PEM.
#[derive(Debug, Clone)]
pub(crate) struct ServerFiles {
    /// The authority of the agents' certificates.
    pub(crate) ca: PathBuf,
    /// The broker's certificate.
    pub(crate) cert: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
}

/// How agents prove their names.
pub(crate) enum Proof {
    Certificates(ServerFiles),
    Passwords(NodePasswords),
}

/// Starts the embedded broker.
///
/// # Errors
/// The address is one that others can reach and there is no TLS, it cannot be bound, or the certificates cannot be used.
pub(crate) async fn start(
    address: SocketAddr,
    proof: Proof,
    state_dir: &Path,
    limits: Limits,
) -> Result<(Broker, EmbeddedBroker), Failure> {
    let access = match proof {
        Proof::Certificates(ServerFiles { ca, cert, key }) => {
            Access::Certificates(ServerTls::open(&ca, &cert, &key).map_err(|e| {
                Failure::because("cannot use the embedded broker's certificates", e)
                    .hint("--embedded-broker-ca, -cert and -key name PEM files: docs/brokers.md shows how to make them")
            })?)
        }
        Proof::Passwords(_) if !address.ip().is_loopback() => {
            return Err(Failure::new(format!("{address} can be reached from other machines, and the broker has no TLS"))
                .hint(
                    "give --embedded-broker-ca, --embedded-broker-cert and --embedded-broker-key for mutual TLS; or listen on 127.0.0.1; or run a separate broker and use --broker mqtts://",
                ));
        }
        Proof::Passwords(passwords) => Access::Passwords(Arc::new(passwords)),
    };
    let (socket, policy) = (state_dir.join(SOCKET), Arc::new(SitePolicy::unnamed()));
    let config = Config {
        listeners: vec![Listener { address, access }],
        socket: Some(LocalSocket { path: socket.clone(), name: "planner".to_owned() }),
        limits,
    };
    let broker = Broker::start(config, policy.clone()).await.map_err(|e| {
        Failure::because("cannot start the embedded broker", e).hint("choose another port; 0 means any free port")
    })?;
    Ok((broker, EmbeddedBroker { socket, policy }))
}

/// Raises the limit of file descriptors as far as an unprivileged process may, and returns it.
pub(crate) fn raise_descriptors() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => usize::try_from(hard).unwrap_or(usize::MAX),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of file descriptors");
            usize::try_from(soft).unwrap_or(usize::MAX)
        }
    }
}

/// The limit of file descriptors of this process.
pub(crate) fn descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn passwords_are_each_user_s_own_and_last() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (NodePasswords::open(dir.path()).unwrap(), NodePasswords::open(dir.path()).unwrap());
        let password = first.password("web");
        assert_eq!(password, second.password("web"));
        assert!(second.verify("web", &password));
        for (user, given) in [("db", &*password), ("web", ""), ("web", &password[1..]), ("", &password)] {
            assert!(!second.verify(user, given), "{user} {given}");
        }
        assert!(!NodePasswords::random().unwrap().verify("web", &password));
        let mode = fs::metadata(dir.path().join(SECRET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_address_of_others_needs_tls() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:1883"] {
            let proof = Proof::Passwords(NodePasswords::random().unwrap());
            let started = runtime.block_on(start(address.parse().unwrap(), proof, dir.path(), Limits::default()));
            let failure = started.map(|_| ()).unwrap_err();
            assert!(failure.hint_text().is_some_and(|hint| hint.contains("--embedded-broker-cert")), "{failure}");
        }
    }
}
