//! `groundplan up` on a real host, of a site whose only node is the host itself.

use std::{fs, path::Path, process::Command};

use groundplan_tests::{binaries, hosts::Hosts, needs_hosts};

use super::NOTHING;

const UNIT: &str = "[Service]\\nExecStart=/bin/sleep infinity\\n";

/// The site as a repository in `folder`.
fn site(folder: &Path) {
    let tasks = format!(
        "[[task]]\nid = \"unit\"\nsystemd = {{ unit = \"naps.service\", content = \"{UNIT}\" }}\n\n\
         [[task]]\nid = \"account\"\nuser = {{ name = \"ann\" }}\n\n\
         [[task]]\nid = \"note\"\nfile = {{ path = \"/etc/note\", content = \"here\" }}\n"
    );
    for (path, text) in [
        ("site.toml", "name = \"mine\"\n"),
        ("inventory/nodes.toml", "[groups.g]\nservices = [\"s\"]\n\n[nodes.n]\ngroups = [\"g\"]\n"),
        ("services/s/service.toml", &tasks),
    ] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
    for args in [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-q", "-m", "first"]] {
        let status = Command::new("git").args(identity).args(args).current_dir(folder).status();
        assert!(status.expect("git is installed").success(), "{args:?}");
    }
}

#[test]
fn what_acts_on_the_host_is_skipped_without_real_and_done_with_it() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).bare().serve(NOTHING);
    let folder = hosts.root("h1").expect("it runs").join("opt");
    for program in [binaries::groundplan(), binaries::agent()] {
        fs::copy(&program, folder.join(program.file_name().expect("a name"))).expect("a copy");
    }
    // git cannot work in the root of another mount namespace.
    let scratch = tempfile::tempdir().expect("a scratch directory");
    site(&scratch.path().join("site"));
    let copied = Command::new("cp").arg("-r").arg(scratch.path().join("site")).arg(&folder).status();
    assert!(copied.expect("cp runs").success());
    let up = |name: &str, arguments: &str| {
        hosts.out(
            "h1",
            &format!("systemd-run --quiet --unit {name} --working-directory /opt/site /opt/groundplan up {arguments}"),
        );
        hosts.wait("the site to be carried out", || {
            let log = hosts.sh("h1", &format!("journalctl --no-pager --output cat --unit {name}")).out;
            assert!(!log.contains("failed") && !log.contains("error:"), "{log}");
            log.contains("converged in").then_some(log)
        })
    };
    let on_host = || {
        let lines = ["systemctl is-active naps.service", "id --user --name ann", "cat /etc/note"];
        lines.map(|line| hosts.sh("h1", line).status == Some(0))
    };
    let log = up("try", "");
    assert_eq!(on_host(), [false; 3], "{log}");
    for kind in ["systemd", "user"] {
        assert!(log.contains(&format!("skipped: `{kind}` acts on the host as a whole")), "{log}");
    }
    assert_eq!(hosts.out("h1", "cat /opt/site/groundplan-up/nodes/n/root/etc/note"), "here");
    hosts.out("h1", "systemctl stop try");

    let log = up("real", "--real");
    assert_eq!(on_host(), [true; 3], "{log}");
    assert!(!log.contains("skipped"), "{log}");
    hosts.out("h1", "systemctl stop real");
}
