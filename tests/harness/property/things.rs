//! What tasks of made-up sites manage: a fixed set of things on a host, each of which one task at a time has.
//!
//! In: a thing, and small numbers that choose among its parameters. Out: the task as text, and which parts of the host it owns.
//! All parameters of a thing determine it completely, or leave the same of it as it is: so what is on the host follows from the
//! latest commit alone, whatever came before.

use std::fmt;

use groundplan_protocol::{ids::TaskId, kinds::Cron};

use super::{
    choice::{Choice, Fault, content, lines_file, module_name, options_file, unit_name},
    texts,
};

/// Something on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Thing {
    /// A path that is a file, a link or a directory.
    Path(u8),
    /// A directory with files of the same task group in it.
    Folder(u8),
    /// A line or block of a text file, by file and place.
    Line(u8, u8),
    /// Options of an INI file, by file and place.
    Option(u8, u8),
    /// A user.
    User(u8),
    /// A group.
    Group(u8),
    /// An entry of cron.
    Cron(u8),
    /// A systemd unit.
    Unit(u8),
    /// A mount point with a tmpfs.
    Mount(u8),
    /// A kernel parameter.
    Sysctl(u8),
    /// A directory into which an archive is unpacked.
    Archive(u8),
    /// A program that the agent keeps running.
    Process(u8),
    /// The host's name.
    Hostname,
    /// What is configured of a kernel module.
    Module(u8),
    /// Packages, from a repository on the host.
    Package(u8),
    /// An image in podman's store.
    Image(u8),
    /// Something that fails on every host, and of which nothing may be left.
    Broken(u8),
}

use Thing::{
    Archive, Broken, Folder, Group, Hostname, Image, Line, Module, Mount, Option as Opt, Package, Path, Process,
    Sysctl, Unit, User,
};

/// Kernel parameters of a container's own network, each with two values; none that a new network has from this machine's own.
pub(crate) const PARAMETERS: [(&str, [&str; 2]); 3] = [
    ("net.ipv4.tcp_keepalive_intvl", ["61", "62"]),
    ("net.ipv4.conf.default.log_martians", ["0", "1"]),
    ("net.ipv4.ip_default_ttl", ["65", "66"]),
];

/// A task's kind as text, with the file that it ships.
pub(crate) struct Rendered {
    /// `kind = { … }`.
    pub(crate) kind: String,
    /// The name and content of a file in the service's folder.
    pub(crate) source: Option<(String, String)>,
    /// Further tasks that come with it: what is added to the id, and the kind.
    pub(crate) parts: Vec<(String, String)>,
}

/// What was on the host before at a [`Thing::Path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing.
    Nothing,
    /// A file with owner, mode, ACL and an attribute.
    File,
    /// A link.
    Link,
    /// A file with the content that a task may want.
    Equal,
}

/// What is at a path before any task has it.
pub(crate) fn before(path: u8) -> Before {
    [Before::Nothing, Before::File, Before::Link, Before::Nothing, Before::Equal][usize::from(path) % 5]
}

impl Thing {
    /// All things of a host, without those that fail.
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<Self> = (0..14).map(Path).chain((0..3).map(Folder)).collect();
        for file in 0..3 {
            all.extend((0..4).flat_map(|place| [Line(file, place), Opt(file, place)]));
        }
        all.extend((0..4).flat_map(|n| [User(n), Unit(n)]));
        all.extend((0..3).flat_map(|n| [Group(n), Self::Cron(n), Mount(n), Sysctl(n)]));
        all.extend((0..2).flat_map(|n| [Archive(n), Process(n), Image(n)]));
        all.extend((0..3).map(Module).chain((0..4).map(Package)).chain([Hostname]));
        all
    }

    /// Those that fail.
    pub(crate) fn broken() -> Vec<Self> {
        (0..6).map(Broken).collect()
    }

    /// How many forms there are.
    pub(crate) fn forms(self) -> u8 {
        match self {
            Path(n) if before(n) == Before::Nothing => 5,
            Path(_) => 4,
            Line(..) => 4,
            Opt(..) => 4,
            Unit(3) => 4,
            Package(0) => 3,
            Unit(_) => 3,
            _ => 1,
        }
    }

    /// Whether it says what becomes of it when a task of it has `on_remove`: what a unit of the system is without a file of its own in
    /// `/etc` depends on what systemd makes of it, and a file of cron is named after its task, so that one that is kept stays beside that
    /// of the renamed task; packages that another one needs stay with that.
    pub(crate) fn has_policy(self) -> bool {
        !matches!(self, Process(_) | Broken(_) | Unit(3) | Self::Cron(_) | Package(0 | 1))
    }

    /// Whether its parameters decide all of what is there, whatever was there before, but for extended attributes.
    pub(crate) fn decides_all(self) -> bool {
        matches!(self, Path(_) | Self::Cron(_) | Sysctl(_) | Process(_))
    }

    /// The faults that a task of it may have.
    pub(crate) fn faults(self, form: u8) -> &'static [Fault] {
        match self {
            Path(_) if form == 0 || form == 3 => &[Fault::Ready, Fault::Validation],
            Broken(_) => &[],
            _ => &[Fault::Ready],
        }
    }

    /// Whether a task with this choice has a directory at the path.
    pub(crate) fn is_directory(self, form: u8) -> bool {
        matches!(self, Path(_)) && form == 4
    }

    /// What two tasks of it must have in common for one to take over from the other: a directory takes over no file, and a line is the
    /// one that it finds, or the one that it writes.
    pub(crate) fn identity(self, choice: Choice) -> String {
        match (self, choice.form) {
            (Path(_), 4) => "directory".to_owned(),
            (Path(_), 2) => "link".to_owned(),
            (Line(..), 0 | 3) => "pattern".to_owned(),
            (Line(..), 1) => format!("line {}", choice.content),
            (Line(..), _) => "block".to_owned(),
            (Opt(..), 1) => "two options".to_owned(),
            _ => String::new(),
        }
    }

    /// The task's text.
    pub(crate) fn render(self, id: &str, choice: Choice) -> Rendered {
        let Choice { form, content: c, .. } = choice;
        let (mut source, mut parts) = (None, Vec::new());
        let kind = match self {
            Path(n) => texts::path(n, id, choice, &mut source),
            Folder(n) => {
                let file = |k: u8| format!("file = {{ path = \"/srv/prop/d{n}/c{k}\", content = \"{}\" }}", content(c));
                parts.extend((0..c % 3).map(|k| (format!("-c{k}"), file(k))));
                format!("directory = {{ path = \"/srv/prop/d{n}\"{} }}", texts::access(choice.access))
            }
            Line(file, place) => texts::line(file, place, form, c),
            Opt(file, place) => texts::option(file, place, form, c),
            User(n) => texts::user(n, c),
            Group(2) => {
                format!("group = {{ name = \"gg2\", members = [\"{}\"] }}", ["daemon", "bin"][usize::from(c % 2)])
            }
            Group(n) => {
                format!("group = {{ name = \"gg{n}\", gid = {} }}", 5800 + u32::from(n) * 100 + u32::from(c) * 10)
            }
            Self::Cron(n) => format!("cron = {{ schedule = \"{c} 4 * * *\", run = \"true prop{n}\" }}"),
            Unit(n) => texts::unit(n, form, c),
            Mount(n) => format!(
                "mount = {{ path = \"/srv/prop/m{n}\", source = \"tmpfs\", fstype = \"tmpfs\", options = \"size={}m\" }}",
                c + 1
            ),
            Sysctl(n) => {
                let (name, values) = PARAMETERS[usize::from(n)];
                format!("sysctl = {{ \"{name}\" = {} }}", values[usize::from(c % 2)])
            }
            Archive(n) => {
                format!("archive = {{ path = \"/root/prop/{}.tar\", dest = \"/opt/prop/a{n}\" }}", c % 3)
            }
            Hostname => format!("hostname = {{ name = \"prop{c}\", pretty = \"pretty \\\"{c}\\\"\" }}"),
            Module(n) => texts::module(n, c),
            Package(n) => texts::package(n, form, c),
            Image(n) => {
                format!("image = {{ name = \"localhost/gi{n}:1\", path = \"/root/prop/image{}.tar\" }}", c % 3)
            }
            Process(n) => format!("process = {{ run = [\"sleep\", \"77{n}{c}d\"] }}"),
            Broken(n) => texts::broken(n),
        };
        Rendered { kind, source, parts }
    }

    /// What of the host is the task's, in the terms of [`super::fingerprint`]: keys, and with `/**` at the end all below a path.
    pub(crate) fn claims(self, task: &TaskId, choice: Choice) -> Vec<String> {
        let path = |path: String| format!("path {path}");
        match self {
            Path(n) => vec![path(format!("/srv/prop/p{n}"))],
            Folder(n) => (0..choice.content % 3)
                .map(|k| path(format!("/srv/prop/d{n}/c{k}")))
                .chain([path(format!("/srv/prop/d{n}"))])
                .collect(),
            Line(file, place) => vec![format!("part {} {place}", lines_file(file))],
            Opt(file, place) => vec![format!("part {} {place}", options_file(file))],
            User(n) => {
                let mut claims = vec![path(format!("/home/gu{n}/**")), path(format!("/srv/prop/home{n}/**"))];
                claims.extend([
                    format!("path /var/mail/gu{n}"),
                    format!("path /home/gu{n}"),
                    format!("path /srv/prop/home{n}"),
                ]);
                claims.extend(["user", "group", "subuid", "subgid"].map(|what| format!("{what} gu{n}")));
                claims
            }
            Group(n) => vec![format!("group gg{n}")],
            Self::Cron(_) => vec![path(Cron::path(task))],
            Unit(n) => {
                let (name, folder) = (unit_name(n), "/etc/systemd/system");
                vec![
                    format!("unit {name}"),
                    format!("process 31{n}"),
                    path(format!("{folder}/{name}")),
                    path(format!("{folder}/{name}.d")),
                    path(format!("{folder}/{name}.d/**")),
                    path(format!("{folder}/multi-user.target.wants/{name}")),
                ]
            }
            Mount(n) => {
                vec![format!("mount /srv/prop/m{n}"), path(format!("/srv/prop/m{n}")), format!("part /etc/fstab {n}")]
            }
            Sysctl(n) => {
                let name = PARAMETERS[usize::from(n)].0;
                vec![format!("sysctl {name}"), path(format!("/etc/sysctl.d/99-zz-groundplan-{task}.conf"))]
            }
            Archive(n) => vec![path(format!("/opt/prop/a{n}")), path(format!("/opt/prop/a{n}/**"))],
            Hostname => {
                vec!["hostname".to_owned(), path("/etc/hostname".to_owned()), path("/etc/machine-info".to_owned())]
            }
            Module(n) => ["modules-load.d", "modprobe.d"]
                .map(|folder| path(format!("/etc/{folder}/groundplan-{}.conf", module_name(n))))
                .into(),
            Package(n) => packages(n, choice.form)
                .iter()
                .flat_map(|name| {
                    [format!("package {name}"), path(format!("/opt/gp/{name}")), path(format!("/etc/gp/{name}.conf"))]
                })
                .collect(),
            Image(n) => vec![format!("image localhost/gi{n}:1")],
            Process(n) => vec![format!("process 77{n}")],
            Broken(4) => vec![path("/srv/prop/nodevice".to_owned())],
            Broken(_) => Vec::new(),
        }
    }

    /// The files of which the thing is a part, as far as several things share them.
    pub(crate) fn shared_file(self) -> Option<String> {
        match self {
            Line(file, _) => Some(lines_file(file)),
            Opt(file, _) => Some(options_file(file)),
            Mount(_) => Some("/etc/fstab".to_owned()),
            _ => None,
        }
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The packages that a task installs or has, with those that come along.
pub(crate) fn packages(n: u8, form: u8) -> &'static [&'static str] {
    match (n, form) {
        (0, 0) => &["gp-a", "gp-lib"],
        (0, 1) => &["gp-b", "gp-lib"],
        (0, _) => &["gp-a", "gp-b", "gp-lib"],
        (1, _) => &["gp-c", "gp-lib"],
        (2, _) => &["gp-old"],
        _ => &["gp-conf"],
    }
}
