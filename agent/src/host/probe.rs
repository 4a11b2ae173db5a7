//! Readiness probes: repeated until all succeed or the time is up.
//!
//! In: a `Ready`, or `Probes` with a `Patience`. Out: success, or the last failure as text. TCP and HTTP are implemented here, over
//! plain connections only; anything else is a `command`.

use std::{fmt, io, time::Duration};

use groundplan_protocol::{
    kinds::Run,
    ready::{DEFAULT_INTERVAL, DEFAULT_TIMEOUT, Ready, TcpTarget},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    cancel::Cancel,
    process::{
        exec::{self, ExecError, Limit},
        spawn::{Environment, Program},
    },
};

/// Longest time that one connection may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Longest time that one command may take if nothing else limits it.
const LONGEST: Duration = Duration::from_secs(600);

/// Most of an HTTP answer that is read for its status line, in bytes.
const STATUS_LINE: usize = 1024;

/// Why something is not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("not ready after {whole}: {last}")]
    NotReady { whole: groundplan_protocol::duration::Span, last: String },
    #[error("{0}")]
    Unsupported(String),
    #[error("readiness is not waited for, because the agent is stopping or the job was cancelled")]
    Cancelled,
}

/// What is probed; all probes must succeed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probes<'a> {
    pub(crate) tcp: Option<&'a TcpTarget>,
    pub(crate) http: Option<&'a str>,
    /// Status codes of `http` that count as success; all below 400 if there are none.
    pub(crate) status: &'a [u16],
    pub(crate) command: Option<&'a Run>,
    /// Whether each must fail instead.
    pub(crate) down: bool,
}

/// How long and how often probes are tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) until: Option<Instant>,
    pub(crate) interval: Duration,
    /// How often to try at most; no limit if absent.
    pub(crate) attempts: Option<u32>,
}

/// The result of all attempts.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) attempts: u32,
    /// Why the last one failed, if it did.
    pub(crate) last: Option<String>,
}

/// One attempt that failed.
enum Attempt {
    /// It may succeed later.
    NotYet(String),
    /// It can never succeed.
    Never(String),
}

/// The result of one probe.
enum Probe {
    Good,
    Bad(String),
    /// It could not be run, so nothing is known about what it probes.
    NotRun(String),
}

impl Probe {
    /// The result as a part of an attempt; `what` names the probe for people.
    fn wanted(self, down: bool, what: impl fmt::Display) -> Result<(), Attempt> {
        match (self, down) {
            (Self::Good, false) | (Self::Bad(_), true) => Ok(()),
            (Self::Good, true) => Err(Attempt::NotYet(format!("{what} is still there"))),
            // A probe that could not be run proves nothing, not even that what it probes is down.
            (Self::Bad(why) | Self::NotRun(why), _) => Err(Attempt::NotYet(why)),
        }
    }
}

/// Waits until all probes of `ready` succeed.
pub(crate) async fn wait(
    environment: &Environment,
    ready: &Ready,
    grace: Duration,
    cancel: &Cancel,
) -> Result<(), ProbeError> {
    if ready.is_empty() {
        return Ok(());
    }
    let whole = ready.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let (tcp, http, command) = (ready.tcp.as_ref(), ready.http.as_deref(), ready.command.as_ref());
    let probes = Probes { tcp, http, status: &[], command, down: false };
    let patience = Patience {
        until: Some(Instant::now() + Duration::from(whole)),
        interval: ready.interval.unwrap_or(DEFAULT_INTERVAL).into(),
        attempts: None,
    };
    match persist(environment, probes, patience, grace, cancel).await?.last {
        None => Ok(()),
        Some(last) => Err(ProbeError::NotReady { whole, last }),
    }
}

/// Repeats `probes` until they succeed, or until time or attempts are used up.
pub(crate) async fn persist(
    environment: &Environment,
    probes: Probes<'_>,
    patience: Patience,
    grace: Duration,
    cancel: &Cancel,
) -> Result<Tried, ProbeError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let result = attempt(environment, probes, patience.until, grace, cancel).await;
        if cancel.is_cancelled() {
            return Err(ProbeError::Cancelled);
        }
        let last = match result {
            Ok(()) => return Ok(Tried { attempts, last: None }),
            Err(Attempt::Never(why)) => return Err(ProbeError::Unsupported(why)),
            Err(Attempt::NotYet(why)) => why,
        };
        // An attempt that would begin after the end is not waited for.
        let late = patience.until.is_some_and(|until| Instant::now() + patience.interval >= until);
        if late || patience.attempts.is_some_and(|most| attempts >= most) {
            return Ok(Tried { attempts, last: Some(last) });
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(ProbeError::Cancelled),
            () = sleep(patience.interval) => {}
        }
    }
}

async fn attempt(
    environment: &Environment,
    probes: Probes<'_>,
    until: Option<Instant>,
    grace: Duration,
    cancel: &Cancel,
) -> Result<(), Attempt> {
    let left = || {
        let left = until.map_or(LONGEST, |until| until.saturating_duration_since(Instant::now()));
        // The last attempt gets a moment even if the one before used up the time: it could never succeed otherwise.
        left.max(Duration::from_millis(100))
    };
    if let Some(target) = probes.tcp {
        let target = Target::tcp(target).map_err(Attempt::Never)?;
        let probe = match within(left(), cancel, target.connect()).await {
            Ok(_) => Probe::Good,
            Err(why) => Probe::Bad(format!("tcp {target}: {why}")),
        };
        probe.wanted(probes.down, format_args!("tcp {target}"))?;
    }
    if let Some(url) = probes.http {
        let (target, path) = parse_url(url).map_err(Attempt::Never)?;
        let good = |status: u16| if probes.status.is_empty() { status < 400 } else { probes.status.contains(&status) };
        let probe = match within(left(), cancel, get(&target, &path)).await {
            Ok(status) if good(status) => Probe::Good,
            Ok(status) => Probe::Bad(format!("{url}: the status is {status}")),
            Err(why) => Probe::Bad(format!("{url}: {why}")),
        };
        probe.wanted(probes.down, url)?;
    }
    if let Some(run) = probes.command {
        let limit = Limit::of(left());
        let ran = exec::run(environment, &Program::plain(run), limit, grace, cancel).await;
        let probe = match ran.success(run).0 {
            Ok(()) => Probe::Good,
            Err(e @ ExecError::Status { .. }) => Probe::Bad(crate::log::chain(&e)),
            Err(e) => Probe::NotRun(crate::log::chain(&e)),
        };
        probe.wanted(probes.down, format_args!("success of {}", exec::named(run)))?;
    }
    Ok(())
}

/// The result of `work`, which may take at most `left`.
async fn within<T>(left: Duration, cancel: &Cancel, work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    let limit = left.min(ANSWER);
    tokio::select! {
        () = cancel.cancelled() => Err("cancelled".to_owned()),
        result = timeout(limit, work) => match result {
            Ok(result) => result.map_err(|e| e.to_string()),
            Err(_) => Err(format!("no answer within {:.1}s", limit.as_secs_f32())),
        },
    }
}

/// A host and a port to connect to.
struct Target {
    host: String,
    port: u16,
}

impl Target {
    fn tcp(target: &TcpTarget) -> Result<Self, String> {
        let address = match target {
            TcpTarget::Port(port) => return Ok(Self { host: "127.0.0.1".to_owned(), port: *port }),
            TcpTarget::Address(address) => address,
        };
        let (host, port) = address.rsplit_once(':').unwrap_or(("127.0.0.1", address));
        let port = port.parse().map_err(|_| format!("`{address}` is not `host:port`"))?;
        Ok(Self { host: bare(host).to_owned(), port })
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        // Resolved here: the static agent needs no resolver for this name.
        if self.host == "localhost" {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)).await {
                return Ok(stream);
            }
            return TcpStream::connect(("::1", self.port)).await;
        }
        TcpStream::connect((self.host.as_str(), self.port)).await
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Target and path of an `http://` URL (RFC 3986).
fn parse_url(url: &str) -> Result<(Target, String), String> {
    let unusable = |why: &str| format!("cannot probe `{url}`: {why}");
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(unusable("this agent supports only http://; use `command` instead, with curl, for example"));
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| unusable("its port is not a number from 1 to 65535"))?)
        }
        _ => (authority, 80),
    };
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if host.is_empty() || authority.contains('@') || !plain(authority) || !plain(path) {
        return Err(unusable("it needs a host, no user, and no blanks"));
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((Target { host: bare(host).to_owned(), port }, path))
}

/// The status of the answer to a GET (RFC 9112).
async fn get(target: &Target, path: &str) -> io::Result<u16> {
    let mut stream = target.connect().await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: groundplan-agent\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut piece = [0; 256];
    // Only the status line matters; the rest of the answer may be long, or never end.
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE {
        match stream.read(&mut piece).await? {
            0 => break,
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
    let line = answer.split(|b| *b == b'\n').next().unwrap_or_default();
    let status = std::str::from_utf8(line).ok().and_then(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|word| word.starts_with("HTTP/"))?;
        words.next()?.parse().ok()
    });
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}
