//! Facts from the host's own files and the kernel: no program is run for them.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use serde_json::{Map, Value, json};

use crate::machine::Facts;

/// Most addresses in the facts.
const ADDRESSES: usize = 64;

/// `os`, `arch`, `kernel`, `memory`, `cpus`, `hostname`, `addresses`, `init`, `package_manager`, as far as the host has them.
pub(super) fn facts() -> Facts {
    let release = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let os = os(&release.unwrap_or_default());
    let manager = package_manager(&os, &|path| Path::new(path).exists());
    let known = [
        ("os", Some(Value::Object(os))),
        ("arch", Some(std::env::consts::ARCH.into())),
        ("kernel", line("/proc/sys/kernel/osrelease").map(|release| json!({ "release": release }))),
        ("memory", total_mib(&read("/proc/meminfo")).map(|mib| json!({ "total_mib": mib }))),
        ("cpus", cpus(&read("/proc/cpuinfo")).map(Value::from)),
        ("hostname", line("/proc/sys/kernel/hostname").map(Value::from)),
        ("addresses", Some(addresses().into_iter().map(|address| address.to_string()).collect())),
        ("init", init().map(Value::from)),
        ("package_manager", manager.map(Value::from)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// A name of this boot: the kernel's random one, and the start time of the first process (proc_pid_stat(5)), because containers that
/// share a kernel boot on their own.
pub fn boot_id() -> String {
    let kernel = line("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let first = read("/proc/1/stat");
    // The name of the program, in parentheses, may hold anything.
    let began = first.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19)).unwrap_or_default();
    format!("{kernel}/{began}")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn line(path: &str) -> Option<String> {
    Some(read(path).trim().to_owned()).filter(|text| !text.is_empty())
}

/// The fact `os`, from os-release(5).
fn os(release: &str) -> Map<String, Value> {
    let keys = [("id", "ID"), ("version", "VERSION_ID"), ("name", "NAME"), ("codename", "VERSION_CODENAME")];
    let known = keys.into_iter().filter_map(|(name, key)| Some((name.to_owned(), release_value(release, key)?.into())));
    let mut os: Map<String, Value> = known.collect();
    let like = release_value(release, "ID_LIKE").unwrap_or_default();
    os.insert("like".to_owned(), like.split_whitespace().collect());
    os
}

/// A value of os-release(5).
fn release_value(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
}

fn total_mib(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

/// The CPUs of the host, also if the agent may use only some.
fn cpus(cpuinfo: &str) -> Option<usize> {
    let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    Some(count).filter(|count| *count > 0).or_else(|| std::thread::available_parallelism().ok().map(usize::from))
}

/// The addresses that are valid beyond the host and its links.
fn addresses() -> BTreeSet<IpAddr> {
    let all = getifaddrs().into_iter().flatten().filter_map(|interface| ip(&interface.address?));
    all.filter(is_global).take(ADDRESSES).collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn is_global(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()),
    }
}

/// `systemd`, `openrc`, or the name of the first process.
fn init() -> Option<String> {
    let booted = [("/run/systemd/system", "systemd"), ("/run/openrc", "openrc")];
    let known = booted.into_iter().find(|(path, _)| Path::new(path).is_dir()).map(|(_, name)| name.to_owned());
    known.or_else(|| line("/proc/1/comm"))
}

/// The package manager; the distribution's own one where several are installed.
fn package_manager(os: &Map<String, Value>, exists: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let managers = [
        ("apt", "/usr/bin/apt-get", &["debian", "ubuntu"][..]),
        ("dnf", "/usr/bin/dnf", &["fedora", "rhel", "centos"]),
        ("apk", "/sbin/apk", &["alpine"]),
        ("zypper", "/usr/bin/zypper", &["suse", "opensuse"]),
    ];
    let like = os.get("like").and_then(Value::as_array).into_iter().flatten();
    let family: Vec<_> = os.get("id").into_iter().chain(like).filter_map(Value::as_str).collect();
    let there = || managers.iter().filter(|(_, program, _)| exists(program));
    let own = there().find(|(.., families)| families.iter().any(|name| family.contains(name)));
    own.or_else(|| there().next()).map(|(name, ..)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 13\"\nVERSION_ID=\"13\"\nID=debian\nVERSION_CODENAME=trixie\n";
    const ROCKY: &str = "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nNAME='Rocky Linux'\n";

    #[test]
    fn reads_os_release() {
        let debian = json!({ "id": "debian", "version": "13", "codename": "trixie", "like": [] });
        assert_eq!(Value::Object(os(DEBIAN)), debian);
        let rocky = json!({ "id": "rocky", "name": "Rocky Linux", "like": ["rhel", "centos", "fedora"] });
        assert_eq!(Value::Object(os(ROCKY)), rocky);
        assert_eq!(Value::Object(os("")), json!({ "like": [] }));
    }

    #[test]
    fn the_package_manager_is_the_distributions_own() {
        let both = |path: &str| path.ends_with("apt-get") || path.ends_with("dnf");
        assert_eq!(package_manager(&os(DEBIAN), &both), Some("apt"));
        assert_eq!(package_manager(&os(ROCKY), &both), Some("dnf"));
        assert_eq!(package_manager(&os("ID=own\n"), &|path| path == "/sbin/apk"), Some("apk"));
        assert_eq!(package_manager(&os("ID=own\n"), &|_| false), None);
    }

    #[test]
    fn memory_cpus_and_addresses() {
        assert_eq!(total_mib("MemTotal:       24610788 kB\nMemFree: 1 kB\n"), Some(24_033));
        assert_eq!(total_mib(""), None);
        assert_eq!(cpus("processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n"), Some(2));
        let global = |text: &str| is_global(&text.parse().unwrap());
        assert!(["10.0.0.1", "192.0.2.7", "2001:db8::1", "fd00::1"].into_iter().all(global));
        assert!(!["127.0.0.1", "169.254.1.2", "::1", "fe80::1", "0.0.0.0"].into_iter().any(global));
    }

    #[test]
    fn every_host_has_these_facts() {
        let facts = facts();
        for name in ["os", "arch", "kernel", "memory", "cpus", "hostname", "addresses"] {
            assert!(facts.contains_key(name), "{name} is not in {facts:?}");
        }
        assert_eq!(facts, super::facts(), "read again, they are the same");
    }
}
