//! What a package manager is asked, and how its answers read.
//!
//! In: names, options, text. Out: programs with their arguments, and what their output says. Nothing here runs anything, so
//! that a backend is tested without its package manager. A name never begins with `-`; the parameters are checked before.

use std::collections::{BTreeMap, BTreeSet};

/// A program and its arguments.
pub(super) type Words = Vec<String>;

/// A package manager.
pub(super) trait Backend: Sync {
    /// The program that tells whether a host has it, and its name for people.
    fn program(&self) -> &'static str;

    /// Lists all that is installed.
    fn list(&self) -> Words;
    fn read_list(&self, out: &str) -> Installed;

    /// Fetches the index.
    fn refresh(&self) -> Words;

    /// The folders that the index lies in: their age is its age.
    fn index(&self) -> &'static [&'static str];

    /// Tells which versions the index has of `names`, to find one that is `wanted` among them; `None` where installing takes
    /// what is wanted as it is and says itself what it does not know.
    fn versions(&self, _names: &[&str], _wanted: bool) -> Option<Words> {
        None
    }
    fn read_versions(&self, _out: &str) -> BTreeMap<String, Versions> {
        BTreeMap::new()
    }

    /// Tells of which packages the index has something newer.
    fn upgrades(&self, names: &[&str]) -> Words;
    fn read_upgrades(&self, out: &str) -> BTreeSet<String>;

    /// Installs in one transaction.
    fn install(&self, install: &Install<'_>) -> Words;

    /// Whether installing also brings what is there to a newer version.
    fn installs_newer(&self) -> bool;

    /// Tells what goes when `names` go, with all that came for their sake alone if that is `wide`; `None` where it cannot be
    /// told, and removing refuses by itself to take more away.
    fn preview(&self, _names: &[&str], _wide: bool) -> Option<Words> {
        None
    }
    fn read_preview(&self, _out: &str) -> BTreeSet<String> {
        BTreeSet::new()
    }
    fn remove(&self, names: &[&str], purge: bool) -> Words;

    /// Tells which are held; `None` where there is no such thing.
    fn held(&self) -> Option<Words>;
    fn read_held(&self, out: &str) -> BTreeSet<String>;
    fn hold(&self, names: &[&str], hold: bool) -> Words;

    /// What its programs find in their environment.
    fn env(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The lock files that its programs take, to see who holds them (fcntl(2)).
    fn locks(&self) -> &'static [&'static str] {
        &[]
    }

    /// Brings to an end what was interrupted; `None` where nothing need be done.
    fn put_right(&self) -> Option<Words> {
        None
    }

    /// Whether it failed because somebody else is at work.
    fn is_locked(&self, output: &str) -> bool;

    /// The name that it does not know, if it failed because of that.
    fn unknown(&self, output: &str) -> Option<String>;

    /// The lines that say why it failed.
    fn cause(&self, output: &str) -> String;
}

/// What to install.
#[derive(Debug, Default)]
pub(super) struct Install<'a> {
    /// Names, each with the version or pattern that is wanted.
    pub(super) names: Vec<(&'a str, Option<String>)>,
    /// Whether they are there and are to become newer.
    pub(super) upgrade: bool,
    pub(super) recommends: Option<bool>,
    /// Whether packages that are held may change.
    pub(super) change_held: bool,
}

impl<'a> Install<'a> {
    /// `words`, and the names after them, each joined to its version by `with`.
    pub(super) fn words(&self, words: &[&str], with: impl Fn(&'a str, &str) -> String) -> Words {
        let names = self.names.iter().map(|(name, version)| match version {
            Some(version) => with(name, version),
            None => (*name).to_owned(),
        });
        words.iter().map(|&word| word.to_owned()).chain(names).collect()
    }
}

/// Which versions the index has of a package.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Versions {
    /// The one that would be installed; `None` for a name that only other packages provide.
    pub(super) candidate: Option<String>,
    /// All, the newest first.
    pub(super) all: Vec<String>,
}

/// All that is installed.
#[derive(Debug, Default)]
pub(super) struct Installed {
    packages: BTreeMap<String, Found>,
    /// Names that installed packages provide.
    provided: BTreeSet<String>,
    /// Whether something was begun and not ended.
    pub(super) interrupted: bool,
}

/// A package that was found on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) version: String,
    pub(super) state: FoundState,
}

/// How far a package is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundState {
    Complete,
    /// Some way between.
    Partial,
    /// Only its configuration files are left.
    Configuration,
}

impl Installed {
    pub(super) fn add(&mut self, name: &str, version: &str, state: FoundState) {
        self.packages.insert(name.to_owned(), Found { version: version.to_owned(), state });
    }

    pub(super) fn provide(&mut self, name: &str) {
        self.provided.insert(name.to_owned());
    }

    /// Whether `name` is installed, in a version like `version`. A name that a package provides has no version.
    pub(super) fn has(&self, name: &str, version: Option<&str>) -> bool {
        match self.packages.get(name).filter(|found| found.state != FoundState::Configuration) {
            Some(found) => {
                found.state == FoundState::Complete && version.is_none_or(|wanted| is_like(&found.version, wanted))
            }
            None => version.is_none() && self.provided.contains(name),
        }
    }

    /// The names of all that is there.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.packages.keys().map(String::as_str).filter(|name| self.is_there(name))
    }

    /// The package `name` itself, if any part of it is there.
    pub(super) fn find(&self, name: &str) -> Option<&Found> {
        self.packages.get(name)
    }

    /// Whether more of `name` is there than its configuration files.
    pub(super) fn is_there(&self, name: &str) -> bool {
        self.find(name).is_some_and(|found| found.state != FoundState::Configuration)
    }
}

/// Whether `version` is `pattern`, in which `*` stands for any characters. The epoch may be left out (deb-version(7)).
pub(super) fn is_like(version: &str, pattern: &str) -> bool {
    let without_epoch = version.split_once(':').map(|(_, rest)| rest);
    matches(version, pattern) || without_epoch.is_some_and(|version| matches(version, pattern))
}

fn matches(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(text) = text.strip_prefix(first) else { return false };
    (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(&text[at..], rest))
}

/// A program with its arguments, and names after them.
pub(super) fn words(words: &[&str], names: &[&str]) -> Words {
    words.iter().chain(names).map(|&word| word.to_owned()).collect()
}

/// The lines of `output` that `tells` finds telling, the last few of them; the last line where it finds none.
pub(super) fn telling(output: &str, tells: impl Fn(&str) -> bool) -> String {
    const MOST: usize = 6;
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut told: Vec<&str> = lines.iter().copied().filter(|line| tells(line)).collect();
    told.dedup();
    match told.len() {
        0 => lines.last().copied().unwrap_or_default().to_owned(),
        n => told[n.saturating_sub(MOST)..].join("; "),
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
        installed.add("gone", "1", FoundState::Configuration);
        installed.provide("mail-transport-agent");
        assert!(installed.has("postfix", Some("3.*")) && installed.has("mail-transport-agent", None));
        assert!(!installed.has("mail-transport-agent", Some("3.*")) && !installed.has("postfix", Some("4")));
        assert!(!installed.has("half", None) && installed.is_there("half"));
        assert!(!installed.has("gone", None) && !installed.is_there("gone") && installed.find("gone").is_some());
    }
}
