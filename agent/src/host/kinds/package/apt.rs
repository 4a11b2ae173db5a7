//! apt and dpkg: Debian, Ubuntu and their derivatives (apt-get(8), apt-cache(8), apt-mark(8), dpkg-query(1)).

use std::collections::{BTreeMap, BTreeSet};

use super::backend::{Backend, CommandLine, FoundState, Install, Installed, Versions, explanation, words};

/// apt as a backend; it has no state.
pub(super) struct Apt;

/// For every command that may run dpkg: existing configuration files stay; no terminal is used, and names are not patterns.
const OPTIONS: [&str; 10] = [
    "-y",
    "-q",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "Dpkg::Use-Pty=0",
    "-o",
    "APT::Cmd::Pattern-Only=true",
];

impl Backend for Apt {
    fn program(&self) -> &'static str {
        "apt-get"
    }

    fn list(&self) -> CommandLine {
        const FORMAT: &str = "-f=${db:Status-Abbrev}|${Package}|${binary:Package}|${Version}|${Provides}\\n";
        words(&["dpkg-query", "-W", FORMAT], &[])
    }

    fn read_list(&self, out: &str) -> Installed {
        let mut installed = Installed::default();
        for line in out.lines() {
            let mut fields = line.split('|');
            let [Some(status), Some(name), Some(full), Some(version), provides] = [(); 5].map(|()| fields.next())
            else {
                continue;
            };
            let mut letters = status.chars().skip(1);
            let (state, error) = (letters.next(), letters.next().is_some_and(|c| c != ' '));
            let state = match state {
                None | Some('n') => continue,
                Some('c') => FoundState::Configuration,
                Some('i') if !error => FoundState::Complete,
                _ => FoundState::Partial,
            };
            installed.interrupted |= state == FoundState::Partial;
            installed.add(full, version, state);
            // The package of the host's own architecture takes precedence over one of another.
            if full == name || !installed.has(name, None) {
                installed.add(name, version, state);
            }
            if state == FoundState::Complete {
                let names = provides.unwrap_or_default().split(',').filter_map(|one| one.split_whitespace().next());
                names.for_each(|name| installed.provide(name, full));
            }
        }
        installed
    }

    fn refresh(&self) -> CommandLine {
        words(&["apt-get", "-q", "update"], &[])
    }

    fn index(&self) -> &'static [&'static str] {
        &["/var/lib/apt/lists", "/var/lib/apt/lists/partial"]
    }

    /// Also for names without a version: apt would take an unknown name for a pattern.
    fn versions(&self, names: &[&str], _: bool) -> Option<CommandLine> {
        Some(words(&["apt-cache", "policy"], names))
    }

    fn read_versions(&self, out: &str) -> BTreeMap<String, Versions> {
        policies(out).into_iter().map(|(name, policy)| (name, policy.versions)).collect()
    }

    fn upgrades(&self, names: &[&str]) -> CommandLine {
        words(&["apt-cache", "policy"], names)
    }

    fn read_upgrades(&self, out: &str) -> BTreeSet<String> {
        let newer =
            |policy: &Policy| policy.versions.candidate.is_some() && policy.installed != policy.versions.candidate;
        policies(out).into_iter().filter(|(_, policy)| newer(policy)).map(|(name, _)| name).collect()
    }

    fn install(&self, install: &Install<'_>) -> CommandLine {
        let mut command = vec!["apt-get"];
        command.extend(OPTIONS);
        // Installing a package must not remove others.
        command.push("--no-remove");
        match install.recommends {
            Some(true) => command.push("--install-recommends"),
            Some(false) => command.push("--no-install-recommends"),
            None => {}
        }
        if install.names.iter().any(|(_, version)| version.is_some()) {
            command.push("--allow-downgrades");
        }
        if install.change_held {
            command.push("--allow-change-held-packages");
        }
        command.extend(["install", "--"]);
        install.words(&command, |name, version| format!("{name}={version}"))
    }

    fn installs_newer(&self) -> bool {
        true
    }

    fn preview(&self, names: &[&str], wide: bool) -> Option<CommandLine> {
        let auto = if wide { "APT::Get::AutomaticRemove=true" } else { "APT::Get::AutomaticRemove=false" };
        Some(words(&["apt-get", "-s", "-q", "-o", auto, "remove", "--"], names))
    }

    fn read_preview(&self, out: &str) -> BTreeSet<String> {
        let removed = out.lines().filter_map(|line| line.strip_prefix("Remv ").or(line.strip_prefix("Purg ")));
        removed.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }

    fn remove(&self, names: &[&str], purge: bool) -> CommandLine {
        let mut command = vec!["apt-get"];
        command.extend(OPTIONS);
        command.extend(["-o", "APT::Get::AutomaticRemove=false", if purge { "purge" } else { "remove" }, "--"]);
        words(&command, names)
    }

    fn held(&self) -> Option<CommandLine> {
        Some(words(&["apt-mark", "showhold"], &[]))
    }

    fn read_held(&self, out: &str) -> BTreeSet<String> {
        out.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn hold(&self, names: &[&str], hold: bool) -> CommandLine {
        words(&["apt-mark", if hold { "hold" } else { "unhold" }], names)
    }

    /// apt's own file, which is missing until a dependency is installed. `apt-mark showmanual` would write a cache, and fail
    /// while another apt does.
    fn chosen(&self) -> Option<CommandLine> {
        Some(words(&["sh", "-c", "cat /var/lib/apt/extended_states 2> /dev/null || true"], &[]))
    }

    /// Paragraphs with `Package`, `Architecture` and `Auto-Installed`; what has none was chosen.
    fn read_chosen(&self, out: &str, installed: &Installed) -> BTreeSet<String> {
        let mut automatic = BTreeSet::new();
        for paragraph in out.split("\n\n") {
            let field = |name: &str| {
                let line = paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                line.map_or("", str::trim)
            };
            let (name, architecture) = (field("Package"), field("Architecture"));
            if field("Auto-Installed") == "1" {
                automatic.insert(format!("{name}:{architecture}"));
                // A name without an architecture is that of the host's own.
                automatic.extend((architecture == own_architecture()).then(|| name.to_owned()));
            }
        }
        installed.names().filter(|name| !automatic.contains(*name)).map(str::to_owned).collect()
    }

    fn choose(&self, names: &[&str], chosen: bool) -> CommandLine {
        words(&["apt-mark", if chosen { "manual" } else { "auto" }], names)
    }

    /// Lines below `Package … is a virtual package provided by:`, each with a name and a version.
    fn providers(&self, output: &str) -> Vec<String> {
        let lines = output.lines().skip_while(|line| !line.ends_with("is a virtual package provided by:")).skip(1);
        let lines = lines.take_while(|line| line.starts_with(' '));
        lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }

    fn env(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBIAN_PRIORITY", "critical"),
            ("APT_LISTCHANGES_FRONTEND", "none"),
            ("UCF_FORCE_CONFFOLD", "1"),
            // The site decides what is restarted, not needrestart.
            ("NEEDRESTART_SUSPEND", "1"),
        ]
    }

    fn locks(&self) -> &'static [&'static str] {
        &[
            "/var/lib/dpkg/lock-frontend",
            "/var/lib/dpkg/lock",
            "/var/lib/apt/lists/lock",
            "/var/cache/apt/archives/lock",
        ]
    }

    fn complete_interrupted(&self) -> Option<CommandLine> {
        Some(words(&["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"], &[]))
    }

    fn is_locked(&self, output: &str) -> bool {
        output.lines().any(|line| line.starts_with("E: ") && line.contains("Could not get lock"))
            || output.contains("dpkg frontend lock was locked by another process")
            || output.contains("dpkg database lock was locked by another process")
    }

    fn unknown(&self, output: &str) -> Option<String> {
        output.lines().find_map(|line| {
            let quoted = || line.split('\'').nth(1);
            let name = match line.strip_prefix("E: ")? {
                rest if rest.starts_with("Unable to locate package ") => rest.rsplit(' ').next(),
                rest if rest.ends_with("has no installation candidate") => quoted(),
                _ => None,
            };
            name.map(str::to_owned)
        })
    }

    fn cause(&self, output: &str) -> String {
        let mut removed = output.lines().skip_while(|line| !line.ends_with("will be REMOVED:")).skip(1);
        let refused = output.contains("Packages need to be removed but remove is disabled");
        if let Some(names) = removed.next().filter(|_| refused) {
            let names = names.split_whitespace().collect::<Vec<_>>().join(", ");
            return format!(
                "it would remove {names}; if that is wanted, remove them with a task with `state = \"absent\"` before this one"
            );
        }
        explanation(output, |line| {
            let is_error =
                line.starts_with("E: ") || line.starts_with("dpkg: error") || line.starts_with("dpkg-deb: error");
            let is_reason = line.contains("subprocess returned error") || line.contains("unmet dependencies");
            // ` name : Conflicts: other`, and the continuation lines of such a list.
            let is_relation =
                ["Depends:", "PreDepends:", "Conflicts:", "Breaks:"].iter().any(|word| line.contains(word));
            is_error && !line.starts_with("E: Sub-process") || is_reason || is_relation
        })
    }
}

/// Debian's name of the architecture that this agent, and so the host, is of.
fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "arm" => "armhf",
        "powerpc64" => "ppc64el",
        other => other,
    }
}

/// A package in the output of `apt-cache policy`.
#[derive(Debug, Default)]
struct Policy {
    installed: Option<String>,
    versions: Versions,
}

fn policies(out: &str) -> BTreeMap<String, Policy> {
    let mut policies = BTreeMap::new();
    let mut current: Option<(String, Policy)> = None;
    for line in out.lines() {
        let version = |text: &str| Some(text.trim().to_owned()).filter(|version| version != "(none)");
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            policies.extend(current.replace((name.to_owned(), Policy::default())));
            continue;
        }
        let Some((_, policy)) = &mut current else { continue };
        if let Some(installed) = line.strip_prefix("  Installed:") {
            policy.installed = version(installed);
        } else if let Some(candidate) = line.strip_prefix("  Candidate:") {
            policy.versions.candidate = version(candidate);
        } else if let Some(row) = line.strip_prefix(" *** ").or(line.strip_prefix("     "))
            && let Some(version) = row.split(' ').next().filter(|version| !version.is_empty())
        {
            policy.versions.all.push(version.to_owned());
        }
    }
    policies.extend(current);
    policies
}
