//! Packages on a real host, by apt, from a repository on the host itself: no network, and any version at will.

use groundplan_tests::{hosts::Hosts, needs_hosts};

use super::{NOTHING, drifted, recheck};

/// Makes packages in `/srv/repo` and an index of all that are there.
const REPOSITORY: &str = r#"
set -e
mkdir -p /srv/repo
make() {
    d=/srv/build/$1-$2
    mkdir -p $d/DEBIAN $d/usr/share/gp
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: test\n' $1 $2 > $d/DEBIAN/control
    [ -z "$3" ] || echo "Depends: $3" >> $d/DEBIAN/control
    [ -z "$5" ] || echo "$5" >> $d/DEBIAN/control
    [ -z "$4" ] || { printf '#!/bin/sh\n%s\n' "$4" > $d/DEBIAN/postinst; chmod 755 $d/DEBIAN/postinst; }
    echo $2 > $d/usr/share/gp/$1
    if [ $1 = gp-svc ]; then
        mkdir -p $d/lib/systemd/system
        printf '[Service]\nExecStart=/bin/sleep infinity\n' > $d/lib/systemd/system/gp-svc.service
    fi
    dpkg-deb --root-owner-group -Zgzip --build $d /srv/repo/$1_$2_all.deb > /dev/null
}
index() {
    cd /srv/repo
    for deb in *.deb; do
        dpkg-deb -f $deb
        echo "Filename: ./$deb"
        echo "Size: $(stat -c %s $deb)"
        echo "SHA256: $(sha256sum $deb | cut -d' ' -f1)"
        echo
    done > Packages
}
echo 'deb [trusted=yes] file:/srv/repo ./' > /etc/apt/sources.list.d/local.list
"#;

pub(super) fn publish(hosts: &Hosts, packages: &[&str]) {
    let lines: String = packages.iter().map(|package| format!("make {package}\n")).collect();
    hosts.out("h1", &format!("{REPOSITORY}{lines}index"));
}

/// Which of our packages are installed, and in which version.
fn installed(hosts: &Hosts) -> String {
    let list =
        "dpkg-query -W -f='${db:Status-Abbrev} ${Package} ${Version}\\n' 'gp-*' 2> /dev/null | grep '^.i' || true";
    hosts
        .out("h1", list)
        .lines()
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ") + ";")
        .collect()
}

fn transactions(hosts: &Hosts) -> String {
    hosts.out("h1", "grep -c ^Start-Date /var/log/apt/history.log").trim().to_owned()
}

fn tasks(pair: &str, more: &str) -> String {
    format!(
        r#"
[[task]]
id = "pair"
package = {pair}

[[task]]
id = "svc"
requires = []
package = {{ names = ["gp-svc"], start_services = false }}

[[task]]
id = "known"
requires = []
package = "bash"
{more}
"#
    )
}

#[test]
fn packages_come_change_fail_and_go() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    let start = "'deb-systemd-invoke start gp-svc.service || true; touch /run/gp-svc-configured'";
    let svc = format!("gp-svc 1.0 '' {start}");
    publish(
        &hosts,
        &["gp-one 1.0", "gp-two 1.0 gp-lib", "gp-lib 1.0", &svc, "gp-broken 1.0 '' 'exit 3'", "gp-late 1.0"],
    );

    // Create: a list is one transaction, and services wait to be configured.
    let pair = r#"["gp-one", "gp-two"]"#;
    hosts.converged(&hosts.change(&tasks(pair, "")));
    assert_eq!(installed(&hosts), "gp-lib 1.0;gp-one 1.0;gp-svc 1.0;gp-two 1.0;");
    assert_eq!(transactions(&hosts), "2");
    assert_eq!(
        hosts.sh("h1", "ls /run/gp-svc-configured; systemctl is-active gp-svc").out,
        "/run/gp-svc-configured\ninactive"
    );
    assert_eq!(hosts.sh("h1", "ls /usr/sbin/policy-rc.d*").out, "");
    assert_eq!(hosts.report("s.known", "h1").outcome, "unchanged");

    // No change.
    recheck(&hosts);
    for task in ["s.pair", "s.svc", "s.known"] {
        assert_eq!(hosts.report(task, "h1").outcome, "unchanged", "{task}");
    }
    // Drift.
    hosts.out("h1", "dpkg -r gp-two");
    assert_eq!(drifted(&hosts), ["s.pair package gp-two: installed -> -"]);
    recheck(&hosts);
    assert_eq!(hosts.report("s.pair", "h1").outcome, "changed");
    assert!(installed(&hosts).contains("gp-two 1.0"));
    assert_eq!(transactions(&hosts), "3");

    // Update: one is not named any more, and goes with what came along for it; the other becomes the latest.
    publish(&hosts, &["gp-one 2.0"]);
    hosts.converged(&hosts.change(&tasks(r#"{ names = ["gp-one"], state = "latest", update_cache = "0s" }"#, "")));
    assert_eq!(installed(&hosts), "gp-one 2.0;gp-svc 1.0;");
    recheck(&hosts);
    assert_eq!(hosts.report("s.pair", "h1").outcome, "unchanged");
    // A version, older than that, and held.
    hosts.converged(&hosts.change(&tasks(r#"{ names = ["gp-one"], version = "1.*", hold = true }"#, "")));
    assert_eq!(installed(&hosts), "gp-one 1.0;gp-svc 1.0;");
    assert_eq!(hosts.out("h1", "apt-mark showhold"), "gp-one");
    // Also under another name.
    let held = tasks(r#"{ names = ["gp-one"], version = "1.*", hold = true }"#, "");
    hosts.converged(&hosts.change(&held.replace("\"pair\"", "\"renamed\"")));
    assert_eq!(hosts.out("h1", "apt-mark showhold"), "gp-one");
    hosts.converged(&hosts.change(&held));
    assert_eq!(hosts.out("h1", "apt-mark showhold"), "gp-one");
    let absent = "[[task]]\nid = \"none\"\nrequires = []\npackage = { names = [\"gp-late\"], state = \"absent\" }\n";
    hosts.converged(&hosts.change(&tasks(r#"{ names = ["gp-one"], version = "1.*", hold = false }"#, absent)));
    assert_eq!(hosts.out("h1", "apt-mark showhold"), "");

    // Another program holds the lock.
    let lock = "use Fcntl; open(F, \">/var/lib/dpkg/lock-frontend\"); my $l = pack(\"ssx4qqlx4\", F_WRLCK, 0, 0, 0, 0); \
                fcntl(F, F_SETLK, $l) or die; open(G, \">/run/locked\"); select(undef, undef, undef, 0.05) while -e \"/run/locked\"";
    hosts.out("h1", &format!("systemd-run --quiet perl -e '{lock}'; until test -e /run/locked; do sleep 0.05; done"));
    let late = "[[task]]\nid = \"late\"\nrequires = []\npackage = \"gp-late\"\n";
    let commit = hosts.change(&tasks(r#""gp-one""#, late));
    // It runs, and no program of it does, a while long: it waits for the lock.
    let idle = "for i in 1 2 3 4 5; do ! pgrep -P $(systemctl show --property MainPID --value groundplan-agent) || exit 1; sleep 0.1; done";
    hosts.wait("the task to wait for the lock", || {
        let running = hosts.ask(&["why", "h1", "s.late"])?["record"]["state"] == "running";
        (running && hosts.sh("h1", idle).status == Some(0)).then_some(())
    });
    hosts.out("h1", "rm /run/locked");
    hosts.converged(&commit);
    let late = hosts.report("s.late", "h1");
    let waited = late.output.contains("for perl (process ") && late.output.contains("/var/lib/dpkg/lock-frontend");
    assert!(waited, "{:#}", late.record);

    // Failure.
    let bad = "[[task]]\nid = \"bad\"\nrequires = []\npackage = \"gp-nosuch\"\n\
               [[task]]\nid = \"after\"\nfile = { path = \"/etc/after\", content = \"\" }\n\
               [[task]]\nid = \"old\"\nrequires = []\npackage = { names = [\"gp-two\"], version = \"7*\" }\n\
               [[task]]\nid = \"broken\"\nrequires = []\npackage = \"gp-broken\"\n";
    hosts.settled(&hosts.change(&tasks(r#""gp-one""#, bad)));
    let outcome = |task: &str| hosts.report(task, "h1").outcome;
    assert!(
        outcome("s.bad").contains("there is no package `gp-nosuch` in the package sources"),
        "{}",
        outcome("s.bad")
    );
    assert!(outcome("s.old").contains("there is no version `7*` of the package `gp-two`"), "{}", outcome("s.old"));
    assert!(outcome("s.broken").contains("post-installation script"), "{}", outcome("s.broken"));
    assert!(outcome("s.after").starts_with("blocked"), "{}", outcome("s.after"));
    // What was interrupted is repaired before anything else is installed.
    hosts.out("h1", "printf '#!/bin/sh\\n' > /var/lib/dpkg/info/gp-broken.postinst");
    let two = "[[task]]\nid = \"two\"\nrequires = []\npackage = \"gp-two\"\n\
               [[task]]\nid = \"broken\"\nrequires = []\npackage = \"gp-broken\"\n";
    hosts.converged(&hosts.change(&tasks(r#""gp-one""#, two)));
    assert_eq!(installed(&hosts), "gp-broken 1.0;gp-lib 1.0;gp-one 1.0;gp-svc 1.0;gp-two 1.0;");
    let output = hosts.report("s.two", "h1").output + &hosts.report("s.broken", "h1").output;
    assert!(output.contains("an earlier installation was interrupted"), "{output}");

    // Removal: what was there before stays, and so do packages that others need.
    publish(&hosts, &["gp-needs 1.0 gp-one"]);
    hosts.out("h1", "apt-get -q update && apt-get -y -q install gp-needs && dpkg -s bash > /dev/null");
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(installed(&hosts), "gp-needs 1.0;gp-one 1.0;");
    assert!(hosts.report("s.pair", "h1").output.contains("gp-one is left in place: gp-needs needs it"));
    hosts.out("h1", "dpkg -s bash > /dev/null");
}

#[test]
fn dependencies_are_chosen_virtual_packages_are_named_and_conflicts_explained() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    publish(
        &hosts,
        &[
            "gp-lib 1.0",
            "gp-two 1.0 gp-lib",
            "gp-mail 1.0 '' '' 'Provides: gp-mta'",
            "gp-sql 1.0 '' '' 'Provides: gp-db'",
            "gp-nosql 1.0 '' '' 'Provides: gp-db'",
            "gp-anti 1.0 '' '' 'Conflicts: gp-late'",
            "gp-late 1.0",
        ],
    );
    hosts.out("h1", "apt-get -q update && apt-get -y -q install gp-two");
    let task = |id: &str, package: &str| format!("[[task]]\nid = \"{id}\"\nrequires = []\npackage = {package}\n");
    let (lib, mail) = (task("lib", "\"gp-lib\""), task("mail", "\"gp-mta\""));
    let bad = [
        task("db", "\"gp-db\""),
        task("clash", "[\"gp-anti\", \"gp-late\"]"),
        task("no-mail", "{ names = [\"gp-db\"], state = \"absent\" }"),
    ];
    hosts.settled(&hosts.change(&[lib.as_str(), &mail, &bad[0], &bad[1]].concat()));
    let outcome = |task: &str| hosts.report(task, "h1").outcome;

    // It was there as a dependency: it is marked, so that it stays when nothing needs it.
    assert_eq!(outcome("s.lib"), "changed");
    hosts.out("h1", "apt-get -y -q remove gp-two && apt-get -y -q autoremove");
    assert!(installed(&hosts).contains("gp-lib 1.0;"), "{}", installed(&hosts));

    // A virtual package: the only one that provides it is installed; one of several must be named.
    assert_eq!(outcome("s.mail"), "changed");
    assert!(installed(&hosts).contains("gp-mail 1.0;"), "{}", installed(&hosts));
    let db = outcome("s.db");
    assert!(db.contains("`gp-db` is a virtual package; name one that provides it: `gp-"), "{db}");
    assert!(db.contains("gp-sql") && db.contains("gp-nosql"), "{db}");
    // The conflict is named.
    assert!(outcome("s.clash").contains("Conflicts: gp-late"), "{}", outcome("s.clash"));

    hosts.converged(&hosts.change(&[lib.as_str(), &mail].concat()));
    recheck(&hosts);
    assert_eq!([outcome("s.lib"), outcome("s.mail")], ["unchanged", "unchanged"]);
    hosts.out("h1", "apt-mark auto gp-lib");
    assert_eq!(drifted(&hosts), ["s.lib package gp-lib: chosen: by hand -> as a dependency"]);
    recheck(&hosts);

    // A virtual package that is there is not absent.
    hosts.out("h1", "apt-get -y -q install gp-sql");
    hosts.settled(&hosts.change(&[lib.as_str(), &mail, &bad[2]].concat()));
    assert!(
        outcome("s.no-mail").contains("`gp-db` is a virtual package; name one that provides it: `gp-sql`"),
        "{}",
        outcome("s.no-mail")
    );

    // Removal: what was installed for the virtual package goes, and the dependency is one again.
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(installed(&hosts), "gp-lib 1.0;gp-sql 1.0;");
    assert_eq!(hosts.out("h1", "apt-mark showauto | grep gp-"), "gp-lib");
}

#[test]
fn what_comes_along_goes_with_the_last_that_needs_it() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    publish(&hosts, &["gp-lib 1.0", "gp-a 1.0 gp-lib", "gp-b 1.0 gp-lib"]);
    let task = |id: &str, package: &str| format!("[[task]]\nid = \"{id}\"\nrequires = []\npackage = {package}\n");
    let [a, b] = ["a", "b"].map(|id| task(id, &format!("\"gp-{id}\"")));
    let steps = [
        (a.clone(), "gp-a 1.0;gp-lib 1.0;"),
        (format!("{a}{b}"), "gp-a 1.0;gp-b 1.0;gp-lib 1.0;"),
        // The task that brought it along goes first.
        (b, "gp-b 1.0;gp-lib 1.0;"),
        (NOTHING.to_owned(), ""),
        // One task becomes two: what one of them leaves behind is none of the other's business.
        (task("pair", "[\"gp-a\", \"gp-b\"]"), "gp-a 1.0;gp-b 1.0;gp-lib 1.0;"),
        (format!("{a}{}on_remove = \"keep\"\n", task("b", "\"gp-b\"")), "gp-a 1.0;gp-b 1.0;gp-lib 1.0;"),
        (a, "gp-a 1.0;gp-b 1.0;gp-lib 1.0;"),
        (task("a", "{ names = [\"gp-a\"], hold = false }"), "gp-a 1.0;gp-b 1.0;gp-lib 1.0;"),
        (NOTHING.to_owned(), "gp-b 1.0;gp-lib 1.0;"),
    ];
    for (n, (text, there)) in steps.iter().enumerate() {
        hosts.converged(&hosts.change(text));
        assert_eq!(installed(&hosts), *there, "step {n}: {text}");
    }
}

#[test]
fn a_hold_passes_to_the_task_that_takes_the_package() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    publish(&hosts, &["gp-a 1.0", "gp-b 1.0"]);
    let held =
        |id: &str, names: &str| format!("[[task]]\nid = \"{id}\"\npackage = {{ names = {names}, hold = true }}\n");
    let folder = "[[task]]\nid = \"x\"\ndirectory = { path = \"/srv/d\" }\n";
    // The first comes before the task that gives the package up, whose update takes away what it had.
    let steps = [
        (held("x", "[\"gp-a\"]"), "gp-a"),
        (held("z", "[\"gp-a\"]") + folder, "gp-a"),
        (held("z", "[\"gp-a\", \"gp-b\"]"), "gp-a\ngp-b"),
        (held("y", "[\"gp-b\"]") + &held("z", "[\"gp-a\"]"), "gp-a\ngp-b"),
        (held("z", "[\"gp-a\"]"), "gp-a"),
        (NOTHING.to_owned(), ""),
    ];
    for (n, (text, there)) in steps.iter().enumerate() {
        hosts.converged(&hosts.change(text));
        assert_eq!(hosts.out("h1", "apt-mark showhold"), *there, "step {n}: {text}");
    }
    assert_eq!(installed(&hosts), "");
}

#[test]
fn what_came_along_goes_also_where_an_installation_or_a_removal_was_cut_off() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    let wait = "touch /run/in; while [ ! -e /run/go ]; do sleep 0.05; done";
    publish(&hosts, &["gp-lib 1.0", "gp-a 1.0 gp-lib", &format!("gp-slow 1.0 gp-lib '{wait}'")]);
    let task = |name: &str| format!("[[task]]\nid = \"{name}\"\npackage = \"{name}\"\n");
    let at_removal = |package: &str, script: &str| {
        let path = format!("/var/lib/dpkg/info/{package}.prerm");
        hosts.out("h1", &format!("rm -f /run/go; printf '#!/bin/sh\n{script}\n' > {path}; chmod 755 {path}"));
    };
    // The agent, apt and dpkg.
    let kill = || {
        hosts.wait("the script of the package", || (hosts.sh("h1", "test -e /run/in").status == Some(0)).then_some(()));
        hosts.out("h1", "systemctl kill --signal KILL --kill-whom all groundplan-agent; rm /run/in; touch /run/go");
    };
    let commit = hosts.change(&task("gp-slow"));
    kill();
    hosts.converged(&commit);
    assert_eq!(installed(&hosts), "gp-lib 1.0;gp-slow 1.0;");
    assert_eq!(hosts.out("h1", "apt-mark showauto | grep gp-"), "gp-lib");

    // Before the first of them is removed, and after it.
    for package in ["gp-slow", "gp-lib"] {
        at_removal(package, wait);
        let commit = hosts.change(NOTHING);
        kill();
        hosts.converged(&commit);
        assert_eq!(installed(&hosts), "", "cut off while {package} was removed");
        hosts.converged(&hosts.change(&task("gp-slow")));
    }

    // A script fails, and apt has noted by then that nothing is a dependency any more. Another package comes to need what is left.
    at_removal("gp-lib", "exit 1");
    hosts.settled(&hosts.change(NOTHING));
    assert_eq!(installed(&hosts), "gp-lib 1.0;");
    hosts.settled(&hosts.change(&task("gp-a")));
    assert_eq!(installed(&hosts), "gp-a 1.0;gp-lib 1.0;");
    assert_eq!(hosts.out("h1", "apt-mark showauto | grep gp-"), "gp-lib");
    at_removal("gp-lib", "exit 0");
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(installed(&hosts), "");
}
