//! The network of a site of hosts: a bridge on this machine, each host's link on it, and the way out for hosts with internet.
//!
//! In: a slot's number, from which names and addresses derive. Out: links and packet filter rules, made and removed by `ip` and
//! `iptables`. Uses 198.18.0.0/15, which is reserved for tests between networks (RFC 2544). Forwarding is switched on for the first
//! site that needs it and restored after the last.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Output},
};

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Held while forwarding is switched.
const FORWARD_LOCK: &str = "/run/groundplan-tests/forward.lock";
/// A file for each slot that needs forwarding.
const FORWARD_USERS: &str = "/run/groundplan-tests/forward.users";
/// The setting before the first of them.
const FORWARD_BEFORE: &str = "/run/groundplan-tests/forward.before";

/// The bridge of a slot.
pub(super) fn bridge(number: u8) -> String {
    format!("gpt{number}")
}

/// The first three numbers of a slot's addresses, with the dot after them.
pub(super) fn prefix(number: u8) -> String {
    format!("198.18.{number}.")
}

/// Whether this machine has an address or a route with this prefix.
pub(super) fn in_use(prefix: &str) -> io::Result<bool> {
    let listed = |args: &[&str]| run("ip", args).map(|text| text.contains(prefix));
    Ok(listed(&["-4", "address", "show"])? || listed(&["-4", "route", "show"])?)
}

/// Makes the bridge with this machine's address on it.
pub(super) fn make(number: u8, own: Ipv4Addr) -> io::Result<()> {
    let bridge = bridge(number);
    run("ip", &["link", "add", &bridge, "type", "bridge"])?;
    run("ip", &["address", "add", &format!("{own}/24"), "dev", &bridge])?;
    run("ip", &["link", "set", &bridge, "up"])?;
    Ok(())
}

/// Lets the hosts of a slot reach what this machine reaches.
pub(super) fn open(number: u8) -> io::Result<()> {
    for rule in rules(number) {
        let mut args = vec!["-w", "-t", rule.0, "-I"];
        args.extend(rule.1.iter().map(String::as_str));
        run("iptables", &args)?;
    }
    let _lock = forward_lock()?;
    fs::create_dir_all(FORWARD_USERS)?;
    if !Path::new(FORWARD_BEFORE).exists() {
        fs::write(FORWARD_BEFORE, fs::read(FORWARD)?)?;
    }
    fs::write(Path::new(FORWARD_USERS).join(number.to_string()), "")?;
    fs::write(FORWARD, "1")
}

/// Takes the link of a machine down, or up again.
pub(super) fn set_link(machine: &str, up: bool) -> io::Result<()> {
    run("ip", &["link", "set", &link(machine), if up { "up" } else { "down" }]).map(drop)
}

/// Removes the link of a machine; an error if there is none.
pub(super) fn remove_link(machine: &str) -> io::Result<()> {
    run("ip", &["link", "delete", &link(machine)]).map(drop)
}

/// As systemd-nspawn names it.
fn link(machine: &str) -> String {
    format!("vb-{machine}")
}

/// Removes a slot's part of the network, if it is there.
pub(super) fn remove(number: u8) {
    // Deleting what is not there fails without harm. The kernel removes a dead host's link by itself, but only a moment later:
    // by then the next host may need the name.
    let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let links = links.filter_map(|entry| entry.file_name().into_string().ok());
    for link in links.filter(|link| link.starts_with(&format!("vb-{}-", bridge(number)))) {
        let _ = run("ip", &["link", "delete", &link]);
    }
    let _ = run("ip", &["link", "delete", &bridge(number)]);
    let user = Path::new(FORWARD_USERS).join(number.to_string());
    if !user.exists() {
        return;
    }
    for (table, rule) in rules(number) {
        let mut args = vec!["-w", "-t", table, "-D"];
        args.extend(rule.iter().map(String::as_str));
        // A rule may be there more than once.
        while run("iptables", &args).is_ok() {}
    }
    if let Err(e) = close(&user) {
        eprintln!("{FORWARD} cannot be put back: {e}");
    }
}

fn close(user: &Path) -> io::Result<()> {
    let _lock = forward_lock()?;
    fs::remove_file(user)?;
    // A user that was killed keeps it open until its slot is swept.
    if fs::read_dir(FORWARD_USERS)?.next().is_none() {
        fs::write(FORWARD, fs::read(FORWARD_BEFORE)?)?;
        fs::remove_file(FORWARD_BEFORE)?;
    }
    Ok(())
}

fn forward_lock() -> io::Result<File> {
    let lock = File::options().create(true).append(true).open(FORWARD_LOCK)?;
    lock.lock()?;
    Ok(lock)
}

/// The packet filter's rules: table, and chain with match and target.
fn rules(number: u8) -> [(&'static str, Vec<String>); 3] {
    let (bridge, subnet) = (bridge(number), format!("{}0/24", prefix(number)));
    let words = |line: String| line.split(' ').map(str::to_owned).collect();
    [
        ("nat", words(format!("POSTROUTING -s {subnet} ! -d {subnet} -j MASQUERADE"))),
        ("filter", words(format!("FORWARD -i {bridge} -j ACCEPT"))),
        ("filter", words(format!("FORWARD -o {bridge} -j ACCEPT"))),
    ]
}

/// Runs a program from the administrator's PATH and returns its output.
pub(super) fn run(program: &str, args: &[&str]) -> io::Result<String> {
    let failed = |e: io::Error| io::Error::other(format!("`{program}` cannot be run ({e}): tests/run installs it"));
    let Output { status, stdout, stderr } = Command::new(program).args(args).output().map_err(failed)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        return Err(io::Error::other(format!("`{program} {}`: {status}: {}", args.join(" "), said.trim())));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
