//! One run of `ssh`: a script and files go in on standard input, and the script's answer comes out as lines.
//!
//! In: an address, settings, a script and files. Out: the lines that begin with the mark, or an error, which is classified by the
//! messages of `ssh`. Never prompts, never weakens the checks of host keys, and is killed when its future is dropped.

use std::{process::Stdio, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
};

/// The prefix of every line of an answer, so that greetings of the host's shell are ignored.
const MARK: &str = "groundplan: ";
/// How many bytes of standard error are kept.
const STDERR_MAX: usize = 16 * 1024;

/// How to reach and log in to hosts.
#[derive(Debug, Clone, Default)]
pub struct Ssh {
    /// The login user; that of the ssh configuration if not given.
    pub user: Option<String>,
    /// The port of sshd; that of the ssh configuration if not given.
    pub port: Option<u16>,
    /// Further `-o` options, `KEY=VALUE`. They override those below, except `BatchMode`.
    pub options: Vec<String>,
    /// A configuration file in place of the user's own.
    pub config: Option<std::path::PathBuf>,
    /// Whether the script runs under `sudo -n`.
    pub sudo: bool,
    /// The time limit for connecting, in whole seconds, at least 1.
    pub connect: Duration,
}

/// Why a script did not run to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    /// `ssh` did not start.
    #[error("cannot run `ssh`: {0}")]
    NoSsh(String),
    /// The host's key differs from the one in known_hosts.
    #[error("the host's key differs from the known one{}", at.as_ref().map(|at| format!(" in {at}")).unwrap_or_default())]
    HostKeyChanged {
        /// File and line of the known key.
        at: Option<String>,
    },
    /// known_hosts has no key of the host.
    #[error("the host's key is unknown")]
    HostKeyUnknown,
    /// No login without a password: the methods that the host accepts.
    #[error("cannot log in to the host without a password ({0})")]
    NoLogin(String),
    /// No connection.
    #[error("cannot reach the host: {0}")]
    Unreachable(String),
    /// An option that `ssh` does not accept.
    #[error("`ssh` does not accept its settings: {0}")]
    Settings(String),
    /// `sudo` asks for a password, or does not permit it.
    #[error("`sudo` does not permit becoming root: {0}")]
    NoSudo(String),
    /// The connection ended after it was established, or the remote shell did.
    #[error("the connection was lost{}", detail(.0))]
    Broken(String),
}

fn detail(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl SshError {
    /// The next step. `target` is the destination argument of `ssh`, `name` the host's name in known_hosts.
    pub fn hint(&self, target: &str, name: &str) -> String {
        match self {
            Self::NoSsh(_) => "install the OpenSSH client on this machine".to_owned(),
            Self::HostKeyChanged { .. } => format!(
                "compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` at its console; if it was reinstalled: ssh-keygen -R '{name}'; \
                 if it was not, the connection may be intercepted"
            ),
            Self::HostKeyUnknown => format!(
                "run `ssh {target}` once, compare the fingerprint with the host's own (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), and \
                 accept it; or add its key to known_hosts"
            ),
            Self::NoLogin(_) => format!(
                "passwords are never entered here: install a key with `ssh-copy-id {target}`; load a key with a passphrase with `ssh-add` first"
            ),
            Self::Unreachable(_) => {
                "is the host running, is its address correct (`address` in the inventory), and does sshd listen there (--ssh-port)?".to_owned()
            }
            Self::Settings(_) => "check --ssh-option, --ssh-config and ~/.ssh/config".to_owned(),
            Self::NoSudo(_) => "allow that user all commands by sudo without a password (NOPASSWD), or log in as root".to_owned(),
            Self::Broken(_) => "run the same command again: it continues where this run stopped".to_owned(),
        }
    }
}

/// The content of a file that follows the script.
#[derive(Debug, Clone)]
pub(super) struct Payload(pub(super) Arc<[u8]>);

/// Kills the process group of `ssh`, which includes a proxy command, if it is dropped before `ssh` has ended.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // A child that was waited for has no id any more; its number may belong to another process by now.
        if let Some(pid) = self.0.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Ssh {
    /// The destination argument of `ssh`.
    pub fn target(&self, address: &str) -> String {
        match &self.user {
            Some(user) => format!("{user}@{address}"),
            None => address.to_owned(),
        }
    }

    /// The host's name in known_hosts.
    pub fn known_as(&self, address: &str) -> String {
        match self.port {
            None | Some(22) => address.to_owned(),
            Some(port) => format!("[{address}]:{port}"),
        }
    }

    fn command(&self, address: &str, length: usize) -> Command {
        let mut ssh = Command::new("ssh");
        if let Some(config) = &self.config {
            ssh.arg("-F").arg(config);
        }
        // ssh uses the first value of an option: BatchMode cannot be overridden, the options after the user's can. Nothing here is about
        // host keys: their checks are the user's.
        ssh.args(["-T", "-x", "-a", "-o", "BatchMode=yes"]);
        for option in &self.options {
            ssh.args(["-o", option]);
        }
        let connect = format!("ConnectTimeout={}", self.connect.as_secs().max(1));
        for option in [
            &*connect,
            "ConnectionAttempts=1",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=6",
            "ControlMaster=no",
            "ControlPath=none",
            "ClearAllForwardings=yes",
            "RemoteCommand=none",
        ] {
            ssh.args(["-o", option]);
        }
        if let Some(port) = self.port {
            ssh.args(["-p", &port.to_string()]);
        }
        // Any login shell passes one argument in single quotes on to sh. `dd` reads exactly the script, so that the files behind it stay on
        // standard input for the script; a shell that read its script from there would buffer part of them.
        let sudo = if self.sudo { "sudo -n " } else { "" };
        let loader = format!("{sudo}sh -c 'eval \"$(dd bs={length} count=1 iflag=fullblock 2> /dev/null)\"'");
        ssh.arg("--").arg(self.target(address)).arg(loader);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Its own process group: Ctrl-C on the terminal must not reach it before this program has decided what to do.
        ssh.env("LC_ALL", "C").process_group(0).kill_on_drop(true);
        ssh
    }

    /// Runs a script on a host, with files on its standard input. Passes the lines of its answer to `on_line` as they arrive.
    ///
    /// # Errors
    /// See [`SshError`]. A script that has answered and exits with a failure is no error here: its answer has the cause.
    pub(super) async fn run(
        &self,
        address: &str,
        script: &str,
        files: &[Payload],
        mut on_line: impl FnMut(&str),
    ) -> Result<(), SshError> {
        let mut child = self.command(address, script.len()).spawn().map_err(|e| SshError::NoSsh(e.to_string()))?;
        let (Some(mut stdin), Some(stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(SshError::NoSsh("it has no pipes".to_owned()));
        };
        let mut guard = Guard(child);
        let send = async move {
            // A script that stops reading has failed, and reports that in its answer.
            for piece in std::iter::once(script.as_bytes()).chain(files.iter().map(|file| &*file.0)) {
                if stdin.write_all(piece).await.is_err() {
                    break;
                }
            }
            let _ = stdin.shutdown().await;
        };
        let mut answered = false;
        let receive = async {
            let mut lines = BufReader::new(stdout);
            let mut line = Vec::new();
            while matches!((&mut lines).take(1 << 20).read_until(b'\n', &mut line).await, Ok(1..)) {
                if let Some(text) = String::from_utf8_lossy(&line).trim_end().strip_prefix(MARK) {
                    answered = true;
                    on_line(text);
                }
                line.clear();
            }
        };
        let mut errors = Vec::new();
        let collect = async {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
                let room = STDERR_MAX.saturating_sub(errors.len());
                errors.extend_from_slice(&buffer[..n.min(room)]);
            }
        };
        // Concurrently: a full pipe of one stream would block the process, and with it the other two.
        let ((), (), ()) = tokio::join!(send, receive, collect);
        let status = guard.0.wait().await.map_err(|e| SshError::Broken(e.to_string()))?;
        let errors = String::from_utf8_lossy(&errors).into_owned();
        match status.code() {
            Some(0) => Ok(()),
            Some(255) | None => Err(classify(&errors, answered)),
            Some(_) if answered => Ok(()),
            Some(_) if self.sudo && errors.contains("sudo") => Err(SshError::NoSudo(last(&errors))),
            Some(_) => Err(SshError::Broken(last(&errors))),
        }
    }
}

/// The last line that is not empty, at most 300 characters of it.
fn last(text: &str) -> String {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    line.unwrap_or_default().chars().take(300).collect()
}

/// The error of an `ssh` that has exited with 255, by its messages. `begun`: whether the script had answered by then.
fn classify(text: &str, begun: bool) -> SshError {
    let has = |message: &str| text.contains(message);
    let line =
        |message: &str| text.lines().map(str::trim).find(|line| line.contains(message)).unwrap_or_default().to_owned();
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") || has("HOST IDENTIFICATION HAS CHANGED") {
        let at = text
            .lines()
            .find_map(|line| Some(line.split_once("Offending ")?.1.split_once("key in ")?.1.trim().to_owned()));
        return SshError::HostKeyChanged { at };
    }
    // These messages appear only after the connection was established.
    let lost = ["client_loop", "not responding"].iter().any(|message| has(message));
    if begun || lost || (has("Connection to ") && has("closed by remote host")) {
        return SshError::Broken(last(text));
    }
    if has("Host key verification failed") || has("key is known for") {
        return SshError::HostKeyUnknown;
    }
    if has("Permission denied (") {
        let line = line("Permission denied (");
        let methods =
            line.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(methods, _)| methods);
        return SshError::NoLogin(format!("it accepts {methods}"));
    }
    if has("Too many authentication failures") {
        return SshError::NoLogin("too many keys were tried".to_owned());
    }
    for message in [
        "Bad configuration option",
        "command-line line",
        "Bad owner or permissions",
        "Can't open user config file",
        "Missing argument",
    ] {
        if has(message) {
            return SshError::Settings(line(message));
        }
    }
    const AWAY: [&str; 10] = [
        "Connection refused",
        "timed out",
        "timeout",
        "No route to host",
        "Network is unreachable",
        "Could not resolve hostname",
        "Connection closed",
        "Connection reset",
        "kex_exchange_identification",
        "UNKNOWN port",
    ];
    match AWAY.iter().find(|message| has(message)) {
        Some(message) => SshError::Unreachable(line(message)),
        None => SshError::Broken(last(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As OpenSSH 9 prints them.
    #[test]
    fn messages_of_ssh_are_classified() {
        let changed = "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@\nIT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\n\
                       Offending ED25519 key in /root/.ssh/known_hosts:7\n  remove with:\nHost key verification failed.\n";
        assert_eq!(
            classify(changed, false),
            SshError::HostKeyChanged { at: Some("/root/.ssh/known_hosts:7".to_owned()) }
        );
        let unknown = "No ED25519 host key is known for 10.0.0.1 and you have requested strict checking.\nHost key verification failed.\n";
        assert_eq!(classify(unknown, false), SshError::HostKeyUnknown);
        assert_eq!(classify("Host key verification failed.\r\n", false), SshError::HostKeyUnknown);
        let denied = "op@10.0.0.1: Permission denied (publickey,password).\n";
        assert_eq!(classify(denied, false), SshError::NoLogin("it accepts publickey,password".to_owned()));
        for away in [
            "ssh: connect to host 10.0.0.1 port 22: Connection refused",
            "ssh: connect to host 10.0.0.1 port 22: Connection timed out",
            "ssh: connect to host 10.0.0.1 port 22: No route to host",
            "ssh: Could not resolve hostname nosuch: Name or service not known",
            "kex_exchange_identification: Connection closed by remote host",
            "Connection timed out during banner exchange",
        ] {
            assert_eq!(classify(away, false), SshError::Unreachable(away.to_owned()));
        }
        assert_eq!(
            classify("command-line: line 0: Bad configuration option: bogus", false),
            SshError::Settings("command-line: line 0: Bad configuration option: bogus".to_owned())
        );
        assert_eq!(
            classify("client_loop: send disconnect: Broken pipe\n", true),
            SshError::Broken("client_loop: send disconnect: Broken pipe".to_owned())
        );
        for lost in [
            "client_loop: ssh_packet_write_poll: Connection to UNKNOWN port 65535: Broken pipe",
            "Timeout, server 10.0.0.1 not responding.",
            "Connection to 10.0.0.1 closed by remote host.",
        ] {
            assert_eq!(classify(lost, false), SshError::Broken(lost.to_owned()));
        }
        assert_eq!(classify("", false), SshError::Broken(String::new()));
    }

    #[test]
    fn hints_name_the_host() {
        for error in [SshError::HostKeyUnknown, SshError::NoLogin(String::new()), SshError::HostKeyChanged { at: None }]
        {
            assert!(
                error.hint("root@h1", "h1").contains("root@h1") || error.hint("root@h1", "h1").contains("-R 'h1'"),
                "{error}"
            );
        }
    }

    #[test]
    fn no_option_is_about_host_keys_and_batch_mode_comes_first() {
        let ssh = Ssh { user: Some("op".to_owned()), options: vec!["User=x".to_owned()], sudo: true, ..Ssh::default() };
        let command = ssh.command("h1", 10);
        let args: Vec<_> = command.as_std().get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert!(!args.iter().any(|arg| arg.contains("HostKey") || arg.contains("KnownHosts")), "{args:?}");
        let (batch, given) = (args.iter().position(|a| a == "BatchMode=yes"), args.iter().position(|a| a == "User=x"));
        assert!(batch < given, "{args:?}");
        assert_eq!(args[args.len() - 2], "op@h1");
        assert!(args[args.len() - 1].starts_with("sudo -n sh -c '"));
    }
}
