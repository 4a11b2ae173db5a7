//! Brokers for tests: the embedded one and a real Mosquitto, behind one handle.
//!
//! In: which kind, and its options. Out: a broker on an address and in a directory of its own, that accepts connections when `start` returns
//! and ends with the handle. Ends only what it started, by its pid.
//! Blocking and free of the caller's runtime, so that sync and async tests can use it alike.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread::sleep,
    time::{Duration, Instant},
};

use groundplan_broker::{Access, AllowAll, Broker, BrokerError, Config, Limits, Listener, Policy, ServerTls, Stats};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::loopback::Loopback;

/// Where Debian puts it.
const MOSQUITTO: &str = "/usr/sbin/mosquitto";
/// Ports without and with TLS. No other program listens on the broker's address.
const PORTS: [u16; 2] = [1883, 8883];
/// How long a broker may take to start or stop on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The one in the planner, in this process, on a runtime of its own.
    Embedded,
    /// Mosquitto, in a process of its own.
    Mosquitto,
}

/// How it is set up. Mosquitto takes the largest packet and how many messages are in flight.
#[derive(Clone)]
pub struct Options {
    /// The embedded broker's limits; `max_packet` and `max_in_flight` are Mosquitto's too.
    pub limits: Limits,
    /// The embedded broker's policy.
    pub policy: Arc<dyn Policy>,
    /// Gives the embedded broker a second listener, see [`TestBroker::tls_address`].
    pub tls: Option<Arc<ServerTls>>,
    /// How many messages Mosquitto holds for a client beside those in flight; what is beyond, it drops. 0 for any number.
    pub mosquitto_queue: usize,
    /// This machine's address to listen on, which the caller has for itself; a loopback address of its own if not given.
    pub ip: Option<IpAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), policy: Arc::new(AllowAll), tls: None, mosquitto_queue: 0, ip: None }
    }
}

enum Running {
    Embedded { runtime: Runtime, broker: Broker },
    Mosquitto(Child),
    Stopped,
}

/// A broker that runs as long as this handle exists.
pub struct TestBroker {
    kind: Kind,
    options: Options,
    directory: TempDir,
    /// Kept over restarts, so that clients find it again.
    addresses: Vec<SocketAddr>,
    running: Running,
    _loopback: Option<Loopback>,
}

impl TestBroker {
    /// Starts a broker with the default options.
    pub fn start(kind: Kind) -> Self {
        Self::start_with(kind, Options::default())
    }

    /// Starts a broker.
    ///
    /// # Panics
    /// If it does not start; the message says what to do.
    pub fn start_with(kind: Kind, options: Options) -> Self {
        let directory = tempfile::Builder::new().prefix("groundplan-broker-").tempdir().expect("a scratch directory");
        let loopback = options.ip.is_none().then(Loopback::claim);
        let ip = options.ip.or(loopback.as_ref().map(|net| net.address(1).into())).expect("one of the two");
        let ports = if options.tls.is_some() { &PORTS[..] } else { &PORTS[..1] };
        // IPv6 has one loopback address for all: there the kernel chooses the ports.
        let addresses = ports.iter().map(|port| (ip, if ip.is_ipv6() { 0 } else { *port }).into()).collect();
        let mut broker = Self { kind, options, directory, addresses, running: Running::Stopped, _loopback: loopback };
        broker.launch();
        broker
    }

    /// Which broker it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens, without TLS.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Has clients that are started from now on use this address instead. The broker cannot be started again then.
    pub fn stand_in(&mut self, address: SocketAddr) {
        self.addresses[0] = address;
    }

    /// Where the embedded broker listens with TLS, if the options ask for it.
    pub fn tls_address(&self) -> SocketAddr {
        self.addresses[1]
    }

    /// Figures of the embedded broker.
    pub fn stats(&self) -> Stats {
        match &self.running {
            Running::Embedded { broker, .. } => broker.stats(),
            _ => panic!("only a running embedded broker has statistics"),
        }
    }

    /// Mosquitto's process id, for tests that measure or signal it.
    pub fn pid(&self) -> Option<u32> {
        match &self.running {
            Running::Mosquitto(child) => Some(child.id()),
            _ => None,
        }
    }

    /// Stops it in an orderly way: Mosquitto saves its database, the embedded broker keeps nothing.
    pub fn stop(&mut self) {
        match std::mem::replace(&mut self.running, Running::Stopped) {
            Running::Embedded { runtime, broker } => {
                let (done, wait) = mpsc::channel();
                runtime.spawn(async move {
                    broker.stop().await;
                    drop(done);
                });
                // The channel closes when it has stopped.
                assert_eq!(wait.recv_timeout(PATIENCE), Err::<(), _>(mpsc::RecvTimeoutError::Disconnected));
                runtime.shutdown_background();
            }
            Running::Mosquitto(mut child) => {
                let pid = Pid::from_raw(child.id().try_into().expect("a pid"));
                kill(pid, Signal::SIGTERM).expect("mosquitto can be stopped");
                let stopped = patiently(|| child.try_wait().expect("mosquitto can be waited for"));
                if stopped.is_none() {
                    end(&mut child);
                    panic!("mosquitto did not stop within {PATIENCE:?}");
                }
            }
            Running::Stopped => {}
        }
    }

    /// Stops it, and starts it again on the same addresses, with whatever it keeps over that.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    /// As [`Self::restart`], but wipes what it has kept in between.
    pub fn restart_wiped(&mut self) {
        self.stop();
        match fs::remove_file(self.directory.path().join("mosquitto.db")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("cannot wipe the database: {error}"),
            _ => {}
        }
        self.launch();
    }

    /// Starts it after [`Self::stop`], on the same addresses.
    pub fn launch(&mut self) {
        assert!(matches!(self.running, Running::Stopped), "it runs already");
        match self.kind {
            Kind::Embedded => self.launch_embedded(),
            Kind::Mosquitto => self.launch_mosquitto(),
        }
    }

    fn launch_embedded(&mut self) {
        let access = [Access::Open].into_iter().chain(self.options.tls.clone().map(Access::Certificates));
        let addresses = self.addresses.iter().copied();
        let listeners = addresses.zip(access).map(|(address, access)| Listener { address, access }).collect();
        let config = Config { listeners, limits: self.options.limits.clone(), ..Config::default() };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("broker")
            .enable_all()
            .build()
            .expect("a runtime");
        let (started, wait) = mpsc::channel();
        let policy = Arc::clone(&self.options.policy);
        runtime.spawn(async move {
            // Another test may be starting a program: between fork and exec that has the sockets of this process, those closed meanwhile too.
            let deadline = Instant::now() + PATIENCE;
            let broker = loop {
                match Broker::start(config.clone(), policy.clone()).await {
                    Err(error) if is_in_use(&error) && Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    broker => break broker,
                }
            };
            started.send(broker)
        });
        let broker = wait.recv_timeout(PATIENCE * 2).expect("the broker starts in time").expect("the broker starts");
        self.addresses = broker.addresses().to_vec();
        self.running = Running::Embedded { runtime, broker };
    }

    fn launch_mosquitto(&mut self) {
        assert!(Path::new(MOSQUITTO).exists(), "{MOSQUITTO} is missing: install the package `mosquitto`");
        let Some(child) = spawn_mosquitto(self.directory.path(), self.addresses[0], &self.options) else {
            let log = fs::read_to_string(self.directory.path().join("mosquitto.log")).unwrap_or_default();
            panic!("mosquitto does not start on {}; its log:\n{log}", self.addresses[0]);
        };
        self.running = Running::Mosquitto(child);
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.running, Running::Stopped) {
            // In the background: a runtime must not be waited for in another's task, where tests drop this.
            Running::Embedded { runtime, broker } => {
                drop(broker);
                runtime.shutdown_background();
            }
            Running::Mosquitto(mut child) => end(&mut child),
            Running::Stopped => {}
        }
    }
}

/// Whether an address was taken by another socket.
fn is_in_use(error: &BrokerError) -> bool {
    matches!(error, BrokerError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
}

/// Kills and reaps a process that this module started.
fn end(child: &mut Child) {
    // It may have ended already; then there is nothing to do.
    drop(child.kill());
    drop(child.wait());
}

/// Starts mosquitto and waits until it accepts connections. `None` if it ends, or does not accept any in time.
fn spawn_mosquitto(directory: &Path, address: SocketAddr, options: &Options) -> Option<Child> {
    let (ip, port) = (address.ip(), address.port());
    let (packet, in_flight) = (options.limits.max_packet, options.limits.max_in_flight);
    let queue = options.mosquitto_queue;
    // `max_packet_size`, not `message_size_limit`: the latter acknowledges what it drops. `user` is for tests run as
    // root: without it mosquitto would drop root, and lose access to its directory; for other users it has no effect.
    let config = format!(
        "listener {port} {ip}\nallow_anonymous true\nuser root\npersistence true\npersistence_location {dir}/\n\
         log_dest file {dir}/mosquitto.log\nlog_type error\nlog_type warning\nlog_type notice\n\
         max_queued_messages {queue}\nmax_queued_bytes 0\nmax_inflight_messages {in_flight}\nmax_packet_size {packet}\n\
         set_tcp_nodelay true\n",
        dir = directory.display()
    );
    let path = directory.join("mosquitto.conf");
    fs::write(&path, config).expect("mosquitto's configuration can be written");
    let mut child = Command::new(MOSQUITTO)
        .arg("-c")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto can be run");
    let up = patiently(|| {
        if child.try_wait().expect("mosquitto can be waited for").is_some() {
            return Some(false);
        }
        TcpStream::connect(address).is_ok().then_some(true)
    });
    if up == Some(true) {
        return Some(child);
    }
    end(&mut child);
    None
}

/// Repeats a question until there is an answer or the time is up.
fn patiently<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            None if Instant::now() < deadline => sleep(Duration::from_millis(5)),
            answer => return answer,
        }
    }
}
