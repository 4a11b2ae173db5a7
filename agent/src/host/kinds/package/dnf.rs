//! dnf and rpm: Fedora, RHEL and their derivatives (dnf(8), rpm(8)), dnf 4 and 5.
//!
//! dnf 4 is run by a test on Debian, with a database and a repository of its own; dnf 5 is known by recorded outputs only.

use std::collections::{BTreeMap, BTreeSet};

use super::backend::{Backend, CommandLine, FoundState, Install, Installed, Versions, explanation, words};

/// dnf as a backend; it has no state.
pub(super) struct Dnf;

impl Backend for Dnf {
    fn program(&self) -> &'static str {
        "dnf"
    }

    fn list(&self) -> CommandLine {
        const FORMAT: &str = "%{NAME}|%{ARCH}|%{EPOCHNUM}:%{VERSION}-%{RELEASE}|[%{PROVIDENAME} ]\\n";
        words(&["rpm", "-qa", "--qf", FORMAT], &[])
    }

    fn read_list(&self, out: &str) -> Installed {
        let mut installed = Installed::default();
        for line in out.lines() {
            let mut fields = line.splitn(4, '|');
            let [Some(name), Some(arch), Some(version), provides] = [(); 4].map(|()| fields.next()) else { continue };
            // An epoch of 0 or none is left out, as people write versions.
            let version = version.strip_prefix("0:").unwrap_or(version);
            installed.add(name, version, FoundState::Complete);
            installed.add(&format!("{name}.{arch}"), version, FoundState::Complete);
            provides.unwrap_or_default().split_whitespace().for_each(|provided| installed.provide(provided, name));
        }
        installed
    }

    fn refresh(&self) -> CommandLine {
        words(&["dnf", "-q", "-y", "makecache"], &[])
    }

    fn index(&self) -> &'static [&'static str] {
        &["/var/cache/dnf", "/var/cache/libdnf5"]
    }

    fn versions(&self, names: &[&str], wanted: bool) -> Option<CommandLine> {
        let query = ["dnf", "-q", "repoquery", "--showduplicates", "--qf", "%{name}|%{epoch}:%{version}-%{release}\\n"];
        wanted.then(|| words(&query, names))
    }

    /// Lines `name|epoch:version-release`, the newest version last.
    fn read_versions(&self, out: &str) -> BTreeMap<String, Versions> {
        let mut found: BTreeMap<String, Versions> = BTreeMap::new();
        for (name, version) in out.lines().rev().filter_map(|line| line.trim().split_once('|')) {
            let versions = found.entry(name.to_owned()).or_default();
            let version = version.strip_prefix("0:").unwrap_or(version).to_owned();
            versions.candidate.get_or_insert_with(|| version.clone());
            if !versions.all.contains(&version) {
                versions.all.push(version);
            }
        }
        found
    }

    /// `check-update` exits with 100 if there are any.
    fn upgrades(&self, names: &[&str]) -> CommandLine {
        words(&["dnf", "-q", "check-update"], names)
    }

    fn read_upgrades(&self, out: &str) -> BTreeSet<String> {
        let rows = out.lines().take_while(|line| !line.starts_with("Obsoleting"));
        rows.filter_map(|line| {
            let mut columns = line.split_whitespace();
            let (name, Some(_), Some(_)) = (columns.next()?, columns.next(), columns.next()) else { return None };
            name.rsplit_once('.').map(|(name, _)| name.to_owned())
        })
        .collect()
    }

    fn install(&self, install: &Install<'_>) -> CommandLine {
        let mut command = vec!["dnf", "-q", "-y"];
        match install.recommends {
            Some(true) => command.push("--setopt=install_weak_deps=True"),
            Some(false) => command.push("--setopt=install_weak_deps=False"),
            None => {}
        }
        // `upgrade` accepts only installed packages; neither command downgrades.
        command.push(if install.upgrade { "upgrade" } else { "install" });
        install.words(&command, |name, version| format!("{name}-{version}"))
    }

    fn installs_newer(&self) -> bool {
        false
    }

    fn preview(&self, names: &[&str], _: bool) -> Option<CommandLine> {
        // Packages that require it, directly or not, would be removed with it.
        let command = ["dnf", "-q", "repoquery", "--installed", "--whatrequires"];
        let recursive = ["--recursive", "--qf", "%{name}\\n"];
        let mut command = words(&command, &[&names.join(",")]);
        command.extend(recursive.map(str::to_owned));
        Some(command)
    }

    fn read_preview(&self, out: &str) -> BTreeSet<String> {
        out.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    fn remove(&self, names: &[&str], _: bool) -> CommandLine {
        words(&["dnf", "-q", "-y", "--setopt=clean_requirements_on_remove=False", "remove"], names)
    }

    fn held(&self) -> Option<CommandLine> {
        Some(words(&["dnf", "-q", "versionlock", "list"], &[]))
    }

    /// dnf 4 lists `name-0:1.2-3.*`; dnf 5 a line `Package name: name` for each.
    fn read_held(&self, out: &str) -> BTreeSet<String> {
        let rows = out.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
        rows.filter_map(|line| match line.strip_prefix("Package name:") {
            Some(name) => Some(name.trim().to_owned()),
            None if line.contains(' ') => None,
            None => line.rsplitn(3, '-').nth(2).map(str::to_owned),
        })
        .collect()
    }

    fn hold(&self, names: &[&str], hold: bool) -> CommandLine {
        words(&["dnf", "-q", "-y", "versionlock", if hold { "add" } else { "delete" }], names)
    }

    fn chosen(&self) -> Option<CommandLine> {
        Some(words(&["dnf", "-q", "-C", "repoquery", "--userinstalled", "--qf", "%{name}\\n"], &[]))
    }

    /// dnf 5 has `mark user` and `mark dependency`, dnf 4 `mark install` and `mark remove`.
    fn choose(&self, names: &[&str], chosen: bool) -> CommandLine {
        let (five, four) = if chosen { ("user", "install") } else { ("dependency", "remove") };
        let line = format!("dnf -q -y mark {five} \"$@\" || dnf -q -y mark {four} \"$@\"");
        words(&["sh", "-c", &line, "sh"], names)
    }

    /// None: dnf itself waits for another instance.
    fn is_locked(&self, output: &str) -> bool {
        output.contains("can't create transaction lock") || output.contains("Failed to obtain the transaction lock")
    }

    fn unknown(&self, output: &str) -> Option<String> {
        let prefixes = ["No match for argument: ", "Unable to find a match: "];
        let line = output.lines().find_map(|line| prefixes.iter().find_map(|prefix| line.split_once(prefix)));
        line.and_then(|(_, names)| names.split_whitespace().next()).map(str::to_owned)
    }

    fn cause(&self, output: &str) -> String {
        explanation(output, |line| ["Error", "error:", " - ", "Problem"].iter().any(|word| line.starts_with(word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed() {
        let out = "httpd|x86_64|0:2.4.57-5.el9|config(httpd) httpd httpd-mmn webserver \n\
                   bind|x86_64|32:9.16.23-18.el9|bind bind(x86-64) \n";
        let installed = Dnf.read_list(out);
        assert!(installed.has("httpd", Some("2.4.57*")) && installed.has("httpd.x86_64", None));
        assert!(installed.has("webserver", None) && !installed.has("nginx", None));
        assert!(installed.has("bind", Some("9.16*")) && installed.has("bind", Some("32:9.16.23-18.el9")));
    }

    #[test]
    fn versions_to_choose_from() {
        let versions = &Dnf.read_versions("bind|32:9.16-1\n\nbind|32:9.18-2\nbind|32:9.18-2\n")["bind"];
        assert_eq!(versions.candidate.as_deref(), Some("32:9.18-2"));
        assert_eq!(versions.all, ["32:9.18-2", "32:9.16-1"]);
        assert_eq!(Dnf.read_versions("gp|0:1.0-1\n")["gp"].all, ["1.0-1"]);
    }

    #[test]
    fn newer_and_held_packages() {
        let out = "\nbash.x86_64              5.1.8-9.el9               baseos\n\
                   java-17-openjdk.x86_64   1:17.0.9.0.9-2.el9        appstream\n\
                   Obsoleting Packages\nold.noarch  1  repo\n";
        assert_eq!(Vec::from_iter(Dnf.read_upgrades(out)), ["bash", "java-17-openjdk"]);
        assert_eq!(Vec::from_iter(Dnf.read_held("httpd-tools-0:2.4.57-5.el9.*\n")), ["httpd-tools"]);
        let five = "# Added by 'versionlock add' command on 2024-03-01\nPackage name: bash\nevr = 5.2.26-1.fc39\n";
        assert_eq!(Vec::from_iter(Dnf.read_held(five)), ["bash"]);
    }

    #[test]
    fn what_it_is_asked() {
        let install = Install {
            names: vec![("a", None), ("b", Some("1.2*".into()))],
            recommends: Some(false),
            ..Install::default()
        };
        let asked = "dnf -q -y --setopt=install_weak_deps=False install a b-1.2*";
        assert_eq!(Dnf.install(&install).join(" "), asked);
        let upgrade = Install { names: vec![("a", None)], upgrade: true, ..Install::default() };
        assert_eq!(Dnf.install(&upgrade).join(" "), "dnf -q -y upgrade a");
        let asked = "dnf -q -y --setopt=clean_requirements_on_remove=False remove a b";
        assert_eq!(Dnf.remove(&["a", "b"], false).join(" "), asked);
        let asked = "dnf -q repoquery --installed --whatrequires a,b --recursive --qf %{name}\\n";
        assert_eq!(Dnf.preview(&["a", "b"], false).unwrap().join(" "), asked);
        assert_eq!(Dnf.hold(&["a"], true).join(" "), "dnf -q -y versionlock add a");
    }

    #[test]
    fn what_went_wrong() {
        let four = "No match for argument: nosuch\nError: Unable to find a match: nosuch\n";
        let five = "Failed to resolve the transaction:\nNo match for argument: nosuch\n";
        assert_eq!([four, five].map(|out| Dnf.unknown(out).unwrap()), ["nosuch", "nosuch"]);
        assert_eq!(Dnf.cause(four), "Error: Unable to find a match: nosuch");
        assert!(Dnf.is_locked(
            "error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)"
        ));
    }
}
