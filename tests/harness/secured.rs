//! Brokers of other projects, with the configuration that `groundplan broker config` writes.
//!
//! In: which one, and the site. Out: a broker with TLS on an address of its own, and certificates for its clients. Changes nothing of the
//! configuration but where logs go and, for NATS, the address of the port that groundplan does not use. Ends with the handle.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio_rustls::rustls::ClientConfig;

use crate::{authority::Authority, binaries, loopback::Loopback};

/// How long a broker may take to start on a loaded machine; RabbitMQ takes ten seconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secured {
    /// Mosquitto.
    Mosquitto,
    /// Mosquitto with user names and passwords, where clients have no certificate.
    MosquittoPasswords,
    /// NATS with JetStream.
    Nats,
    /// RabbitMQ with its MQTT plugin.
    Rabbitmq,
}

impl Secured {
    fn name(self) -> &'static str {
        match self {
            Self::Mosquitto | Self::MosquittoPasswords => "mosquitto",
            Self::Nats => "nats",
            Self::Rabbitmq => "rabbitmq",
        }
    }
}

/// A broker that runs as long as this handle exists.
pub struct SecuredBroker {
    kind: Secured,
    directory: TempDir,
    authority: Authority,
    net: Loopback,
    child: Option<Child>,
}

impl SecuredBroker {
    /// Writes the configuration for the site in a directory, and starts the broker with it.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(kind: Secured, site: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("groundplan-secured-").tempdir().expect("a scratch directory");
        let mut broker = Self { kind, directory, authority: Authority::new(), net: Loopback::claim(), child: None };
        for folder in ["data", "certs"] {
            fs::create_dir(broker.path(folder)).expect("a folder");
        }
        fs::write(broker.path("ca.pem"), broker.authority.pem()).expect("a file");
        broker.authority.write_as(broker.directory.path(), "broker", &broker.address().ip().to_string());
        let mut config = Command::new(binaries::groundplan());
        config.args(["broker", "config", kind.name(), "-C"]).arg(site).arg("--out").arg(broker.directory.path());
        config.arg("--data").arg(broker.path("data")).args(["--listen", &broker.address().to_string()]);
        if kind == Secured::MosquittoPasswords {
            config.args(["--proof", "passwords"]);
        }
        let output = config.output().expect("groundplan runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        broker.launch();
        broker
    }

    fn launch(&mut self) {
        let dir = self.directory.path();
        let mut command = match self.kind {
            Secured::Mosquitto | Secured::MosquittoPasswords => {
                // As root it would become another user, who cannot read the scratch directory.
                let more = format!("user root\nlog_dest file {}\n", self.path("log").display());
                append(&self.path("mosquitto.conf"), &more);
                if self.kind == Secured::MosquittoPasswords {
                    let passwords = self.path("passwords");
                    fs::write(&passwords, "").expect("a file");
                    for name in ["planner", "n1", "n2"] {
                        let mut add = Command::new("mosquitto_passwd");
                        add.arg("-b").arg(&passwords).args([name, &Self::password(name)]);
                        assert!(add.status().expect("mosquitto_passwd runs").success());
                    }
                }
                let mut command = Command::new("/usr/sbin/mosquitto");
                command.arg("-c").arg(self.path("mosquitto.conf"));
                command
            }
            Secured::Nats => {
                let path = self.path("nats.conf");
                let text = fs::read_to_string(&path).expect("the configuration");
                let own = format!("{}:4222", self.address().ip());
                fs::write(&path, text.replace("127.0.0.1:4222", &own)).expect("the configuration");
                let mut command = Command::new("nats-server");
                command.arg("-c").arg(path).arg("-l").arg(self.path("log"));
                command
            }
            Secured::Rabbitmq => {
                // Not Debian's wrapper, which becomes another user. A port mapper of its own: it outlives the broker.
                let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
                command
                    .env("RABBITMQ_NODENAME", format!("groundplan-{}@localhost", std::process::id()))
                    .env("RABBITMQ_CONFIG_FILE", self.path("rabbitmq.conf"))
                    .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.path("enabled_plugins"))
                    .env("RABBITMQ_MNESIA_BASE", self.path("data"))
                    .env("RABBITMQ_LOG_BASE", dir)
                    .env("RABBITMQ_LOGS", self.path("log"))
                    .env("RABBITMQ_DIST_PORT", "25672")
                    .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
                    .env("HOME", dir)
                    .envs(self.port_mapper());
                command
            }
        };
        let output = fs::File::create(self.path("output")).expect("a file");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be run ({error}): tests/run installs it", self.kind.name()));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address()).is_err() {
            let ended = child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none() && Instant::now() < deadline, "it does not start: {ended:?}\n{}", self.logged());
            sleep(Duration::from_millis(20));
        }
        self.child = Some(child);
    }

    /// The variables by which Erlang's port mapper stays on this broker's address.
    fn port_mapper(&self) -> [(&'static str, String); 2] {
        [("ERL_EPMD_ADDRESS", self.net.address(1).to_string()), ("ERL_EPMD_PORT", "4369".to_owned())]
    }

    /// Where it listens, with TLS.
    pub fn address(&self) -> SocketAddr {
        (self.net.address(1), 8883).into()
    }

    /// The same for planner and agents.
    pub fn url(&self) -> String {
        format!("mqtts://{}", self.address())
    }

    /// Replaces the authority and all certificates, those of these clients included, and starts the broker again.
    pub fn renew(&mut self, clients: &[&str]) {
        self.stop();
        self.authority = Authority::new();
        fs::write(self.ca(), self.authority.pem()).expect("a file");
        self.authority.write_as(self.directory.path(), "broker", &self.address().ip().to_string());
        clients.iter().for_each(|name| drop(self.certificate(name)));
        self.launch();
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The script of RabbitMQ waits for its runtime, and ends it on SIGTERM.
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let deadline = Instant::now() + PATIENCE;
            while child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
                sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its log.
    pub fn logged(&self) -> String {
        ["output", "log"].map(|name| fs::read_to_string(self.path(name)).unwrap_or_default()).concat()
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A new certificate and its key for a client of this name; none where clients have passwords.
    pub fn certificate(&self, name: &str) -> Option<(PathBuf, PathBuf)> {
        (self.kind != Secured::MosquittoPasswords).then(|| self.authority.write(&self.path("certs"), name))
    }

    /// A file with the password of a client of this name; none where clients have certificates.
    pub fn password_file(&self, name: &str) -> Option<PathBuf> {
        let path = self.path("certs").join(format!("{name}.password"));
        (self.kind == Secured::MosquittoPasswords).then(|| {
            fs::write(&path, Self::password(name) + "\n").expect("a file");
            path
        })
    }

    /// The password of a client of this name.
    pub fn password(name: &str) -> String {
        format!("secret of {name}")
    }

    /// What a client with a certificate of this name connects with.
    pub fn client(&self, name: &str) -> Arc<ClientConfig> {
        self.authority.client(Some((&self.authority, name)))
    }
}

impl Drop for SecuredBroker {
    fn drop(&mut self) {
        self.stop();
        if self.kind == Secured::Rabbitmq {
            let mut mapper = Command::new("epmd");
            mapper.arg("-kill").envs(self.port_mapper()).stdout(Stdio::null()).stderr(Stdio::null());
            let _ = mapper.status();
        }
    }
}

fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).expect("a configuration");
    if !before.ends_with(text) {
        fs::write(path, before + text).expect("a configuration");
    }
}
