//! Files in part and in whole on a real host: `ini`, `line`, `archive`, and content that must pass before it is put in place.

use groundplan_tests::{fleet::texts, hosts::Hosts, needs_hosts};

use super::{drifted, recheck};

/// What a tar with these members looks like: name, type (tar(5)), and content or target. Names go in as they are.
fn tar(members: &[(&str, u8, &str)]) -> String {
    let mut out = Vec::new();
    for (name, kind, text) in members {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        let is_link = *kind == b'2';
        put(0, name.as_bytes());
        put(100, b"0000644\x000000000\x000000000\x00");
        put(124, format!("{:011o}\0{:011o}\0        ", if is_link { 0 } else { text.len() }, 0).as_bytes());
        put(156, &[*kind]);
        put(157, if is_link { text.as_bytes() } else { b"" });
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        if !is_link {
            out.extend_from_slice(text.as_bytes());
            out.resize(out.len().next_multiple_of(512), 0);
        }
    }
    out.resize(out.len() + 1024, 0);
    String::from_utf8(out).expect("ASCII")
}

fn site(tasks: &str, archive: &str) -> [(&'static str, String); 2] {
    [("services/s/service.toml", tasks.to_owned()), ("services/s/app.tar", archive.to_owned())]
}

fn commit(hosts: &Hosts, tasks: &str, archive: &str) -> String {
    hosts.commit(&texts(&site(tasks, archive)), "change")
}

const ONE: &str = r#"
[[task]]
id = "settings"
ini = { path = "/etc/app.conf", values = { DEFAULT = { debug = true, backend = ["a", "b"] }, new = { x = 1 } } }

[[task]]
id = "port"
line = { path = "/etc/sshd.conf", line = "Port 2200", match = "^#?Port " }

[[task]]
id = "hosts"
line = { path = "/etc/hosts", block = "10.0.0.1 one\n10.0.0.2 two" }

[[task]]
id = "app"
archive = { source = "app.tar", dest = "/opt/app", owner = "daemon" }

[[task]]
id = "checked"
file = { path = "/etc/checked.conf", content = "[a]\nb = c\n", validate = "ini" }
"#;

const FOUND: &str = "# Mine.\n[DEFAULT]\n#backend = none\ndebug = false\n";

#[test]
fn parts_of_files_and_archives_come_change_and_go() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve("[service]\n");
    hosts.converged(&hosts.head());
    hosts.sh("h1", &format!("printf '{FOUND}' > /etc/app.conf; chmod 600 /etc/app.conf; chown daemon /etc/app.conf"));
    hosts.sh("h1", "printf 'top\\n#Port 22\\n' > /etc/sshd.conf");
    let known = hosts.file("h1", "/etc/hosts").expect("a file of names");

    // Create.
    let one = tar(&[("bin/", b'5', ""), ("bin/run", b'0', "one\n"), ("bin/link", b'2', "run"), ("old", b'0', "")]);
    hosts.converged(&commit(&hosts, ONE, &one));
    let conf = "# Mine.\n[DEFAULT]\n#backend = none\nbackend = a\nbackend = b\ndebug = true\n\n[new]\nx = 1\n";
    assert_eq!(hosts.file("h1", "/etc/app.conf").as_deref(), Some(conf));
    assert_eq!(hosts.out("h1", "stat -c '%a %U' /etc/app.conf"), "600 daemon", "owner and mode are kept");
    assert_eq!(hosts.file("h1", "/etc/sshd.conf").as_deref(), Some("top\nPort 2200\n"));
    assert!(
        hosts
            .file("h1", "/etc/hosts")
            .is_some_and(|text| text.starts_with(&known) && text.contains("10.0.0.2 two\n# END"))
    );
    assert_eq!(hosts.out("h1", "cat /opt/app/bin/link; stat -c %U /opt/app/bin/run"), "one\ndaemon");

    // No change: planned again nothing, checked again unchanged.
    let all = ["s.settings", "s.port", "s.hosts", "s.app", "s.checked"];
    recheck(&hosts);
    for task in all {
        assert_eq!(hosts.report(task, "h1").outcome, "unchanged", "{task}");
    }

    // Drift.
    hosts.sh(
        "h1",
        "sed -i s/true/perhaps/ /etc/app.conf; sed -i /2200/d /etc/sshd.conf; sed -i s/10.0.0.1/10.9.9.9/ /etc/hosts",
    );
    hosts.sh("h1", "echo theirs >> /opt/app/bin/run; rm /opt/app/old; echo > /etc/checked.conf");
    let hidden = "a value that is not reported";
    let expected = [
        "s.app /opt/app/bin/run: as it was unpacked -> changed",
        "s.app /opt/app/old: present -> -",
        "s.checked content: - -> -",
        "s.hosts block: 10.0.0.1 one\n10.0.0.2 two -> missing, or changed",
        "s.port line: Port 2200 -> missing, or changed",
        &format!("s.settings [DEFAULT] debug: {hidden} -> {hidden}"),
    ];
    assert_eq!(drifted(&hosts), expected);
    recheck(&hosts);
    for task in all {
        assert_eq!(hosts.report(task, "h1").outcome, "changed", "{task}");
    }
    assert_eq!(hosts.file("h1", "/etc/app.conf").as_deref(), Some(conf));
    assert_eq!(hosts.file("h1", "/opt/app/bin/run").as_deref(), Some("one\n"));

    // Update.
    let two = tar(&[("bin/run", b'0', "two\n"), ("etc/new", b'0', "")]);
    let tasks = ONE.replace(", new = { x = 1 }", "").replace("2200", "2201").replace("10.0.0.2 two", "10.0.0.3 three");
    hosts.converged(&commit(&hosts, &tasks, &two));
    let conf = conf.replace("\n[new]\nx = 1\n", "");
    assert_eq!(hosts.file("h1", "/etc/app.conf"), Some(conf));
    assert_eq!(hosts.file("h1", "/etc/sshd.conf").as_deref(), Some("top\nPort 2201\n"));
    assert_eq!(hosts.out("h1", "cd /opt/app; find . -type f | sort; cat bin/run"), "./bin/run\n./etc/new\ntwo");

    // Removal: all is as it was found.
    hosts.converged(&hosts.commit(&[("services/s/service.toml", "[service]\n")], "remove"));
    assert_eq!(hosts.file("h1", "/etc/app.conf").as_deref(), Some(FOUND));
    assert_eq!(hosts.file("h1", "/etc/sshd.conf").as_deref(), Some("top\n#Port 22\n"));
    assert_eq!(hosts.file("h1", "/etc/hosts"), Some(known));
    assert_eq!(hosts.out("h1", "ls -d /opt/app /etc/checked.conf 2>/dev/null | wc -l"), "0");
}

#[test]
fn bad_input_fails_with_a_reason_and_everything_else_proceeds() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve("[[task]]\nid = \"checked\"\nfile = { path = \"/etc/checked.conf\", content = \"[good]\\n\", validate = \"ini\" }\n");
    hosts.converged(&hosts.head());
    hosts.sh(
        "h1",
        "printf 'this is no INI\\n' > /etc/bad.conf; mkdir -p /srv/here /srv/outside; ln -s /srv/outside /srv/here/way",
    );
    let evil = [
        ("dots", tar(&[("good", b'0', "x"), ("../evil", b'0', "x")]), "the member `../evil` has `..` in its path"),
        (
            "absolute",
            tar(&[("good", b'0', "x"), ("/srv/evil", b'0', "x")]),
            "the member `/srv/evil` has an absolute path",
        ),
        (
            "outward",
            tar(&[("good", b'0', "x"), ("l", b'2', "/etc")]),
            "the member `l` is a link that leads out, to `/etc`",
        ),
        (
            "through",
            tar(&[("l", b'2', "good"), ("l/evil", b'0', "x")]),
            "the member `l/evil` goes through the link `l`",
        ),
        ("way", tar(&[("good", b'0', "x"), ("way/evil", b'0', "x")]), "the symbolic link /way leads out of the root"),
        ("device", tar(&[("good", b'0', "x"), ("dev", b'4', "")]), "the member `dev` is a device"),
        ("cut", tar(&[("good", b'0', "x")])[..600].to_owned(), "damaged or truncated"),
    ];
    let mut tasks = r#"
[vars]
broken = "[good]\nvalue = 1\n[oh"

[[task]]
id = "checked"
requires = []
file = { path = "/etc/checked.conf", content = "{{ broken }}\n", validate = "ini" }

[[task]]
id = "after"
file = { path = "/etc/after", content = "" }

[[task]]
id = "refused"
requires = []
file = { path = "/etc/refused.conf", content = "x", validate = { command = "grep -q y %s || { echo no y in it >&2; exit 1; }" } }

[[task]]
id = "bad"
requires = []
ini = { path = "/etc/bad.conf", section = "a", option = "b", value = 1 }

[[task]]
id = "linked"
requires = []
line = { path = "/etc/linked", line = "x" }

[[task]]
id = "good"
requires = []
line = { path = "/etc/good", line = "x" }
"#
    .to_owned();
    hosts.sh("h1", "ln -s /etc/passwd /etc/linked");
    let mut files = Vec::new();
    for (name, archive, _) in &evil {
        tasks.push_str(&format!(
            "\n[[task]]\nid = \"{name}\"\nrequires = []\narchive = {{ source = \"{name}.tar\", dest = \"/srv/here\" }}\n"
        ));
        files.push((format!("services/s/{name}.tar"), archive.clone()));
    }
    files.push(("services/s/service.toml".to_owned(), tasks));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    hosts.settled(&hosts.commit(&files, "bad"));
    let expect = |task: &str, word: &str| {
        let outcome = hosts.report(task, "h1").outcome;
        assert!(outcome.starts_with("failed") && outcome.contains(word), "{task}: {outcome}");
    };
    expect(
        "s.checked",
        "not valid INI, and the old file stays as it is: line 3: the section's header is not closed: `[oh`",
    );
    expect("s.refused", "refuses the new content, and the old file stays as it is: no y in it");
    expect(
        "s.bad",
        "/etc/bad.conf is not an INI file and was not changed; fix it by hand: line 1: has neither `=` nor `:`",
    );
    expect("s.linked", "/etc/linked is a symbolic link to /etc/passwd");
    for (name, _, word) in &evil {
        expect(&format!("s.{name}"), word);
    }
    assert_eq!(hosts.file("h1", "/etc/checked.conf").as_deref(), Some("[good]\n"));
    assert_eq!(hosts.file("h1", "/etc/bad.conf").as_deref(), Some("this is no INI\n"));
    assert_eq!(
        hosts.out("h1", "ls -A /srv /srv/here /srv/outside"),
        "/srv:\nhere\noutside\n\n/srv/here:\nway\n\n/srv/outside:"
    );
    assert!(!hosts.out("h1", "cat /etc/passwd").lines().any(|line| line == "x"));
    assert_eq!(hosts.file("h1", "/etc/refused.conf"), None);
    // What depends on it waits, all else goes on.
    let after = hosts.report("s.after", "h1").outcome;
    assert!(after.contains("blocked") && after.contains("s.checked"), "{after}");
    assert_eq!(hosts.report("s.good", "h1").outcome, "changed");
}
