//! Units that `systemctl enable` treats in ways of its own, start limits, sockets and masks, on a real host.

use groundplan_tests::{hosts::Hosts, needs_hosts};

use super::{NOTHING, drifted, recheck};

/// What was on the host before: a SysV script, units without and with an odd [Install] section, a linked one, and two that are
/// masked until the next boot.
const THEIRS: &str = r#"
set -e
sleeper='[Service]\nExecStart=/bin/sleep infinity\n'
printf '#!/bin/sh\n### BEGIN INIT INFO\n# Provides: oldie\n# Required-Start:\n# Required-Stop:\n# Default-Start: 2 3 4 5\n# Default-Stop: 0 1 6\n### END INIT INFO\nexit 0\n' > /etc/init.d/oldie
chmod 755 /etc/init.d/oldie
cd /lib/systemd/system
printf "$sleeper" > bare.service
printf "[Unit]\nConditionPathExists=/\n$sleeper" > pulled.service
printf "$sleeper[Install]\nAlso=front-helper.service\n" > front.service
printf "$sleeper[Install]\nWantedBy=multi-user.target\n" > front-helper.service
printf "$sleeper" > shy.service
printf "$sleeper" > coy.service
mkdir -p /opt/linked multi-user.target.wants
ln -s ../pulled.service multi-user.target.wants/pulled.service
printf "$sleeper[Install]\nWantedBy=multi-user.target\n" > /opt/linked/linked.service
systemctl --quiet link /opt/linked/linked.service
systemctl --quiet mask --runtime shy.service coy.service
systemctl daemon-reload
"#;

fn tasks(limited: &str, port: u16, bare: &str) -> String {
    format!(
        r#"
[[task]]
id = "conf"
requires = []
file = {{ path = "/etc/quits.conf", content = "{port}" }}

[[task]]
id = "quits"
reload_on = ["conf"]
systemd = {{ unit = "quits.service", content = "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/kill -HUP $MAINPID\n" }}

[[task]]
id = "oldie"
requires = []
systemd = {{ unit = "oldie.service", enabled = true, state = "any" }}

[[task]]
id = "front"
requires = []
systemd = {{ unit = "front.service", enabled = true }}

[[task]]
id = "linked"
requires = []
systemd = {{ unit = "linked.service", enabled = true }}

[[task]]
id = "pulled"
requires = []
systemd = {{ unit = "pulled.service", enabled = true }}

[[task]]
id = "shy"
requires = []
systemd = {{ unit = "shy.service", masked = true }}

[[task]]
id = "coy"
requires = []
systemd = {{ unit = "coy.service", masked = false }}

[[task]]
id = "limited"
requires = []
systemd = {{ unit = "limited.service", content = "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n[Service]\nExecStart={limited}\n" }}

[[task]]
id = "door"
requires = []
systemd = {{ unit = "door.service", content = "[Service]\nExecStart=/bin/sleep infinity\n" }}

[[task]]
id = "socket"
systemd = {{ unit = "door.socket", content = "[Socket]\nListenStream=127.0.0.1:{port}\n" }}

[[task]]
id = "bare"
requires = []
systemd = {{ unit = "bare.service"{bare} }}
"#
    )
}

#[test]
fn units_are_enabled_started_and_masked_or_the_reason_is_given() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    hosts.out("h1", THEIRS);
    let outcome = |task: &str| hosts.report(task, "h1").outcome;
    let enabled =
        |units: &str| hosts.sh("h1", &format!("systemctl is-enabled {units} 2> /dev/null")).out.replace('\n', " ");

    // Everything that can be enabled is; a unit that cannot fails with the reason, and so does one whose program fails.
    hosts.settled(&hosts.change(&tasks("/bin/false", 7001, ", enabled = true")));
    assert_eq!(
        outcome("s.bare"),
        "failed: the unit bare.service cannot be enabled: it has no [Install] section, and no unit pulls it in; \
         give it `WantedBy=` in a drop-in, or leave `enabled` out"
    );
    assert!(outcome("s.limited").starts_with("failed"), "{}", outcome("s.limited"));
    assert_eq!(enabled("oldie"), "enabled");
    assert_eq!(enabled("front-helper linked shy"), "enabled enabled masked");
    assert_eq!(outcome("s.pulled"), "changed", "it was started, and starts at boot as it is");
    assert_eq!(
        hosts.out("h1", "systemctl is-active front linked pulled coy door.socket door").replace('\n', " "),
        "active active active active active active"
    );

    // The start limit is reached meanwhile; the commit that fixes the unit starts it all the same. A socket is changed whose
    // service runs: both run afterwards.
    hosts.sh("h1", "for i in 1 2 3 4; do systemctl start limited; done");
    hosts.out("h1", "journalctl --sync; journalctl -u limited -o cat | grep -q 'repeated too quickly'");
    let commit = hosts.change(&tasks("/bin/sleep infinity", 7002, ""));
    hosts.converged(&commit);
    assert_eq!(
        hosts.out("h1", "systemctl is-active limited door.socket door").replace('\n', " "),
        "active active active"
    );
    assert_eq!(hosts.out("h1", "systemctl show -P Listen door.socket"), "127.0.0.1:7002 (Stream)");
    // Its reload ends it, which systemd takes for a good end: it was started again, and that is what is reported.
    assert_eq!(outcome("s.quits"), "restarted");
    assert_eq!(hosts.out("h1", "systemctl is-active quits"), "active");
    // Enough restarts to reach the limit by themselves.
    for n in 0..3 {
        hosts.converged(&hosts.change(&tasks(&format!("/bin/sleep 1000{n}"), 7002, "")));
    }
    let all = ["quits", "oldie", "front", "linked", "pulled", "shy", "coy", "limited", "socket", "door", "bare"];
    recheck(&hosts);
    for task in all {
        assert_eq!(outcome(&format!("s.{task}")), "unchanged", "{task}");
    }

    // Drift.
    hosts.out("h1", "update-rc.d oldie disable; systemctl --quiet disable front-helper; systemctl --quiet unmask shy; systemctl --quiet mask --runtime shy");
    let expected = [
        "s.front enabled: enabled -> indirect",
        "s.oldie enabled: enabled -> generated",
        "s.shy masked: masked -> masked until the next boot",
    ];
    assert_eq!(drifted(&hosts), expected);
    recheck(&hosts);
    assert_eq!(enabled("oldie"), "enabled");
    assert_eq!(enabled("front-helper shy"), "enabled masked");

    // Removal: all is as it was found.
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(enabled("oldie"), "disabled");
    assert_eq!(enabled("front-helper linked shy"), "disabled linked masked-runtime");
    assert_eq!(enabled("coy"), "masked-runtime");
    assert_eq!(
        hosts.out(
            "h1",
            "readlink /etc/systemd/system/linked.service; ls /etc/systemd/system/ | grep -E 'door|limited' || true"
        ),
        "/opt/linked/linked.service"
    );
}
