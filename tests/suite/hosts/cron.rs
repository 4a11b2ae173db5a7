//! `cron` on a real host that gets its cron from Debian: create, no change, update, drift, removal, and that it really runs.

use groundplan_tests::{hosts::Hosts, needs_hosts};

use super::{NOTHING, recheck};

const TASKS: &str = r#"
[[task]]
id = "daemon"
package = "cron"

[[task]]
id = "often"
cron = { schedule = "* * * * *", run = "printf '%s' \"$WHO\" > /run/cron-was-here", env = { WHO = "me" } }

[[task]]
id = "escapes"
cron = { schedule = "* * * * *", run = '''printf '%s' 'a\\b\%c%d' > /run/cron-escapes''' }
"#;

#[test]
fn runs_what_is_declared() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).with_internet().serve(TASKS);
    hosts.converged(&hosts.head());
    let file = hosts.out("h1", "ls /etc/cron.d/groundplan-s-often-*").trim().to_owned();
    assert_eq!(hosts.out("h1", &format!("stat -c '%a %U' {file}")), "644 root");

    recheck(&hosts);
    for task in ["s.daemon", "s.often"] {
        assert_eq!(hosts.report(task, "h1").outcome, "unchanged", "{task}");
    }
    hosts.out("h1", &format!("sed -i s/me/them/ {file}"));
    recheck(&hosts);
    assert_eq!(hosts.report("s.often", "h1").outcome, "changed");

    hosts.converged(&hosts.change(&TASKS.replace("\"me\"", "\"you\"")));
    assert!(hosts.file("h1", &file).is_some_and(|text| text.contains("you")));
    // Cron begins a job at each full minute.
    hosts.wait("cron", || (hosts.file("h1", "/run/cron-was-here")? == "you").then_some(()));
    hosts.wait("cron", || (hosts.file("h1", "/run/cron-escapes")? == r"a\\b\%c%d").then_some(()));

    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(hosts.file("h1", &file), None);
    assert_eq!(hosts.sh("h1", "command -v cron").out, "", "what the task installed goes with it");
}
