//! The commands for a package manager, and how their outputs are parsed.
//!
//! In: names, options, text. Out: command lines, and the content of their output. Nothing here runs anything, so that a backend
//! is tested without its package manager. A name never begins with `-`: the planner has checked the parameters.

use std::collections::{BTreeMap, BTreeSet};

/// A program and its arguments.
pub(super) type CommandLine = Vec<String>;

/// The command lines of one package manager, and how to read what it prints.
pub(super) trait Backend: Sync {
    /// The program whose presence shows that the host has it; also its name for people.
    fn program(&self) -> &'static str;

    /// Lists all installed packages.
    fn list(&self) -> CommandLine;
    fn read_list(&self, out: &str) -> Installed;

    /// Fetches the index.
    fn refresh(&self) -> CommandLine;

    /// The folders of the index: their age is its age.
    fn index(&self) -> &'static [&'static str];

    /// Lists the versions that the index has of `names`, to find one that is `wanted` among them; `None` if installing accepts
    /// patterns itself and names unknown packages.
    fn versions(&self, _names: &[&str], _wanted: bool) -> Option<CommandLine> {
        None
    }
    fn read_versions(&self, _out: &str) -> BTreeMap<String, Versions> {
        BTreeMap::new()
    }

    /// Lists the packages of which the index has a newer version.
    fn upgrades(&self, names: &[&str]) -> CommandLine;
    fn read_upgrades(&self, out: &str) -> BTreeSet<String>;

    /// Installs in one transaction.
    fn install(&self, install: &Install<'_>) -> CommandLine;

    /// Whether the install command also upgrades installed packages.
    fn installs_newer(&self) -> bool;

    /// Lists what would be removed with `names`, including packages that were installed only for them if `wide`; `None` if that
    /// cannot be listed, and removing refuses by itself to remove more.
    fn preview(&self, _names: &[&str], _wide: bool) -> Option<CommandLine> {
        None
    }
    fn read_preview(&self, _out: &str) -> BTreeSet<String> {
        BTreeSet::new()
    }
    fn remove(&self, names: &[&str], purge: bool) -> CommandLine;

    /// Lists held packages; `None` if the package manager has no holds.
    fn held(&self) -> Option<CommandLine>;
    fn read_held(&self, out: &str) -> BTreeSet<String>;
    fn hold(&self, names: &[&str], hold: bool) -> CommandLine;

    /// Lists the packages that were chosen by hand, and so are not removed when no other package needs them any more; `None` if the package
    /// manager does not distinguish them.
    fn chosen(&self) -> Option<CommandLine> {
        None
    }
    fn read_chosen(&self, out: &str, _: &Installed) -> BTreeSet<String> {
        out.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Marks installed packages as chosen by hand, or as dependencies of others.
    fn choose(&self, _names: &[&str], _chosen: bool) -> CommandLine {
        Vec::new()
    }

    /// The packages to choose from, if it failed because a name is that of a virtual package.
    fn providers(&self, _output: &str) -> Vec<String> {
        Vec::new()
    }

    /// Environment variables of its programs.
    fn env(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The lock files of its programs, to find out which process holds them (fcntl(2)).
    fn locks(&self) -> &'static [&'static str] {
        &[]
    }

    /// Completes an interrupted installation; `None` if that is never needed.
    fn complete_interrupted(&self) -> Option<CommandLine> {
        None
    }

    /// Whether it failed because another process holds its lock.
    fn is_locked(&self, output: &str) -> bool;

    /// The unknown name, if it failed because of one.
    fn unknown(&self, output: &str) -> Option<String>;

    /// The lines of its output that explain why it failed.
    fn cause(&self, output: &str) -> String;
}

/// A request to install packages.
#[derive(Debug, Default)]
pub(super) struct Install<'a> {
    /// Names, each with the wanted version or pattern.
    pub(super) names: Vec<(&'a str, Option<String>)>,
    /// Whether they are installed and are to be upgraded.
    pub(super) upgrade: bool,
    pub(super) recommends: Option<bool>,
    /// Whether held packages may change.
    pub(super) change_held: bool,
}

impl<'a> Install<'a> {
    /// A command line of `words` and the names, each joined to its version with `with`.
    pub(super) fn words(&self, words: &[&str], with: impl Fn(&'a str, &str) -> String) -> CommandLine {
        let names = self.names.iter().map(|(name, version)| match version {
            Some(version) => with(name, version),
            None => (*name).to_owned(),
        });
        words.iter().map(|&word| word.to_owned()).chain(names).collect()
    }
}

/// The versions of a package in the index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Versions {
    /// The one that would be installed; `None` for a name that only other packages provide.
    pub(super) candidate: Option<String>,
    /// All versions, the newest first.
    pub(super) all: Vec<String>,
}

/// What the package manager lists as installed.
#[derive(Debug, Default)]
pub(super) struct Installed {
    packages: BTreeMap<String, Found>,
    /// Names that installed packages provide, each with those packages.
    provided: BTreeMap<String, BTreeSet<String>>,
    /// Whether an installation was interrupted.
    pub(super) interrupted: bool,
}

/// A package found on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) version: String,
    pub(super) state: FoundState,
}

/// How far a package is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundState {
    Complete,
    /// Partly installed or configured.
    Partial,
    /// Removed, except for its configuration files.
    Configuration,
}

impl Installed {
    pub(super) fn add(&mut self, name: &str, version: &str, state: FoundState) {
        self.packages.insert(name.to_owned(), Found { version: version.to_owned(), state });
    }

    /// Adds that the package `by` provides `name`.
    pub(super) fn provide(&mut self, name: &str, by: &str) {
        self.provided.entry(name.to_owned()).or_default().insert(by.to_owned());
    }

    /// The installed packages that provide `name`, which is not the name of any of them.
    pub(super) fn providers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.provided.get(name).into_iter().flatten().map(String::as_str).filter(move |by| *by != name)
    }

    /// Whether `name` is installed, in a version that matches `version`. A name that another package provides has no version.
    pub(super) fn has(&self, name: &str, version: Option<&str>) -> bool {
        match self.packages.get(name).filter(|found| found.state != FoundState::Configuration) {
            Some(found) => {
                found.state == FoundState::Complete && version.is_none_or(|wanted| is_like(&found.version, wanted))
            }
            None => version.is_none() && self.provided.contains_key(name),
        }
    }

    /// The names of all installed packages.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.packages.keys().map(String::as_str).filter(|name| self.is_there(name))
    }

    /// The package `name` itself, if any part of it is on the host.
    pub(super) fn find(&self, name: &str) -> Option<&Found> {
        self.packages.get(name)
    }

    /// Whether more of `name` is on the host than its configuration files.
    pub(super) fn is_there(&self, name: &str) -> bool {
        self.find(name).is_some_and(|found| found.state != FoundState::Configuration)
    }
}

/// Whether `version` matches `pattern`, in which `*` matches any characters. The epoch may be left out (deb-version(7)).
pub(super) fn is_like(version: &str, pattern: &str) -> bool {
    let without_epoch = version.split_once(':').map(|(_, rest)| rest);
    matches(version, pattern) || without_epoch.is_some_and(|version| matches(version, pattern))
}

fn matches(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(text) = text.strip_prefix(first) else { return false };
    (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(&text[at..], rest))
}

/// A command line of a program, its arguments, and names after them.
pub(super) fn words(words: &[&str], names: &[&str]) -> CommandLine {
    words.iter().chain(names).map(|&word| word.to_owned()).collect()
}

/// The last few lines of `output` for which `explains` is true; the last line if there are none.
pub(super) fn explanation(output: &str, explains: impl Fn(&str) -> bool) -> String {
    const MOST: usize = 6;
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut found: Vec<&str> = lines.iter().copied().filter(|line| explains(line)).collect();
    found.dedup();
    match found.len() {
        0 => lines.last().copied().unwrap_or_default().to_owned(),
        n => found[n.saturating_sub(MOST)..].join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_matched_by_patterns() {
        for (version, pattern) in [
            ("1.2-3", "1.2-3"),
            ("1.2-3", "1.2*"),
            ("1.2-3", "1.2-3*"),
            ("1:10.11.6-0+deb12u1", "10.11*"),
            ("1:10.11.6-0+deb12u1", "1:10.11*"),
            ("1.2-3", "*-3"),
            ("1.2-3", "1*2*3"),
            ("1.2-3", "*"),
        ] {
            assert!(is_like(version, pattern), "{version} {pattern}");
        }
        for (version, pattern) in
            [("1.20", "1.2"), ("1.2-3", "1.3*"), ("11.2", "1.*"), ("2:1.2", "1:1.2"), ("1", "1.*")]
        {
            assert!(!is_like(version, pattern), "{version} {pattern}");
        }
    }

    #[test]
    fn a_name_that_is_provided_has_no_version() {
        let mut installed = Installed::default();
        installed.add("postfix", "3.7", FoundState::Complete);
        installed.add("half", "1", FoundState::Partial);
        installed.add("removed", "1", FoundState::Configuration);
        installed.provide("mail-transport-agent", "postfix");
        assert!(installed.has("postfix", Some("3.*")) && installed.has("mail-transport-agent", None));
        assert_eq!(installed.providers("mail-transport-agent").collect::<Vec<_>>(), ["postfix"]);
        assert!(!installed.has("mail-transport-agent", Some("3.*")) && !installed.has("postfix", Some("4")));
        assert!(!installed.has("half", None) && installed.is_there("half"));
        assert!(
            !installed.has("removed", None) && !installed.is_there("removed") && installed.find("removed").is_some()
        );
    }
}
