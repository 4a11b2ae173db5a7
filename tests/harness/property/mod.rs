//! The property of all hosts: whatever commits a host has lived through, what is on it equals a fresh host that was brought to the
//! latest of them, except for what `on_remove` says, and nothing that no task ever owned was touched.
//!
//! In: a seed. Out: how many commits held, or the first one that did not, with all differences. Real are planner, broker, agents and
//! hosts; made up are the sites. The seed decides the sites and what is done to them; when an agent is killed is up to the machine.

mod choice;
mod expectation;
mod explain;
mod fingerprint;
mod generator;
mod prepare;
mod run;
mod site;
mod texts;
mod things;

pub use self::run::{Property, Totals};

/// Prints what a host runs: units, kernel parameters, programs. Each line is a key and a value, with a tab in between.
const PRINTS: &str = r#"
print() { test -z "$id" || printf 'unit %s\t%s %s %s\n' "$id" "$load" "$active" "$file"; id=; load=; active=; file=; }
systemctl show --property Id,LoadState,ActiveState,UnitFileState prop0.service prop1.service prop2.service prop3.service |
{ while IFS='=' read -r key value; do
    case "$key" in Id) id=$value;; LoadState) load=$value;; ActiveState) active=$value;; UnitFileState) file=$value;; '') print;; esac
done; print; }
for name in net.ipv4.tcp_keepalive_intvl net.ipv4.conf.default.log_martians net.ipv4.ip_default_ttl; do
    printf 'sysctl %s\t%s\n' "$name" "$(cat "/proc/sys/$(echo "$name" | tr . /)")"
done
printf 'hostname\t%s\n' "$(cat /proc/sys/kernel/hostname)"
dpkg-query -W -f='package ${Package}\t${db:Status-Abbrev}${Version}\n'
awk '/^Package:/ { name = $2 } /^Auto-Installed: 1/ { print "package " name "\tfor another one" }' /var/lib/apt/extended_states
podman image ls --all --no-trunc --format '{{.Repository}}:{{.Tag}} {{.Id}}' | sort | sed 's/^\([^ ]*\) /image \1\t/'
ps -eo args= | sed -n 's,^\(/bin/\)\?sleep \(\(31\|77\).\)\(.*\)$,process \2\t\4,p' | sort
"#;
