//! Packages by the real dnf and zypper, from a repository on the host itself. The host is Debian without its apt: what these programs
//! do with rpm's own database is what they do elsewhere.

use groundplan_tests::{
    hosts::{Hosts, Image},
    needs_hosts,
};

use super::{NOTHING, drifted, recheck};

/// Makes packages in `/srv/repo`, with an index; both programs are configured to use it.
const REPOSITORY: &str = r#"
set -e
mkdir -p /srv/repo /etc/yum.repos.d /etc/zypp/repos.d
make() {
    {
        printf 'Name: %s\nVersion: %s\nRelease: 1\nSummary: test\nLicense: none\nBuildArch: noarch\n' $1 $2
        [ -z "$3" ] || echo "Requires: $3"
        [ -z "$4" ] || echo "$4"
        printf '%%description\ntest\n%%files\n/usr/share/gp/%s\n%%install\n' $1
        printf 'mkdir -p %%{buildroot}/usr/share/gp\necho %s > %%{buildroot}/usr/share/gp/%s\n' $2 $1
    } > /srv/$1.spec
    rpmbuild --quiet -bb --define '_topdir /srv/build' --define '_rpmdir /srv/repo' /srv/$1.spec
}
index() { createrepo_c --quiet /srv/repo; }
printf '[local]\nname=local\nbaseurl=file:///srv/repo\nenabled=1\ngpgcheck=0\n' > /etc/yum.repos.d/local.repo
cp /etc/yum.repos.d/local.repo /etc/zypp/repos.d/local.repo
[ ! -e /etc/dnf/plugins/local.conf ] || sed -i 's/enabled = true/enabled = false/' /etc/dnf/plugins/local.conf
"#;

fn publish(hosts: &Hosts, packages: &[&str]) {
    let lines: String = packages.iter().map(|package| format!("make {package}\n")).collect();
    hosts.out("h1", &format!("{REPOSITORY}{lines}index"));
}

/// Which of our packages are installed, and in which version.
fn installed(hosts: &Hosts) -> String {
    hosts.out("h1", "rpm -qa --qf '%{NAME} %{VERSION};' 'gp-*' | tr ';' '\\n' | sort | tr '\\n' ';' | sed 's/^;//'")
}

fn task(id: &str, package: &str) -> String {
    format!("[[task]]\nid = \"{id}\"\nrequires = []\npackage = {package}\n")
}

/// A host with that program as its only package manager.
fn host(program: &str) -> Hosts {
    let mut packages = vec![program, "rpm", "createrepo-c"];
    if program == "dnf" {
        packages.push("dnf-plugins-core");
    }
    let packages = packages.into_iter().map(str::to_owned).collect();
    let hosts = Hosts::site(&["h1"]).image(Image::With(packages)).serve(NOTHING);
    hosts.converged(&hosts.head());
    // Debian's rpm has its database in the home directory.
    hosts.out("h1", "rm /usr/bin/apt-get; mkdir -p /etc/rpm; echo '%_dbpath /var/lib/rpm' > /etc/rpm/macros");
    hosts
}

/// What both do alike.
fn packages_come_change_fail_and_go(program: &str) {
    let hosts = host(program);
    let outcome = |task: &str| hosts.report(task, "h1").outcome;
    publish(&hosts, &["gp-one 1.0", "gp-lib 1.0", "gp-two 1.0 gp-lib", "gp-late 1.0"]);

    // Create: a list, with what it needs.
    let pair = task("pair", r#"["gp-one", "gp-two"]"#);
    hosts.converged(&hosts.change(&pair));
    assert_eq!(installed(&hosts), "gp-lib 1.0;gp-one 1.0;gp-two 1.0;");
    recheck(&hosts);
    assert_eq!(outcome("s.pair"), "unchanged");

    // Drift.
    hosts.out("h1", "rpm -e gp-two");
    assert_eq!(drifted(&hosts), ["s.pair package gp-two: installed -> -"]);
    recheck(&hosts);
    assert_eq!(outcome("s.pair"), "changed");
    assert_eq!(installed(&hosts), "gp-lib 1.0;gp-one 1.0;gp-two 1.0;");

    // A newer version is there: only `latest` takes it.
    publish(&hosts, &["gp-one 2.0"]);
    recheck(&hosts);
    assert_eq!(outcome("s.pair"), "unchanged");
    let both = task("pair", r#"{ names = ["gp-one", "gp-two"], state = "latest", update_cache = "0s" }"#);
    hosts.converged(&hosts.change(&both));
    assert_eq!(installed(&hosts), "gp-lib 1.0;gp-one 2.0;gp-two 1.0;");
    recheck(&hosts);
    assert_eq!(outcome("s.pair"), "unchanged");

    // A version, older than that, and held; the hold goes.
    let held = |hold: bool| format!(r#"{{ names = ["gp-one"], version = "1.*", hold = {hold} }}"#);
    hosts.converged(&hosts.change(&task("pair", &held(true))));
    assert!(installed(&hosts).contains("gp-one 1.0;"), "{}", installed(&hosts));
    recheck(&hosts);
    assert_eq!(outcome("s.pair"), "unchanged");
    let locks = if program == "dnf" { "dnf -q versionlock list" } else { "zypper -n -q locks" };
    assert!(hosts.out("h1", locks).contains("gp-one"));
    hosts.converged(&hosts.change(&task("pair", &held(false))));
    assert!(!hosts.out("h1", locks).contains("gp-one"));

    // Failure: no such package, no such version.
    let bad = [
        task("pair", r#""gp-one""#),
        task("bad", r#""gp-nosuch""#),
        task("old", r#"{ names = ["gp-two"], version = "7*" }"#),
    ];
    hosts.settled(&hosts.change(&bad.concat()));
    assert!(outcome("s.bad").contains("there is no package `gp-nosuch`"), "{}", outcome("s.bad"));
    assert!(outcome("s.old").contains("`7*`"), "{}", outcome("s.old"));

    // Absent, also of what is not there; and what another package needs stays when its task goes.
    publish(&hosts, &["gp-needs 1.0 gp-one"]);
    let install =
        if program == "dnf" { "dnf -q -y --refresh install" } else { "zypper -n -q refresh && zypper -n -q install" };
    hosts.out("h1", &format!("{install} gp-late gp-needs"));
    let absent = task("none", r#"{ names = ["gp-late", "gp-nosuch"], state = "absent" }"#);
    hosts.converged(&hosts.change(&(task("pair", r#""gp-one""#) + &absent)));
    assert!(!installed(&hosts).contains("gp-late"), "{}", installed(&hosts));
    hosts.converged(&hosts.change(NOTHING));
    assert!(installed(&hosts).contains("gp-needs 1.0;gp-one 1.0;"), "{}", installed(&hosts));
    assert!(hosts.report("s.pair", "h1").output.contains("gp-one is left in place: gp-needs needs it"));
}

#[test]
fn dnf_packages_come_change_fail_and_go() {
    needs_hosts!();
    packages_come_change_fail_and_go("dnf");
}

#[test]
fn zypper_packages_come_change_fail_and_go() {
    needs_hosts!();
    packages_come_change_fail_and_go("zypper");
}
