//! Reaching bare hosts by `ssh`: a key of the site's own, and host keys read from the hosts' disks, so that no key is accepted unseen.
//!
//! In: a slot's directory and a host's disk. Out: a configuration for `ssh`, beside the key and the list of known hosts. Nothing of
//! this machine's own `ssh` is read or written.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf};

use super::{machine::Machine, network::run, slot::Slot};

/// The path of one of these files.
pub(super) fn at(slot: &Slot, name: &str) -> PathBuf {
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

/// Lets the holder of the key log in to a host as root, and gives the host its own keys.
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
