//! Reaching bare hosts by `ssh`: a key of the site's own, and host keys known from the hosts' disks, so that nothing is trusted blindly.
//!
//! In: a slot's directory and a host's disk. Out: a configuration for `ssh`, beside the key and the list of known hosts. Nothing of
//! this machine's own `ssh` is read or written.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Hosts, PLANNER, machine::Machine, network::run, slot::Slot};
use crate::binaries;

fn at(slot: &Slot, name: &str) -> PathBuf {
    slot.scratch().join(name)
}

/// Makes the key and the configuration.
pub(super) fn make(slot: &Slot) -> io::Result<()> {
    let key = at(slot, "ssh_key");
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", &key.to_string_lossy()])?;
    let config = format!(
        "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n  UpdateHostKeys no\n",
        key.display(),
        at(slot, "known_hosts").display()
    );
    fs::write(at(slot, "ssh_config"), config)?;
    fs::write(at(slot, "known_hosts"), "")
}

/// Lets the holder of the key into a host as root, and gives the host keys of its own.
pub(super) fn admit(slot: &Slot, machine: &Machine) -> io::Result<()> {
    let key = fs::read_to_string(at(slot, "ssh_key.pub"))?;
    let root = machine.root();
    for name in fs::read_dir(root.join("etc/ssh"))? {
        let path = name?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ssh_host_")) {
            fs::remove_file(path)?;
        }
    }
    run("ssh-keygen", &["-q", "-A", "-f", &root.to_string_lossy()])?;
    machine.write("root/.ssh/authorized_keys", &key, 0o600)?;
    fs::set_permissions(root.join("root/.ssh"), fs::Permissions::from_mode(0o700))
}

impl Hosts {
    /// A configuration for `ssh` that reaches bare hosts.
    pub fn ssh_config(&self) -> PathBuf {
        at(&self.slot, "ssh_config")
    }

    /// Takes a host's key, as it lies on its disk, into the list of known hosts, in place of one that was there.
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

    /// Takes a host's key out of the list of known hosts.
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

    /// What `groundplan bootstrap` with these arguments says: whether all is well, and its result.
    ///
    /// # Panics
    /// If it has no result; with what it says instead.
    pub fn bootstrap(&self, args: &[&str]) -> (bool, Value) {
        let output = self.bootstrap_command(args).output().expect("groundplan runs");
        let said = serde_json::from_slice(&output.stdout);
        let said = said.unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.success(), said)
    }
}
