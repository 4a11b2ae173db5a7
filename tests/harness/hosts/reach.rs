//! What a test does over `ssh`: host keys that are known or forgotten, and `groundplan bootstrap`.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Hosts, PLANNER, ssh::at};
use crate::binaries;

impl Hosts {
    /// A configuration for `ssh` that reaches bare hosts.
    pub fn ssh_config(&self) -> PathBuf {
        at(&self.slot, "ssh_config")
    }

    /// Adds a host's key, as it is on its disk, to the list of known hosts, in place of an earlier one.
    ///
    /// # Panics
    /// If it has none.
    pub fn know(&self, host: &str) {
        self.forget(host);
        let machine = self.machine(host);
        let key = fs::read_to_string(machine.root().join("etc/ssh/ssh_host_ed25519_key.pub")).expect("a host key");
        let key: Vec<&str> = key.split_whitespace().take(2).collect();
        let list = at(&self.slot, "known_hosts");
        let known = fs::read_to_string(&list).expect("the known hosts");
        fs::write(list, format!("{known}{} {}\n", machine.address, key.join(" "))).expect("the known hosts");
    }

    /// Removes a host's key from the list of known hosts.
    pub fn forget(&self, host: &str) {
        let address = format!("{} ", self.machine(host).address);
        let list = at(&self.slot, "known_hosts");
        let known = fs::read_to_string(&list).expect("the known hosts");
        let others: String = known.lines().filter(|l| !l.starts_with(&address)).map(|l| format!("{l}\n")).collect();
        fs::write(list, others).expect("the known hosts");
    }

    /// `groundplan bootstrap` with these arguments, not yet started.
    pub fn bootstrap_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binaries::groundplan());
        command.arg("bootstrap").args(args).args(["--format", "json", "--ssh-config"]).arg(self.ssh_config());
        command.arg("--state").arg(self.fleet.planner_state(PLANNER));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `groundplan bootstrap` with these arguments: whether it succeeded, and its result.
    ///
    /// # Panics
    /// If it has no result; with its messages.
    pub fn bootstrap(&self, args: &[&str]) -> (bool, Value) {
        let output = self.bootstrap_command(args).output().expect("groundplan runs");
        let result = serde_json::from_slice(&output.stdout);
        let result = result.unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.success(), result)
    }
}
