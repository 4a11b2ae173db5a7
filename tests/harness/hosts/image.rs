//! The image of hosts: a minimal Debian with systemd, built once a machine and kept outside of the tree.
//!
//! In: additional packages, and this machine's own package sources. Out: a directory that is never written to again.
//! It is in `$GROUNDPLAN_TEST_CACHE`, or `~/.cache/groundplan-tests`, under a key that changes with its recipe; built under a lock and
//! put in place by renaming, so that it is complete or absent. Contains no name of any registry: only hosts with internet get package sources.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use groundplan_protocol::digest::Digest;

use super::network::run;

/// To be raised when a step below changes, because the steps are not part of the key.
const RECIPE: u32 = 1;

/// What every host has besides Debian's own minimum.
const PACKAGES: [&str; 7] = ["systemd", "systemd-sysv", "dbus", "iproute2", "procps", "kmod", "ca-certificates"];

/// Units that log or wake up by themselves, and that a container does not need.
const MASKED: [&str; 9] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "console-getty.service",
    "getty@tty1.service",
    "systemd-networkd-wait-online.service",
];

/// Which image a host is a clone of.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// The least: systemd, dbus, iproute2, procps, kmod, ca-certificates, apt.
    #[default]
    Base,
    /// With podman and what it needs to run containers as root and as a user.
    Podman,
    /// With these additional packages of the machine's own release.
    With(Vec<String>),
}

impl Image {
    fn packages(&self) -> Vec<String> {
        let fixed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match self {
            Self::Base => Vec::new(),
            Self::Podman => {
                fixed(&["podman", "runc", "catatonit", "netavark", "aardvark-dns", "iptables", "busybox-static"])
            }
            Self::With(packages) => packages.clone(),
        }
    }

    /// Its directory, built if it is not there yet: that takes a minute or two, and is printed on standard error.
    pub fn directory(&self) -> io::Result<PathBuf> {
        let release = release()?;
        let mut recipe = vec![RECIPE.to_string(), release.clone()];
        recipe.extend(PACKAGES.iter().chain(&MASKED).map(|word| (*word).to_owned()));
        recipe.extend(self.packages());
        let key = Digest::of(recipe.join("\n").as_bytes()).to_string();
        let key: String = key.chars().filter(char::is_ascii_hexdigit).take(12).collect();
        let (cache, name) = (cache()?, format!("{release}-{key}"));
        fs::create_dir_all(&cache)?;
        let place = cache.join(&name);
        if place.exists() {
            return Ok(place);
        }
        // One process builds, the others wait for it.
        let lock = File::options().create(true).append(true).open(cache.join(format!("{name}.lock")))?;
        lock.lock()?;
        if place.exists() {
            return Ok(place);
        }
        let begun = Instant::now();
        print(&format!("building the image of the test hosts, {self:?}, once: {}", place.display()));
        let building = cache.join(format!("{name}.building"));
        if building.exists() {
            fs::remove_dir_all(&building)?;
        }
        match self {
            Self::Base => bootstrap(&release, &building)?,
            _ => extend(&Self::Base.directory()?, &building, &self.packages())?,
        }
        fs::rename(&building, &place)?;
        print(&format!("built in {:.0} s", begun.elapsed().as_secs_f64()));
        Ok(place)
    }
}

/// Prints past the test runner's capture, because the build takes minutes.
fn print(line: &str) {
    use io::Write;
    let _ = writeln!(io::stderr(), "hosts: {line}");
}

fn cache() -> io::Result<PathBuf> {
    if let Some(place) = std::env::var_os("GROUNDPLAN_TEST_CACHE") {
        return Ok(place.into());
    }
    let home =
        std::env::var_os("HOME").ok_or_else(|| io::Error::other("neither GROUNDPLAN_TEST_CACHE nor HOME is set"))?;
    Ok(PathBuf::from(home).join(".cache/groundplan-tests"))
}

/// This machine's own release, so that the programs built here run there.
fn release() -> io::Result<String> {
    let text = fs::read_to_string("/etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned()).ok_or_else(|| {
        io::Error::other("/etc/os-release names no VERSION_CODENAME: hosts are made of a Debian release")
    })
}

/// Where this machine gets that release from, and which components of it.
fn mirror(release: &str) -> io::Result<(String, String)> {
    let format = "$(RELEASE) $(COMPONENT) $(REPO_URI)";
    let args = ["indextargets", "--no-release-info", "--format", format, "Created-By: Packages"];
    let listed = run("apt-get", &args)?;
    let mut found: Option<(String, Vec<String>)> = None;
    for line in listed.lines() {
        let mut fields = line.splitn(3, ' ');
        let (Some(of), Some(component), Some(uri)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if of == release {
            let (first, components) = found.get_or_insert_with(|| (uri.to_owned(), Vec::new()));
            if first == uri && !components.iter().any(|c| c == component) {
                components.push(component.to_owned());
            }
        }
    }
    let (uri, components) =
        found.ok_or_else(|| io::Error::other(format!("this machine's package sources do not have {release}")))?;
    Ok((uri, components.join(",")))
}

fn bootstrap(release: &str, into: &Path) -> io::Result<()> {
    let (uri, components) = mirror(release)?;
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", &format!("--include={}", PACKAGES.join(","))]);
    command.arg(format!("--components={components}")).arg(release).arg(into).arg(uri);
    // Debootstrap reads the environment only.
    for (name, key) in [("http_proxy", "Acquire::http::Proxy"), ("https_proxy", "Acquire::https::Proxy")] {
        let value = run("apt-config", &["shell", "value", key])?;
        if let Some(value) = value.trim().strip_prefix("value=") {
            command.env(name, value.trim_matches('\''));
        }
    }
    finish(command, into)?;
    for unit in MASKED {
        let link = into.join("etc/systemd/system").join(unit);
        std::os::unix::fs::symlink("/dev/null", link)?;
    }
    let wanted = into.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    std::os::unix::fs::symlink(
        "/lib/systemd/system/systemd-networkd.service",
        wanted.join("systemd-networkd.service"),
    )?;
    // No host of a test has to survive a power cut of this machine.
    fs::write(into.join("etc/dpkg/dpkg.cfg.d/unsafe-io"), "force-unsafe-io\n")?;
    strip(into)
}

fn extend(base: &Path, into: &Path, packages: &[String]) -> io::Result<()> {
    let mut copy = Command::new("cp");
    copy.args(["-a", "--reflink=auto"]).arg(base).arg(into);
    finish(copy, into)?;
    install_sources(into)?;
    // In namespaces of its own, so that nothing of it outlives it, and its /proc goes with it.
    let mut install = Command::new("unshare");
    install.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-ec"]);
    install.arg(
        "root=$1; shift; mount -t proc proc \"$root/proc\"\n\
         printf '#!/bin/sh\\nexit 101\\n' > \"$root/usr/sbin/policy-rc.d\"; chmod +x \"$root/usr/sbin/policy-rc.d\"\n\
         chroot \"$root\" apt-get update -q\n\
         chroot \"$root\" apt-get install -q -y --no-install-recommends -- \"$@\"\n\
         rm \"$root/usr/sbin/policy-rc.d\"",
    );
    install.arg("extend").arg(into).args(packages).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    finish(install, into)?;
    strip(into)
}

/// Runs a step with its output in a log beside the image.
fn finish(mut command: Command, into: &Path) -> io::Result<()> {
    let log = into.with_extension("log");
    let out = File::create(&log)?;
    let status = command.stdin(std::process::Stdio::null()).stdout(out.try_clone()?).stderr(out).status();
    let program = command.get_program().to_string_lossy().into_owned();
    let status =
        status.map_err(|e| io::Error::other(format!("`{program}` cannot be run ({e}): tests/run installs it")))?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read_to_string(&log).unwrap_or_default();
    let end: Vec<&str> = said.lines().rev().take(15).collect();
    let end: Vec<&str> = end.into_iter().rev().collect();
    Err(io::Error::other(format!("`{program}` failed, {status}; {} ends with\n{}", log.display(), end.join("\n"))))
}

/// Removes what belongs to this machine or to one host.
fn strip(image: &Path) -> io::Result<()> {
    for list in ["etc/apt/sources.list", "etc/resolv.conf", "etc/machine-id", "etc/hostname"] {
        fs::write(image.join(list), "")?;
    }
    for folder in ["etc/apt/sources.list.d", "etc/apt/auth.conf.d", "var/lib/apt/lists", "var/cache/apt"] {
        empty(&image.join(folder))?;
    }
    for file in ["etc/apt/apt.conf", "etc/apt/apt.conf.d/90machine", "var/lib/dbus/machine-id"] {
        match fs::remove_file(image.join(file)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

fn empty(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
        fs::create_dir(folder)?;
    }
    Ok(())
}

/// Gives a root directory this machine's package sources, how it reaches them, and its name servers.
pub(super) fn install_sources(root: &Path) -> io::Result<()> {
    for folder in ["etc/apt/sources.list.d", "etc/apt/auth.conf.d", "etc/apt/keyrings", "etc/apt/trusted.gpg.d"] {
        copy_files(&Path::new("/").join(folder), &root.join(folder))?;
    }
    copy_files(Path::new("/usr/share/keyrings"), &root.join("usr/share/keyrings"))?;
    copy_files(Path::new("/usr/local/share/ca-certificates"), &root.join("usr/local/share/ca-certificates"))?;
    for file in ["etc/apt/sources.list", "etc/ssl/certs/ca-certificates.crt"] {
        if Path::new("/").join(file).exists() {
            fs::copy(Path::new("/").join(file), root.join(file))?;
        }
    }
    // Of apt's settings only those for reaching sources: others name programs that a host does not have.
    let settings = run("apt-config", &["dump"])?;
    let reach = |line: &&str| {
        let others = ["Acquire::IndexTargets", "Acquire::cdrom", "Acquire::Changelogs"];
        line.starts_with("Acquire::")
            && !line.ends_with(" \"\";")
            && !others.iter().any(|other| line.starts_with(other))
    };
    let ours: Vec<&str> = settings.lines().filter(reach).collect();
    fs::create_dir_all(root.join("etc/apt/apt.conf.d"))?;
    fs::write(root.join("etc/apt/apt.conf.d/90machine"), ours.join("\n") + "\n")?;
    // A resolver on loopback is not reached from another host: then the ones behind it.
    let behind = Path::new("/run/systemd/resolve/resolv.conf");
    let own = fs::read_to_string("/etc/resolv.conf")?;
    let local = own.lines().any(|line| line.starts_with("nameserver 127."));
    fs::write(root.join("etc/resolv.conf"), if local && behind.exists() { fs::read_to_string(behind)? } else { own })
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().expect("a file of a folder")))?;
        }
    }
    Ok(())
}
