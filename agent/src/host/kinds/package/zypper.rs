//! zypper and rpm: SUSE and openSUSE (zypper(8), rpm(8)).
//!
//! It is run by a test on Debian, with a database and a repository of its own; newer versions only by recorded outputs.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    backend::{Backend, CommandLine, Install, Installed, Versions, explanation, words},
    dnf::Dnf,
};

/// zypper as a backend; it has no state.
pub(super) struct Zypper;

impl Backend for Zypper {
    fn program(&self) -> &'static str {
        "zypper"
    }

    fn list(&self) -> CommandLine {
        Dnf.list()
    }

    fn read_list(&self, out: &str) -> Installed {
        Dnf.read_list(out)
    }

    fn refresh(&self) -> CommandLine {
        words(&["zypper", "-n", "-q", "refresh"], &[])
    }

    fn index(&self) -> &'static [&'static str] {
        &["/var/cache/zypp/solv", "/var/cache/zypp/raw"]
    }

    fn versions(&self, names: &[&str], wanted: bool) -> Option<CommandLine> {
        let search = ["zypper", "-n", "-q", "--no-refresh", "search", "-s", "-t", "package", "--match-exact"];
        wanted.then(|| words(&search, names))
    }

    /// A table `S | Name | Type | Version | Arch | Repository`, the newest version first.
    fn read_versions(&self, out: &str) -> BTreeMap<String, Versions> {
        let mut found: BTreeMap<String, Versions> = BTreeMap::new();
        for row in rows(out).filter(|row| row.len() >= 6 && row[2] == "package") {
            let versions = found.entry(row[1].to_owned()).or_default();
            let version = row[3].to_owned();
            versions.candidate.get_or_insert_with(|| version.clone());
            if !versions.all.contains(&version) {
                versions.all.push(version);
            }
        }
        found
    }

    /// For all packages: this command takes no names.
    fn upgrades(&self, _: &[&str]) -> CommandLine {
        words(&["zypper", "-n", "-q", "--no-refresh", "list-updates"], &[])
    }

    /// A table `S | Repository | Name | Current Version | Available Version | Arch`.
    fn read_upgrades(&self, out: &str) -> BTreeSet<String> {
        rows(out).filter(|row| row.len() >= 6 && row[0] == "v").map(|row| row[2].to_owned()).collect()
    }

    fn install(&self, install: &Install<'_>) -> CommandLine {
        let mut command = vec!["zypper", "-n", "-q", if install.upgrade { "update" } else { "install" }];
        command.push("--auto-agree-with-licenses");
        match install.recommends {
            Some(true) => command.push("--recommends"),
            Some(false) => command.push("--no-recommends"),
            None => {}
        }
        if install.names.iter().any(|(_, version)| version.is_some()) {
            command.push("--oldpackage");
        }
        install.words(&command, |name, version| format!("{name}={version}"))
    }

    fn installs_newer(&self) -> bool {
        false
    }

    fn preview(&self, names: &[&str], _: bool) -> Option<CommandLine> {
        Some(words(&["zypper", "-n", "--no-refresh", "remove", "--dry-run", "--no-clean-deps"], names))
    }

    /// The names on the lines after `The following N packages are going to be REMOVED:`, up to an empty one.
    fn read_preview(&self, out: &str) -> BTreeSet<String> {
        let after = out.lines().skip_while(|line| !line.ends_with("going to be REMOVED:")).skip(1);
        let names = after.take_while(|line| !line.trim().is_empty());
        names.flat_map(str::split_whitespace).map(str::to_owned).collect()
    }

    fn remove(&self, names: &[&str], _: bool) -> CommandLine {
        words(&["zypper", "-n", "-q", "remove", "--no-clean-deps"], names)
    }

    fn held(&self) -> Option<CommandLine> {
        Some(words(&["zypper", "-n", "-q", "locks"], &[]))
    }

    /// A table `# | Name | Type | Repository | Comment`.
    fn read_held(&self, out: &str) -> BTreeSet<String> {
        rows(out).filter(|row| row.len() >= 4 && row[0] != "#").map(|row| row[1].to_owned()).collect()
    }

    fn hold(&self, names: &[&str], hold: bool) -> CommandLine {
        words(&["zypper", "-n", "-q", if hold { "addlock" } else { "removelock" }], names)
    }

    fn is_locked(&self, output: &str) -> bool {
        output.contains("System management is locked")
    }

    fn unknown(&self, output: &str) -> Option<String> {
        let is_unknown = |line: &&str| line.contains("not found") || line.starts_with("No provider of");
        let line = output.lines().filter(is_unknown).find(|line| line.contains('\''))?;
        line.split('\'').nth(1).map(str::to_owned)
    }

    fn cause(&self, output: &str) -> String {
        let marks = ["Problem", "error", "Error", "nothing provides", "not found", "Abort"];
        explanation(output, |line| marks.iter().any(|word| line.contains(word)))
    }
}

/// The rows of a table, each by its columns; the line of dashes is left out.
fn rows(out: &str) -> impl Iterator<Item = Vec<&str>> {
    out.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>()).filter(|row| row.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let search = "S  | Name | Type    | Version      | Arch   | Repository\n\
                      ---+------+---------+--------------+--------+-----------\n\
                      v  | vim  | package | 9.1.0330-1.1 | x86_64 | Update\n\
                      i+ | vim  | package | 9.0.2103-1.1 | x86_64 | Main\n";
        let versions = &Zypper.read_versions(search)["vim"];
        assert_eq!((versions.candidate.as_deref(), versions.all.len()), (Some("9.1.0330-1.1"), 2));
        let updates = "S | Repository | Name | Current Version | Available Version | Arch\n\
                       --+------------+------+-----------------+-------------------+-------\n\
                       v | Update     | vim  | 9.0.2103-1.1    | 9.1.0330-1.1      | x86_64\n";
        assert_eq!(Vec::from_iter(Zypper.read_upgrades(updates)), ["vim"]);
        let locks = "# | Name | Type    | Repository | Comment\n--+------+---------+------------+--------\n1 | vim  | package | (any)      |\n";
        assert_eq!(Vec::from_iter(Zypper.read_held(locks)), ["vim"]);
    }

    #[test]
    fn what_would_go() {
        let out = "Reading installed packages...\nResolving package dependencies...\n\n\
                   The following 2 packages are going to be REMOVED:\n  vim vim-data\n\n2 packages to remove.\n";
        assert_eq!(Vec::from_iter(Zypper.read_preview(out)), ["vim", "vim-data"]);
    }

    #[test]
    fn what_it_is_asked() {
        let names = vec![("a", None), ("b", Some("1.2-1".into()))];
        let install = Install { names, recommends: Some(false), ..Install::default() };
        let asked = "zypper -n -q install --auto-agree-with-licenses --no-recommends --oldpackage a b=1.2-1";
        assert_eq!(Zypper.install(&install).join(" "), asked);
        assert_eq!(Zypper.remove(&["a"], false).join(" "), "zypper -n -q remove --no-clean-deps a");
    }

    #[test]
    fn what_went_wrong() {
        let out = "'nosuch' not found in package names. Trying capabilities.\nNo provider of 'nosuch' found.\n";
        assert_eq!(Zypper.unknown(out).unwrap(), "nosuch");
        assert_eq!(Zypper.unknown("No provider of 'nosuch' found.\n").unwrap(), "nosuch");
        let locked = "System management is locked by the application with pid 1234 (zypper).";
        assert!(Zypper.is_locked(locked));
    }
}
