//! One `ssh` at a time to one host: a script goes in on its standard input, files behind it, and its answers come out as lines.
//!
//! In: where, how, a script and files. Out: the lines that began with our mark, or why there are none, told apart by what `ssh` says.
//! Never asks anybody anything, never weakens how host keys are checked, and ends with whoever waits for it.

use std::{process::Stdio, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
};

/// What begins a line of an answer: a host's own greetings do not.
const MARK: &str = "groundplan: ";
/// Most of what `ssh` says that is kept.
const MOST: usize = 16 * 1024;

/// How hosts are reached.
#[derive(Debug, Clone, Default)]
pub struct Ssh {
    /// The user there.
    pub user: Option<String>,
    /// The port there.
    pub port: Option<u16>,
    /// `-o` options, as they are given.
    pub options: Vec<String>,
    /// A configuration file in place of the user's own.
    pub config: Option<std::path::PathBuf>,
    /// Whether to become root there by `sudo`.
    pub sudo: bool,
    /// How long a connection may take.
    pub connect: Duration,
}

/// Why a host cannot be worked on by `ssh`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    /// No `ssh` here.
    #[error("`ssh` cannot be run: {0}")]
    NoSsh(String),
    /// The host shows another key than the known one.
    #[error("the host's key is not the one that is known{}", at.as_ref().map(|at| format!(" in {at}")).unwrap_or_default())]
    HostKeyChanged {
        /// Where the known one stands.
        at: Option<String>,
    },
    /// Nothing is known about the host's key.
    #[error("the host's key is not known here")]
    HostKeyUnknown,
    /// It wants a password, or what this user cannot show.
    #[error("it does not let us in without a password ({0})")]
    NoLogin(String),
    /// Nobody answers.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Our options.
    #[error("`ssh` does not take its settings: {0}")]
    Settings(String),
    /// `sudo` wants a password, or does not let us.
    #[error("`sudo` does not make us root: {0}")]
    NoSudo(String),
    /// The connection went away, or the shell there did.
    #[error("the connection broke off{}", said(.0))]
    Broken(String),
}

fn said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

impl SshError {
    /// What to do about it; `target` is what `ssh` is told, `name` what known_hosts calls the host.
    pub fn hint(&self, target: &str, name: &str) -> String {
        match self {
            Self::NoSsh(_) => "install OpenSSH's client on this machine".to_owned(),
            Self::HostKeyChanged { .. } => format!(
                "compare: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` at its console; if it was set up anew: ssh-keygen -R '{name}'; \
                 if it was not, somebody is in between"
            ),
            Self::HostKeyUnknown => format!(
                "run `ssh {target}` once, compare the fingerprint with the host's own (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), and \
                 accept it; or put its key into known_hosts"
            ),
            Self::NoLogin(_) => format!(
                "nothing is typed for you here: give it a key with `ssh-copy-id {target}`; for a key with a passphrase, load it with `ssh-add` first"
            ),
            Self::Unreachable(_) => {
                "is the host on, is its address right (`address` in the inventory), and does sshd listen there (--ssh-port)?".to_owned()
            }
            Self::Settings(_) => "look at --ssh-option, --ssh-config and ~/.ssh/config".to_owned(),
            Self::NoSudo(_) => "let that user run all by sudo without a password (NOPASSWD), or log in as root".to_owned(),
            Self::Broken(_) => "run the same again: what is half-way is found and finished, or was never begun".to_owned(),
        }
    }
}

/// A file that goes along.
#[derive(Debug, Clone)]
pub(super) struct Payload(pub(super) Arc<[u8]>);

/// Kills `ssh` and what it started, such as a proxy, if it is dropped before its end.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // No id: it has been waited for, and the number may be another's.
        if let Some(pid) = self.0.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Ssh {
    /// What `ssh` is told as the host.
    pub fn target(&self, address: &str) -> String {
        match &self.user {
            Some(user) => format!("{user}@{address}"),
            None => address.to_owned(),
        }
    }

    /// What known_hosts calls the host.
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
        // What is said first holds. How host keys are checked is the user's to say, and not said here.
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
        // The shell there, whichever it is, sees one word in single quotes; `dd` takes the script and not a byte of the files behind it.
        let sudo = if self.sudo { "sudo -n " } else { "" };
        let loader = format!("{sudo}sh -c 'eval \"$(dd bs={length} count=1 iflag=fullblock 2> /dev/null)\"'");
        ssh.arg("--").arg(self.target(address)).arg(loader);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The terminal's Ctrl-C is for us.
        ssh.env("LC_ALL", "C").process_group(0).kill_on_drop(true);
        ssh
    }

    /// Runs a script on a host, with files behind it. Lines of its answer go to `hear` as they come; whether `ssh` got to the end.
    ///
    /// # Errors
    /// See [`SshError`]. A script that ends badly and has answered is no error here: its answer says why.
    pub(super) async fn run(
        &self,
        address: &str,
        script: &str,
        files: &[Payload],
        mut hear: impl FnMut(&str),
    ) -> Result<(), SshError> {
        let mut child = self.command(address, script.len()).spawn().map_err(|e| SshError::NoSsh(e.to_string()))?;
        let (Some(mut stdin), Some(stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(SshError::NoSsh("it has no pipes".to_owned()));
        };
        let mut guard = Guard(child);
        let send = async move {
            // Who does not read any more says why on the other side.
            for piece in std::iter::once(script.as_bytes()).chain(files.iter().map(|file| &*file.0)) {
                if stdin.write_all(piece).await.is_err() {
                    break;
                }
            }
            let _ = stdin.shutdown().await;
        };
        let mut answered = false;
        let listen = async {
            let mut lines = BufReader::new(stdout);
            let mut line = Vec::new();
            while matches!((&mut lines).take(1 << 20).read_until(b'\n', &mut line).await, Ok(1..)) {
                if let Some(words) = String::from_utf8_lossy(&line).trim_end().strip_prefix(MARK) {
                    answered = true;
                    hear(words);
                }
                line.clear();
            }
        };
        let mut complaints = Vec::new();
        let complain = async {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
                let room = MOST.saturating_sub(complaints.len());
                complaints.extend_from_slice(&buffer[..n.min(room)]);
            }
        };
        // All at once: each may wait for one of the others.
        let ((), (), ()) = tokio::join!(send, listen, complain);
        let status = guard.0.wait().await.map_err(|e| SshError::Broken(e.to_string()))?;
        let complaints = String::from_utf8_lossy(&complaints).into_owned();
        match status.code() {
            Some(0) => Ok(()),
            Some(255) | None => Err(told(&complaints, answered)),
            Some(_) if answered => Ok(()),
            Some(_) if self.sudo && complaints.contains("sudo") => Err(SshError::NoSudo(last(&complaints))),
            Some(_) => Err(SshError::Broken(last(&complaints))),
        }
    }
}

/// The last line that says something.
fn last(text: &str) -> String {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    line.unwrap_or_default().chars().take(300).collect()
}

/// What `ssh`, which has ended with 255, means. `begun`: whether the script had answered by then.
fn told(text: &str, begun: bool) -> SshError {
    let has = |words: &str| text.contains(words);
    let line =
        |words: &str| text.lines().map(str::trim).find(|line| line.contains(words)).unwrap_or_default().to_owned();
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") || has("HOST IDENTIFICATION HAS CHANGED") {
        let at = text
            .lines()
            .find_map(|line| Some(line.split_once("Offending ")?.1.split_once("key in ")?.1.trim().to_owned()));
        return SshError::HostKeyChanged { at };
    }
    // These ends come only to what had begun.
    let lost = ["client_loop", "not responding"].iter().any(|words| has(words));
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
        return SshError::NoLogin(format!("it takes {methods}"));
    }
    if has("Too many authentication failures") {
        return SshError::NoLogin("too many keys were tried".to_owned());
    }
    for words in [
        "Bad configuration option",
        "command-line line",
        "Bad owner or permissions",
        "Can't open user config file",
        "Missing argument",
    ] {
        if has(words) {
            return SshError::Settings(line(words));
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
    match AWAY.iter().find(|words| has(words)) {
        Some(words) => SshError::Unreachable(line(words)),
        None => SshError::Broken(last(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As OpenSSH 9 prints them.
    #[test]
    fn what_ssh_says_is_told_apart() {
        let changed = "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@\nIT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\n\
                       Offending ED25519 key in /root/.ssh/known_hosts:7\n  remove with:\nHost key verification failed.\n";
        assert_eq!(told(changed, false), SshError::HostKeyChanged { at: Some("/root/.ssh/known_hosts:7".to_owned()) });
        let unknown = "No ED25519 host key is known for 10.0.0.1 and you have requested strict checking.\nHost key verification failed.\n";
        assert_eq!(told(unknown, false), SshError::HostKeyUnknown);
        assert_eq!(told("Host key verification failed.\r\n", false), SshError::HostKeyUnknown);
        let denied = "op@10.0.0.1: Permission denied (publickey,password).\n";
        assert_eq!(told(denied, false), SshError::NoLogin("it takes publickey,password".to_owned()));
        for away in [
            "ssh: connect to host 10.0.0.1 port 22: Connection refused",
            "ssh: connect to host 10.0.0.1 port 22: Connection timed out",
            "ssh: connect to host 10.0.0.1 port 22: No route to host",
            "ssh: Could not resolve hostname nosuch: Name or service not known",
            "kex_exchange_identification: Connection closed by remote host",
            "Connection timed out during banner exchange",
        ] {
            assert_eq!(told(away, false), SshError::Unreachable(away.to_owned()));
        }
        assert_eq!(
            told("command-line: line 0: Bad configuration option: bogus", false),
            SshError::Settings("command-line: line 0: Bad configuration option: bogus".to_owned())
        );
        assert_eq!(
            told("client_loop: send disconnect: Broken pipe\n", true),
            SshError::Broken("client_loop: send disconnect: Broken pipe".to_owned())
        );
        for lost in [
            "client_loop: ssh_packet_write_poll: Connection to UNKNOWN port 65535: Broken pipe",
            "Timeout, server 10.0.0.1 not responding.",
            "Connection to 10.0.0.1 closed by remote host.",
        ] {
            assert_eq!(told(lost, false), SshError::Broken(lost.to_owned()));
        }
        assert_eq!(told("", false), SshError::Broken(String::new()));
    }

    #[test]
    fn every_word_says_what_to_do() {
        for error in [SshError::HostKeyUnknown, SshError::NoLogin(String::new()), SshError::HostKeyChanged { at: None }]
        {
            assert!(
                error.hint("root@h1", "h1").contains("root@h1") || error.hint("root@h1", "h1").contains("-R 'h1'"),
                "{error}"
            );
        }
    }

    #[test]
    fn host_keys_are_checked_as_the_user_has_it() {
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
