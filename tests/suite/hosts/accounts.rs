//! Users, groups and the host's name, on a real host.

use groundplan_tests::{hosts::Hosts, needs_hosts};

use super::{NOTHING, drifted, recheck};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk7 bob@example.org";
const HASH: &str = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";

fn tasks(shell: &str, groups: &str, name: &str, more: &str) -> String {
    format!(
        r#"
[[task]]
id = "team"
group = {{ name = "team", gid = 4242, members = ["daemon"] }}

[[task]]
id = "bob"
user = {{ name = "bob", uid = 4711, groups = {groups}, shell = "{shell}", comment = "Bob", password = "{HASH}", ssh_keys = ["{KEY}"], remove_home = true }}

[[task]]
id = "theirs"
requires = []
user = {{ name = "ann", shell = "{shell}", groups = ["audio"], append = true, ssh_keys = ["{KEY}"] }}

[[task]]
id = "name"
requires = []
hostname = {{ name = "{name}", pretty = "The first" }}
{more}
"#
    )
}

#[test]
fn accounts_and_names_come_change_and_go() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    hosts.out("h1", "useradd -m -s /bin/sh -G cdrom ann");
    let former = hosts.file("h1", "/etc/hostname");

    // Create.
    hosts.converged(&hosts.change(&tasks("/bin/bash", r#"["team"]"#, "first", "")));
    assert_eq!(hosts.out("h1", "getent passwd bob"), "bob:x:4711:4711:Bob:/home/bob:/bin/bash");
    assert_eq!(hosts.out("h1", "getent group team"), "team:x:4242:daemon,bob");
    assert_eq!(hosts.out("h1", "getent shadow bob | cut -d: -f2"), HASH);
    assert_eq!(hosts.file("h1", "/home/bob/.ssh/authorized_keys"), Some(format!("{KEY}\n")));
    let owners = hosts.out("h1", "stat -c '%U %a' /home/bob/.ssh /home/bob/.ssh/authorized_keys");
    assert_eq!(owners, "bob 700\nbob 600");
    assert_eq!(
        hosts.out("h1", "hostname; cat /etc/hostname; cat /etc/machine-info"),
        "first\nfirst\nPRETTY_HOSTNAME=\"The first\""
    );
    assert_eq!(hosts.out("h1", "id -nG ann"), "ann cdrom audio");

    // No change.
    recheck(&hosts);
    for task in ["s.team", "s.bob", "s.theirs", "s.name"] {
        assert_eq!(hosts.report(task, "h1").outcome, "unchanged", "{task}");
    }
    // Update.
    hosts.converged(&hosts.change(&tasks("/bin/sh", r#"["team", "adm"]"#, "second", "")));
    assert_eq!(
        hosts.out("h1", "getent passwd bob | cut -d: -f7; id -nG bob; hostname"),
        "/bin/sh\nbob adm team\nsecond"
    );
    // Drift.
    hosts.out(
        "h1",
        "usermod -s /bin/false -L bob; gpasswd -d daemon team; rm /home/bob/.ssh/authorized_keys; hostname x",
    );
    let expected = [
        "s.bob shell: /bin/sh -> /bin/false",
        "s.bob ssh keys: as they were set -> others, or with another owner or mode",
        "s.name running name: second -> x",
        "s.team member daemon: present -> -",
    ];
    assert_eq!(drifted(&hosts), expected);
    recheck(&hosts);
    assert_eq!(hosts.out("h1", "getent passwd bob | cut -d: -f7; hostname"), "/bin/sh\nsecond");
    assert!(hosts.out("h1", "getent group team").contains("daemon"));
    assert_eq!(hosts.file("h1", "/home/bob/.ssh/authorized_keys"), Some(format!("{KEY}\n")));

    // Failure: a group that is not there, and a folder for keys that leads elsewhere.
    let more = "[[task]]\nid = \"bad\"\nrequires = []\nuser = { name = \"cid\", group = \"nosuch\" }\n\
                [[task]]\nid = \"after\"\nfile = { path = \"/etc/after\", content = \"\" }\n";
    hosts.out("h1", "rm -r /home/ann/.ssh; mkdir /srv/elsewhere; ln -s /srv/elsewhere /home/ann/.ssh");
    hosts.settled(&hosts.change(&tasks("/bin/bash", r#"["team"]"#, "second", more)));
    let outcome = |task: &str| hosts.report(task, "h1").outcome;
    assert!(
        outcome("s.bad").contains("cannot create the user cid: group 'nosuch' does not exist"),
        "{}",
        outcome("s.bad")
    );
    assert!(outcome("s.after").starts_with("blocked"), "{}", outcome("s.after"));
    assert!(outcome("s.theirs").contains("leads out of"), "{}", outcome("s.theirs"));
    assert_eq!(hosts.out("h1", "ls /srv/elsewhere"), "");
    hosts.out("h1", "rm /home/ann/.ssh");

    // Removal: for a user that still runs something, the report names it.
    hosts.out("h1", "systemd-run --quiet --uid bob --unit busy sleep infinity");
    hosts.settled(&hosts.change(NOTHING));
    assert!(outcome("s.bob").contains("it runs sleep (process "), "{}", outcome("s.bob"));
    hosts.out("h1", "systemctl stop busy");
    hosts.converged(&hosts.commit(&[("services/s/service.toml", "# once more\n")], "again"));
    assert_eq!(hosts.sh("h1", "getent passwd bob; ls -d /home/bob; getent group team").out, "");
    assert_eq!(hosts.out("h1", "getent passwd ann | cut -d: -f7; id -nG ann"), "/bin/sh\nann cdrom");
    assert_eq!(hosts.file("h1", "/etc/hostname"), former);
    assert_eq!(hosts.out("h1", "hostname"), "h1");
}

#[test]
fn what_others_own_is_kept_and_what_is_open_is_closed() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    let theirs = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKother ops@example.org";
    // One user's keys are a link to a file of others, one's a link within its home; one may log in without a password; and a
    // group has the name of a user that is to come.
    hosts.out(
        "h1",
        &format!(
            "useradd -m ann; useradd -m dan; useradd -m eve; passwd -d eve; groupadd -g 4300 fay; mkdir -p /srv/keys; \
             echo '{theirs}' > /srv/keys/ops; install -d -o ann -m 700 /home/ann/.ssh; ln -s /srv/keys/ops /home/ann/.ssh/authorized_keys; \
             install -d -o dan -g dan -m 700 /home/dan/.ssh; echo '{theirs}' > /home/dan/keys; chown dan:dan /home/dan/keys; chmod 600 /home/dan/keys; \
             ln -s ../keys /home/dan/.ssh/authorized_keys"
        ),
    );
    assert_eq!(hosts.out("h1", "getent shadow eve | cut -d: -f2"), "");
    let user = |id: &str, more: &str| {
        format!("[[task]]\nid = \"{id}\"\nrequires = []\nuser = {{ name = \"{id}\", {more} }}\n")
    };
    let keys = format!("ssh_keys = [\"{KEY}\"]");
    let text =
        [user("ann", &keys), user("dan", &keys), user("eve", "password = \"!\""), user("fay", "comment = \"Fay\"")];
    hosts.settled(&hosts.change(&text.concat()));
    let outcome = |task: &str| hosts.report(task, "h1").outcome;
    assert!(
        outcome("s.ann").contains("/.ssh/authorized_keys is a link to /srv/keys/ops, outside of the home"),
        "{}",
        outcome("s.ann")
    );
    assert_eq!(
        hosts.out("h1", "readlink /home/ann/.ssh/authorized_keys; cat /srv/keys/ops"),
        format!("/srv/keys/ops\n{theirs}")
    );
    assert_eq!(outcome("s.dan"), "changed");
    assert_eq!(
        hosts.out("h1", "readlink /home/dan/.ssh/authorized_keys; cat /home/dan/keys"),
        format!("../keys\n{theirs}\n{KEY}")
    );
    assert_eq!(outcome("s.eve"), "changed");
    assert_eq!(hosts.out("h1", "getent shadow eve | cut -d: -f2"), "!");
    assert_eq!(outcome("s.fay"), "changed");
    assert_eq!(hosts.out("h1", "id -gn fay; getent group fay"), "fay\nfay:x:4300:");

    // The password is opened again out of band.
    hosts.converged(&hosts.change(&text[1..].concat()));
    hosts.out("h1", "passwd -d eve");
    assert_eq!(drifted(&hosts), ["s.eve password: locked -> not locked"]);
    recheck(&hosts);
    assert_eq!(hosts.out("h1", "getent shadow eve | cut -d: -f2"), "!");

    // Removal: the group was there before the user, and stays.
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(hosts.out("h1", "cat /home/dan/keys"), theirs);
    assert_eq!(hosts.sh("h1", "getent passwd fay; getent group fay").out, "fay:x:4300:");
}

/// Stands for a usermod(8) that is killed together with the agent: it has changed the tables and one file of the home.
const KILLED: &str = r#"#!/bin/sh
case "$*" in
*"-u 4712"*)
    sed -i 's/^bob:x:4711:/bob:x:4712:/' /etc/passwd
    chown 4712 /home/bob/first
    rm /usr/local/sbin/usermod
    systemctl kill --kill-whom all -s KILL groundplan-agent;;
*"-d /srv/bob"*)
    sed -i 's|:/home/bob:|:/srv/bob:|' /etc/passwd
    rm /usr/local/sbin/usermod
    systemctl kill --kill-whom all -s KILL groundplan-agent;;
esac
exec /usr/sbin/usermod "$@"
"#;

#[test]
fn a_change_that_was_killed_halfway_is_made_again() {
    needs_hosts!();
    let user = |uid: u32, home: &str| {
        format!(
            "[[task]]\nid = \"bob\"\nuser = {{ name = \"bob\", uid = {uid}, home = \"{home}\", remove_home = true }}\n"
        )
    };
    let hosts = Hosts::site(&["h1"]).serve(&user(4711, "/home/bob"));
    hosts.converged(&hosts.head());
    hosts
        .out("h1", "cd /home/bob; mkdir deep; touch first deep/last; chown -R bob: .; touch theirs; chown 4300 theirs");
    let owners = |home: &str| {
        let line = format!("cd {home}; stat -c '%n %u' . first deep deep/last theirs");
        hosts.out("h1", &line).lines().map(|line| line.to_owned() + ";").collect::<String>()
    };
    let killed = || {
        let line = format!("cat > /usr/local/sbin/usermod <<'END'\n{KILLED}END\nchmod 755 /usr/local/sbin/usermod");
        hosts.out("h1", &line);
    };
    let started = || {
        hosts.wait("the agent to be killed", || hosts.file("h1", "/usr/local/sbin/usermod").is_none().then_some(()));
        hosts.out("h1", "systemctl start groundplan-agent");
    };

    // Between the tables and the files.
    killed();
    let commit = hosts.change(&user(4712, "/home/bob"));
    started();
    hosts.converged(&commit);
    assert_eq!(owners("/home/bob"), ". 4712;first 4712;deep 4712;deep/last 4712;theirs 4300;");
    assert_eq!(hosts.out("h1", "id -u bob; ls /var/lib/groundplan/accounts"), "4712");
    recheck(&hosts);
    assert_eq!(hosts.report("s.bob", "h1").outcome, "unchanged");

    // Between the tables and the home.
    killed();
    let commit = hosts.change(&user(4712, "/srv/bob"));
    started();
    hosts.converged(&commit);
    assert_eq!(owners("/srv/bob"), ". 4712;first 4712;deep 4712;deep/last 4712;theirs 4300;");
    assert_eq!(hosts.sh("h1", "ls -d /home/bob; ls /var/lib/groundplan/accounts").out, "");
    assert_eq!(hosts.out("h1", "getent passwd bob"), "bob:x:4712:4711::/srv/bob:/bin/sh");

    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(hosts.sh("h1", "getent passwd bob; ls -d /srv/bob").out, "");
}

/// The key of an intruder.
const INTRUDER: &str = "ssh-ed25519 AAAAintruder x";

/// A task that allows only its own key.
fn exclusive(more: &str) -> String {
    format!(
        "[[task]]\nid = \"ann\"\nuser = {{ name = \"ann\", ssh_keys = [\"{KEY}\"], exclusive_keys = true{more} }}\n"
    )
}

/// A user with the keys of others.
const OTHERS: &str = "# Of the office.\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKother ops@example.org";

fn with_keys_of_others(hosts: &Hosts) {
    let line = format!(
        "useradd -m -s /bin/sh ann; install -d -o ann -m 700 /home/ann/.ssh; cd /home/ann/.ssh; echo '{OTHERS}' > authorized_keys
         chown ann authorized_keys; chmod 600 authorized_keys"
    );
    hosts.out("h1", &line);
}

#[test]
fn keys_that_a_failed_attempt_did_not_reach_come_back() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    with_keys_of_others(&hosts);
    let keys = || hosts.out("h1", "cat /home/ann/.ssh/authorized_keys");
    // The first attempt ends when it reads them, because they are a link out of the home.
    hosts.out("h1", "cd /home/ann/.ssh; mv authorized_keys /srv/keys; ln -s /srv/keys authorized_keys");
    hosts.settled(&hosts.change(&exclusive("")));
    let outcome = hosts.report("s.ann", "h1").outcome;
    assert!(outcome.contains("outside of the home"), "{outcome}");
    assert_eq!(keys(), OTHERS);
    hosts.out("h1", "mv /srv/keys /home/ann/.ssh/authorized_keys");
    recheck(&hosts);
    assert_eq!(keys(), KEY);
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(keys(), OTHERS);
}

#[test]
fn an_intruders_key_does_not_come_back() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    with_keys_of_others(&hosts);
    let keys = || hosts.out("h1", "cat /home/ann/.ssh/authorized_keys");
    hosts.converged(&hosts.change(&exclusive("")));
    assert_eq!(keys(), KEY);
    // The change that takes it away is about something else.
    hosts.out("h1", &format!("echo '{INTRUDER}' >> /home/ann/.ssh/authorized_keys"));
    hosts.converged(&hosts.change(&exclusive(", shell = \"/bin/bash\"")));
    assert_eq!(keys(), KEY);
    // Once others are allowed again, those that the task found come back, and it does not.
    hosts.converged(
        &hosts.change(&exclusive(", shell = \"/bin/bash\"").replace("exclusive_keys = true", "exclusive_keys = false")),
    );
    assert_eq!(keys(), format!("{OTHERS}\n{KEY}"));
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(keys(), OTHERS);
}

#[test]
fn a_key_file_gets_back_what_was_replaced() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    let others = "# Of the office.\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKother ops@example.org\n";
    let found = format!("no-pty {KEY}\n{others}");
    for user in ["ann", "dan"] {
        hosts.out(
            "h1",
            &format!(
                "useradd -m {user}; install -d -o {user} -m 700 /home/{user}/.ssh; cd /home/{user}/.ssh
                 printf '%s\\n' '{}' > authorized_keys; chown {user} authorized_keys; chmod 600 authorized_keys",
                found.trim_end()
            ),
        );
    }
    let keys = |user: &str| hosts.file("h1", &format!("/home/{user}/.ssh/authorized_keys")).unwrap_or_default();
    assert_eq!([keys("ann"), keys("dan")], [found.clone(), found.clone()]);
    let task = |user: &str, more: &str| {
        format!("[[task]]\nid = \"{user}\"\nuser = {{ name = \"{user}\", ssh_keys = [\"{KEY}\"]{more} }}\n")
    };
    let tasks = task("ann", "") + &task("dan", ", exclusive_keys = true");
    hosts.converged(&hosts.change(&tasks));
    assert_eq!([keys("ann"), keys("dan")], [format!("{KEY}\n{others}"), format!("{KEY}\n")]);

    // What comes after that is taken away for good.
    hosts.out("h1", &format!("echo '{INTRUDER}' >> /home/dan/.ssh/authorized_keys"));
    recheck(&hosts);
    assert_eq!(keys("dan"), format!("{KEY}\n"));

    // Once the task wants less of the file, what it does not replace any more comes back: other keys, then the line of its own.
    hosts.converged(&hosts.change(&(task("ann", "") + &task("dan", ""))));
    assert_eq!([keys("ann"), keys("dan")], [format!("{KEY}\n{others}"), format!("{KEY}\n{others}")]);
    hosts.converged(&hosts.change(&format!(
        "[[task]]\nid = \"ann\"\nuser = {{ name = \"ann\" }}\n{}",
        task("dan", ", exclusive_keys = true")
    )));
    assert_eq!([keys("ann"), keys("dan")], [found.clone(), format!("{KEY}\n")]);
    // It is not the task's any more.
    hosts.out("h1", "sed -i /no-pty/d /home/ann/.ssh/authorized_keys");

    hosts.converged(&hosts.change(NOTHING));
    assert_eq!([keys("ann"), keys("dan")], [others.to_owned(), found]);
}
