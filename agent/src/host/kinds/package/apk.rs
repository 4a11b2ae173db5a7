//! apk: Alpine (apk(8)).
//!
//! Arguments and parsing are tested with recorded outputs of apk; it has not been run on a real host. apk has no holds: the world
//! file itself keeps a given version.

use std::collections::BTreeSet;

use super::backend::{Backend, CommandLine, FoundState, Install, Installed, explanation, words};

/// apk as a backend; it has no state.
pub(super) struct Apk;

impl Backend for Apk {
    fn program(&self) -> &'static str {
        "apk"
    }

    fn list(&self) -> CommandLine {
        words(&["apk", "list", "--installed"], &[])
    }

    /// Lines such as `busybox-1.36.1-r29 x86_64 {busybox} (GPL-2.0-only) [installed]`.
    fn read_list(&self, out: &str) -> Installed {
        let mut installed = Installed::default();
        let whole = out.lines().filter_map(|line| line.split(' ').next());
        for (name, version) in whole.filter_map(split) {
            installed.add(name, version, FoundState::Complete);
        }
        installed
    }

    fn refresh(&self) -> CommandLine {
        words(&["apk", "-q", "update"], &[])
    }

    fn index(&self) -> &'static [&'static str] {
        &["/var/cache/apk", "/etc/apk/cache"]
    }

    /// For all packages: this command takes no names.
    fn upgrades(&self, _: &[&str]) -> CommandLine {
        words(&["apk", "version", "-l", "<"], &[])
    }

    /// Lines such as `busybox-1.36.1-r28     < 1.36.1-r29`, below a heading.
    fn read_upgrades(&self, out: &str) -> BTreeSet<String> {
        let rows = out.lines().filter(|line| line.contains(" < "));
        rows.filter_map(|line| split(line.split_whitespace().next()?)).map(|(name, _)| name.to_owned()).collect()
    }

    fn install(&self, install: &Install<'_>) -> CommandLine {
        let mut command = vec!["apk", "-q", "add"];
        if install.upgrade {
            command.push("--upgrade");
        }
        // `~` matches versions by their beginning, the only pattern that apk supports.
        install.words(&command, |name, version| match version.strip_suffix('*') {
            Some(begin) => format!("{name}~{}", begin.trim_end_matches('.')),
            None => format!("{name}={version}"),
        })
    }

    fn installs_newer(&self) -> bool {
        true
    }

    fn remove(&self, names: &[&str], purge: bool) -> CommandLine {
        let command: &[&str] = if purge { &["apk", "-q", "del", "--purge"] } else { &["apk", "-q", "del"] };
        words(command, names)
    }

    fn held(&self) -> Option<CommandLine> {
        None
    }

    fn read_held(&self, _: &str) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn hold(&self, _: &[&str], _: bool) -> CommandLine {
        Vec::new()
    }

    /// The world file: what was asked for, each with a version or a repository after it.
    fn chosen(&self) -> Option<CommandLine> {
        Some(words(&["cat", "/etc/apk/world"], &[]))
    }

    fn read_chosen(&self, out: &str, _: &Installed) -> BTreeSet<String> {
        let name = |word: &str| word.split(['=', '<', '>', '~', '@']).next().unwrap_or_default().to_owned();
        out.split_whitespace().map(name).collect()
    }

    /// `del` leaves what another package needs.
    fn choose(&self, names: &[&str], chosen: bool) -> CommandLine {
        words(&["apk", "-q", if chosen { "add" } else { "del" }], names)
    }

    fn is_locked(&self, output: &str) -> bool {
        output.contains("Unable to lock database")
    }

    fn unknown(&self, output: &str) -> Option<String> {
        let line = output.lines().find(|line| line.contains("(no such package)"))?;
        line.split_whitespace().next().map(str::to_owned)
    }

    fn cause(&self, output: &str) -> String {
        let explains = |line: &str| line.contains("ERROR:") || line.contains("required by") || line.contains("breaks:");
        explanation(output, explains)
    }
}

/// Name and version in `name-1.2.3-r4`.
fn split(whole: &str) -> Option<(&str, &str)> {
    let (rest, release) = whole.rsplit_once('-').filter(|(_, release)| release.starts_with('r'))?;
    let (name, version) = rest.rsplit_once('-')?;
    Some((name, &whole[name.len() + 1..name.len() + 1 + version.len() + 1 + release.len()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_and_what_is_newer() {
        let out = "ca-certificates-bundle-20240226-r0 x86_64 {ca-certificates} (MPL-2.0 AND MIT) [installed]\n\
                   libcrypto3-3.3.1-r0 x86_64 {openssl} (Apache-2.0) [installed]\n";
        let installed = Apk.read_list(out);
        assert!(
            installed.has("ca-certificates-bundle", Some("20240226-r0")) && installed.has("libcrypto3", Some("3.3*"))
        );
        assert!(!installed.has("ca-certificates", None));
        let out = "Installed:                                Available:\n\
                   busybox-1.36.1-r28                      < 1.36.1-r29 \n";
        assert_eq!(Vec::from_iter(Apk.read_upgrades(out)), ["busybox"]);
    }

    #[test]
    fn what_it_is_asked() {
        let names =
            vec![("a", None), ("b", Some("1.2*".into())), ("c", Some("1.2.*".into())), ("d", Some("1-r0".into()))];
        let install = Install { names, ..Install::default() };
        assert_eq!(Apk.install(&install).join(" "), "apk -q add a b~1.2 c~1.2 d=1-r0");
        let upgrade = Install { names: vec![("a", None)], upgrade: true, ..Install::default() };
        assert_eq!(Apk.install(&upgrade).join(" "), "apk -q add --upgrade a");
        assert_eq!(
            Vec::from_iter(Apk.read_chosen("a b=1-r0\nc~1.2 d@edge\n", &Installed::default())),
            ["a", "b", "c", "d"]
        );
        assert_eq!(Apk.remove(&["a"], true).join(" "), "apk -q del --purge a");
    }

    #[test]
    fn what_went_wrong() {
        let out = "ERROR: unable to select packages:\n  nosuch (no such package):\n    required by: world[nosuch]\n";
        assert_eq!(Apk.unknown(out).unwrap(), "nosuch");
        assert_eq!(Apk.cause(out), "ERROR: unable to select packages:; required by: world[nosuch]");
        assert!(Apk.is_locked("ERROR: Unable to lock database: Resource temporarily unavailable"));
    }
}
