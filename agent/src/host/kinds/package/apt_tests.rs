//! The commands for apt, and its outputs as recorded on Debian 12.

use super::{
    apt::Apt,
    backend::{Backend, Install},
};

const LIST: &str = "\
ii |apt|apt|2.6.1|apt-transport-https (= 2.6.1)
hi |bash|bash|5.2.15-2+b13|
ii |libc6|libc6:amd64|2.36-9+deb12u14|libc6-2.36
ii |libc6|libc6:i386|2.36-9+deb12u14|libc6-2.36
rc |nano|nano|7.2-1|editor
iU |half|half|1.0|
";

const POLICY: &str = "\
bash:
  Installed: 5.2.15-2+b12
  Candidate: 5.2.15-2+b13
  Version table:
     5.2.15-2+b13 500
        500 http://mirror.example.org/debian bookworm/main amd64 Packages
 *** 5.2.15-2+b12 100
        100 /var/lib/dpkg/status
mail-transport-agent:
  Installed: (none)
  Candidate: (none)
  Version table:
hello:
  Installed: (none)
  Candidate: 2.10-3
  Version table:
     2.10-3 500
        500 http://mirror.example.org/debian bookworm/main amd64 Packages
";

#[test]
fn what_is_installed() {
    let installed = Apt.read_list(LIST);
    assert!(["apt", "bash", "libc6", "libc6:i386", "apt-transport-https"].iter().all(|name| installed.has(name, None)));
    assert!(installed.has("bash", Some("5.2*")) && !installed.has("bash", Some("5.3*")));
    assert!(!installed.is_there("nano") && installed.find("nano").is_some() && !installed.has("editor", None));
    assert!(installed.interrupted && installed.is_there("half") && !installed.has("half", None));
    assert!(!Apt.read_list("ii |apt|apt|2.6.1|\n").interrupted);
}

#[test]
fn what_was_chosen_by_hand() {
    let states = "Package: apt-transport-https\nArchitecture: m68k\nAuto-Installed: 1\n\n\
                  Package: libc6\nArchitecture: i386\nAuto-Installed: 1\n\n\
                  Package: bash\nArchitecture: m68k\nAuto-Installed: 0\n";
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => return,
    };
    let list = format!(
        "ii |apt|apt|1|\nii |bash|bash|1|\nii |libc6|libc6:{own}|1|\nii |libc6|libc6:i386|1|\nii |nano|nano|1|\n"
    );
    let states = states.replace("m68k", own).replace("apt-transport-https", "nano");
    let chosen = Apt.read_chosen(&states, &Apt.read_list(&list));
    assert_eq!(Vec::from_iter(chosen), ["apt", "bash", "libc6", &format!("libc6:{own}")]);
    assert_eq!(Apt.read_chosen("", &Apt.read_list("ii |apt|apt|1|\n")).len(), 1);
}

#[test]
fn what_the_index_has() {
    let versions = Apt.read_versions(POLICY);
    assert_eq!(versions["bash"].all, ["5.2.15-2+b13", "5.2.15-2+b12"]);
    assert_eq!(versions["mail-transport-agent"].candidate, None);
    assert_eq!(versions["hello"].candidate.as_deref(), Some("2.10-3"));
    // A package that is not installed counts as outdated; callers pass only installed ones.
    assert_eq!(Vec::from_iter(Apt.read_upgrades(POLICY)), ["bash", "hello"]);
}

#[test]
fn what_it_is_asked() {
    let install = Install {
        names: vec![("a", None), ("b", Some("1:2-3".into()))],
        recommends: Some(false),
        change_held: true,
        ..Install::default()
    };
    let words = Apt.install(&install).join(" ");
    assert!(words.starts_with("apt-get -y -q -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "));
    let tail =
        "--no-remove --no-install-recommends --allow-downgrades --allow-change-held-packages install -- a b=1:2-3";
    assert!(words.ends_with(tail), "{words}");
    assert!(!Apt.install(&Install { names: vec![("a", None)], ..Install::default() }).join(" ").contains("--allow"));
    assert_eq!(Apt.choose(&["a"], true).join(" "), "apt-mark manual a");
    assert!(Apt.remove(&["a"], true).join(" ").ends_with("AutomaticRemove=false purge -- a"));
}

#[test]
fn what_would_go() {
    let out = "Reading package lists...\nThe following packages will be REMOVED:\n  perl perl-base\n\
               Remv perl [5.36.0-7]\nRemv perl-base [5.36.0-7+deb12u3] [dpkg:amd64 ]\n";
    assert_eq!(Vec::from_iter(Apt.read_preview(out)), ["perl", "perl-base"]);
}

#[test]
fn finds_the_cause_of_a_failure() {
    let unknown = "Reading package lists...\nE: Unable to locate package nosuch\n";
    assert_eq!(Apt.unknown(unknown).unwrap(), "nosuch");
    let virtual_only = "Package nosuch is not available, but is referred to by another package.\n\n\
                        E: Package 'nosuch' has no installation candidate\n";
    assert_eq!(Apt.unknown(virtual_only).unwrap(), "nosuch");
    let failing = "dpkg: error processing package broken (--configure):\n installed broken package post-installation script \
                   subprocess returned error exit status 3\nErrors were encountered while processing:\n broken\n\
                   E: Sub-process /usr/bin/dpkg returned an error code (1)\n";
    let cause = "dpkg: error processing package broken (--configure):; installed broken package post-installation script \
                 subprocess returned error exit status 3";
    assert_eq!((Apt.unknown(failing), Apt.cause(failing).as_str()), (None, cause));
    let conflict = "Some packages could not be installed. This may mean that you have\nrequested an impossible situation.\n\
                    The following packages have unmet dependencies:\n gp-anti : Conflicts: gp-late but 1.0 is to be installed\n\
                    E: Unable to correct problems, you have held broken packages.\n";
    let cause = "The following packages have unmet dependencies:; gp-anti : Conflicts: gp-late but 1.0 is to be installed; \
                 E: Unable to correct problems, you have held broken packages.";
    assert_eq!(Apt.cause(conflict), cause);
    let several = "Package mta is a virtual package provided by:\n  postfix 3.7\n  exim4 4.96 (= 4.96)\n\
                   You should explicitly select one to install.\n\nE: Package 'mta' has no installation candidate\n";
    assert_eq!(Apt.providers(several), ["postfix", "exim4"]);
    assert!(Apt.providers(virtual_only).is_empty());
    let removing = "The following packages will be REMOVED:\n  exim4-base exim4-config\nThe following NEW packages:\n  postfix\n\
                    E: Packages need to be removed but remove is disabled.\n";
    assert!(Apt.cause(removing).starts_with("it would remove exim4-base, exim4-config; "));
    let locked = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (apt-get)\n\
                  E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n";
    assert!(Apt.is_locked(locked) && !Apt.is_locked(unknown));
}
