//! Bare hosts, with nothing but sshd, that get their agents by `groundplan bootstrap`, and hosts on which that fails.

use std::{
    fs,
    path::{Path, PathBuf},
};

use groundplan_broker::ServerTls;
use groundplan_tests::{binaries, hosts::Hosts, needs_hosts, processes::Identity};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;

const UNIT: &str = "/lib/systemd/system/groundplan-agent.service";

/// A supervised process, a file, a step that lasts until `/var/gate` is there and adds a line to `/var/runs`, and a unit that restarts
/// with the file and adds a line to `/var/starts`.
fn service(greeting: &str) -> String {
    format!(
        r#"
[[task]]
id = "worker"
process = {{ run = "exec sleep infinity" }}

[[task]]
id = "config"
requires = []
file = {{ path = "/etc/greeter.conf", content = "{greeting}\n" }}

[[task]]
id = "slow"
command = {{ run = "echo run >> /var/runs; while [ ! -e /var/gate ]; do sleep 0.05; done" }}
run_on = ["config"]

[[task]]
id = "server"
systemd = {{ unit = "greeter.service", enabled = true, content = """
[Service]
ExecStartPre=/bin/sh -c 'echo start >> /var/starts'
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
""" }}
restart_on = ["config"]
"#
    )
}

fn lines(hosts: &Hosts, host: &str, file: &str) -> usize {
    hosts.file(host, file).map_or(0, |text| text.lines().count())
}

/// The agent's own process and all that it supervises: `sleep infinity` of the process and of the unit.
fn pids(hosts: &Hosts, host: &str) -> (String, String) {
    let agent = hosts.out(host, "systemctl show --property MainPID --value groundplan-agent");
    (
        agent,
        hosts.out(
            host,
            "pgrep -x sleep -a | grep infinity | grep -v \"$(systemctl show --property MainPID --value greeter)\"",
        ),
    )
}

/// The result of a host.
fn of<'a>(result: &'a Value, host: &str) -> &'a Value {
    let nodes = result["nodes"].as_array().expect("nodes");
    nodes.iter().find(|node| node["node"] == host).unwrap_or_else(|| panic!("nothing about {host}: {result:#}"))
}

fn states(result: &Value) -> Vec<&str> {
    result["nodes"].as_array().expect("nodes").iter().map(|node| node["state"].as_str().expect("a state")).collect()
}

/// A file beside the known hosts, that goes with them.
fn beside(hosts: &Hosts, name: &str) -> PathBuf {
    hosts.ssh_config().with_file_name(name)
}

/// Another build of the agent, as far as digests go: bytes behind a program are not loaded.
fn another(hosts: &Hosts, agent: &Path) -> PathBuf {
    let mut bytes = fs::read(agent).expect("the agent");
    bytes.extend(b"\nanother build\n");
    let path = beside(hosts, "another-agent");
    fs::write(&path, bytes).expect("a file");
    path
}

/// All that bootstrap may have put on a host, with times: equal before and after means untouched.
fn traces(hosts: &Hosts, host: &str) -> String {
    hosts.out(
        host,
        "ls -l --time-style=full-iso /usr/bin/groundplan-agent* /etc/groundplan /lib/systemd/system/groundplan-agent* /etc/systemd/system/*/groundplan-agent* \
         2> /dev/null || true",
    )
}

#[test]
fn three_bare_hosts_in_parallel_and_upgraded_during_a_rollout() {
    needs_hosts!();
    let names = ["h1", "h2", "h3"];
    let agent = binaries::static_agent();
    let program = agent.to_str().expect("a path");
    let hosts = Hosts::site(&names).bare().serve(&service("one"));
    hosts.wait("the first commit", || hosts.ask(&["status"]).filter(|status| !status["commit"].is_null()));

    // What would be done, and then it is done.
    let (good, result) = hosts.bootstrap(&["all", "--agent", program, "--dry-run"]);
    assert!(good && states(&result) == ["would_change"; 3], "{result:#}");
    assert!(names.iter().all(|host| traces(&hosts, host).is_empty()), "{}", traces(&hosts, "h1"));
    names.iter().for_each(|host| drop(hosts.out(host, "touch /var/gate")));
    let (good, result) = hosts.bootstrap(&["all", "--agent", program]);
    assert!(good && states(&result) == ["installed"; 3], "{result:#}");
    hosts.converged(&hosts.head());
    for host in names {
        let journal = || hosts.sh(host, "journalctl --no-pager --output short-precise").out;
        assert_eq!((lines(&hosts, host, "/var/runs"), lines(&hosts, host, "/var/starts")), (1, 1), "{}", journal());
        assert_eq!(hosts.out(host, "systemctl is-enabled groundplan-agent"), "enabled");
        let modes = hosts.out(
            host,
            &format!(
                "stat -c '%a %U %n' /usr/bin/groundplan-agent /etc/groundplan/agent.toml {UNIT}; ls -A /etc/groundplan"
            ),
        );
        let expected = format!(
            "755 root /usr/bin/groundplan-agent\n600 root /etc/groundplan/agent.toml\n644 root {UNIT}\nagent.toml"
        );
        assert_eq!(modes, expected);
        assert_eq!(
            hosts.file(host, UNIT).as_deref(),
            Some(include_str!("../../../packaging/systemd/groundplan-agent.service"))
        );
    }

    // The second time everything is up to date.
    let before: Vec<_> = names.iter().map(|host| (traces(&hosts, host), pids(&hosts, host))).collect();
    let (good, result) = hosts.bootstrap(&["all", "--agent", program]);
    assert!(good && states(&result) == ["up_to_date"; 3], "{result:#}");
    let after: Vec<_> = names.iter().map(|host| (traces(&hosts, host), pids(&hosts, host))).collect();
    assert_eq!(before, after);

    // An operator's own key in the configuration stays: on one host tasks are not waited for.
    hosts.out(
        "h3",
        "printf '# ours\\nstop_timeout = \"1s\"\\n' >> /etc/groundplan/agent.toml; systemctl restart groundplan-agent",
    );
    let before: Vec<_> = names.iter().map(|host| pids(&hosts, host)).collect();
    names.iter().for_each(|host| drop(hosts.out(host, "rm /var/gate")));
    let commit = hosts.change(&service("two"));
    for host in names {
        hosts.wait("the slow step", || (lines(&hosts, host, "/var/runs") == 2).then_some(()));
    }
    let another = another(&hosts, &agent);
    let upgrade = hosts
        .bootstrap_command(&["all", "--agent", another.to_str().expect("a path")])
        .spawn()
        .expect("groundplan runs");
    for host in names {
        let stopping = "journalctl --quiet --unit groundplan-agent | grep -q 'stopping; 1 tasks are still running'";
        hosts.wait("the agent to begin to stop", || (hosts.sh(host, stopping).status == Some(0)).then_some(()));
    }
    for host in ["h1", "h2"] {
        assert_eq!(lines(&hosts, host, "/var/starts"), 1, "the restart is still pending");
        hosts.out(host, "touch /var/gate");
    }
    let upgraded = upgrade.wait_with_output().expect("groundplan ends");
    let result: Value = serde_json::from_slice(&upgraded.stdout).expect("JSON");
    assert!(upgraded.status.success() && states(&result) == ["upgraded"; 3], "{result:#}");
    // On that one the step was cut off, and begins again.
    hosts.wait("the slow step again", || (lines(&hosts, "h3", "/var/runs") == 3).then_some(()));
    hosts.out("h3", "touch /var/gate");
    hosts.converged(&commit);
    for (host, (agent, processes)) in names.iter().zip(before) {
        assert_eq!(lines(&hosts, host, "/var/starts"), 2, "the pending restart on {host}, once");
        assert_eq!(hosts.report("s.server", host).outcome, "restarted");
        assert_eq!(lines(&hosts, host, "/var/runs"), if *host == "h3" { 3 } else { 2 });
        let now = pids(&hosts, host);
        assert_eq!(now.1, processes, "what is supervised was left alone on {host}");
        assert_ne!(now.0, agent);
        let leftover = hosts.out(host, "ls -A /etc/groundplan; ls /usr/bin/groundplan-agent*");
        assert_eq!(leftover, "agent.toml\n/usr/bin/groundplan-agent");
    }
    assert!(
        hosts
            .file("h3", "/etc/groundplan/agent.toml")
            .is_some_and(|text| text.ends_with("# ours\nstop_timeout = \"1s\"\n"))
    );
    // The process is supervised as before.
    assert!(hosts.recheck(&["s.worker"], &[]).unchanged.len() == 3);
}

/// The fault of a host.
fn fault<'a>(result: &'a Value, host: &str) -> [&'a str; 4] {
    ["state", "error", "left", "hint"].map(|key| of(result, host)[key].as_str().unwrap_or_default())
}

/// A file system of its own over `/usr/bin`, with room for so many bytes more, and for about so many files.
fn crowd(hosts: &Hosts, host: &str, kib: u32, files: u32) {
    hosts.out(
        host,
        &format!(
            "mkdir -p /run/bin && mount -t tmpfs -o \
             size=$(($(du -sk /usr/bin | cut -f 1) + {kib}))k,nr_inodes=$(($(ls -A /usr/bin | wc -l) + {files})) tmpfs /run/bin && cp -a /usr/bin/. /run/bin/ && \
             mount --bind /run/bin /usr/bin"
        ),
    );
}

/// Waits until no `ssh` of the site runs here.
fn no_ssh(hosts: &Hosts) {
    let config = hosts.ssh_config();
    let mark = config.to_str().expect("a path").as_bytes();
    hosts.wait("the end of every ssh", || {
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let ours = |entry: &fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.starts_with(b"ssh\0") && line.windows(mark.len()).any(|window| window == mark)
        };
        (processes.filter(ours).count() == 0).then_some(())
    });
}

const FILE: &str = "[[task]]\nid = \"file\"\nfile = { path = \"/etc/one\", content = \"1\\n\" }\n";

#[test]
fn hosts_that_cannot_be_bootstrapped_have_distinct_errors_and_stay_as_they_were() {
    needs_hosts!();
    let agent = binaries::static_agent();
    let program = agent.to_str().expect("a path");
    let hosts = Hosts::site(&["changed", "closed", "cut", "full", "good", "jammed", "unknown"]).bare().serve(FILE);
    hosts.wait("the first commit", || hosts.ask(&["status"]).filter(|status| !status["commit"].is_null()));

    hosts.out("changed", "rm /etc/ssh/ssh_host_*; ssh-keygen -q -A; systemctl restart ssh");
    hosts.out("closed", "mv /root/.ssh/authorized_keys /root/keys");
    hosts.cut("cut");
    crowd(&hosts, "full", 3000, 1000);
    crowd(&hosts, "jammed", 20_000, 50);
    hosts.out("jammed", "i=0; while touch /usr/bin/x$i 2> /dev/null; do i=$((i+1)); done; [ $i -gt 0 ]");
    hosts.forget("unknown");
    let bad = ["changed", "closed", "full", "jammed", "unknown"];
    let before: Vec<String> = bad.iter().map(|host| traces(&hosts, host)).collect();

    let (good, result) = hosts.bootstrap(&["all", "--agent", program]);
    assert!(!good);
    let [state, error, left, hint] = fault(&result, "changed");
    assert_eq!((state, left), ("failed", "nothing was changed on the host"), "{result:#}");
    assert!(error.starts_with("the host's key differs from the known one in "), "{error}");
    assert!(hint.contains(&format!("ssh-keygen -R '{}'", hosts.address("changed"))), "{hint}");
    let [_, error, _, hint] = fault(&result, "closed");
    assert!(error.starts_with("cannot log in to the host without a password (it accepts publickey"), "{error}");
    assert!(hint.contains(&format!("ssh-copy-id root@{}", hosts.address("closed"))), "{hint}");
    let [_, error, ..] = fault(&result, "cut");
    assert!(error.starts_with("cannot reach the host: "), "{error}");
    let [state, error, left, _] = fault(&result, "full");
    assert_eq!((state, left), ("refused", "nothing was changed on the host"), "{result:#}");
    assert!(error.starts_with("/usr/bin on the host has not enough space: "), "{error}");
    let [state, error, left, _] = fault(&result, "jammed");
    assert_eq!((state, left), ("failed", "nothing was changed on the host"), "{result:#}");
    assert!(error.starts_with("no space left on the host: /usr/bin/groundplan-agent"), "{error}");
    let [_, error, _, hint] = fault(&result, "unknown");
    assert_eq!(error, "the host's key is unknown");
    assert!(hint.contains("compare the fingerprint"), "{hint}");
    // The others proceeded.
    assert_eq!(of(&result, "good")["state"], "installed", "{result:#}");
    let after: Vec<String> = bad.iter().map(|host| traces(&hosts, host)).collect();
    assert_eq!(before, after);

    // Fixed: the same again.
    for host in ["changed", "unknown"] {
        hosts.know(host);
    }
    hosts.out("closed", "mv /root/keys /root/.ssh/authorized_keys");
    hosts.join("cut");
    for host in ["full", "jammed"] {
        // The shell that runs this is in there itself.
        hosts.out(host, "umount --lazy /usr/bin");
    }
    let (good, result) = hosts.bootstrap(&["all", "--agent", program]);
    assert!(
        good && of(&result, "good")["state"] == "up_to_date" && of(&result, "jammed")["state"] == "installed",
        "{result:#}"
    );
    hosts.converged(&hosts.head());
    no_ssh(&hosts);
}

#[test]
fn an_agent_that_must_not_or_does_not_come_up_leaves_the_one_before() {
    needs_hosts!();
    let agent = binaries::static_agent();
    let program = agent.to_str().expect("a path");
    let mut hosts = Hosts::site(&["h1", "h2"]).bare().serve(FILE);
    hosts.wait("the first commit", || hosts.ask(&["status"]).filter(|status| !status["commit"].is_null()));
    let (good, result) = hosts.bootstrap(&["all", "--agent", program]);
    assert!(good, "{result:#}");
    hosts.converged(&hosts.head());
    let before = (traces(&hosts, "h1"), hosts.file("h1", "/etc/groundplan/agent.toml"));
    let untouched = |hosts: &Hosts, why: &Value| {
        assert_eq!((traces(hosts, "h1"), hosts.file("h1", "/etc/groundplan/agent.toml")), before, "{why:#}");
        assert_eq!(hosts.out("h1", "systemctl is-active groundplan-agent"), "active");
    };
    let another = another(&hosts, &agent);
    let another = another.to_str().expect("a path");

    // Another machine's agent, a dynamic one, and what is none.
    let mut bytes = fs::read(&agent).expect("the agent");
    bytes[18..20].copy_from_slice(&183_u16.to_le_bytes());
    let aarch64 = beside(&hosts, "agent-aarch64");
    fs::write(&aarch64, &bytes).expect("a file");
    let (good, result) = hosts.bootstrap(&["h1", "--agent", aarch64.to_str().expect("a path")]);
    let [state, error, _, hint] = fault(&result, "h1");
    assert!(!good && state == "refused", "{result:#}");
    assert_eq!(error, "the host is x86_64, and the given agents are for aarch64");
    assert!(hint.contains("for x86_64") && hint.contains("--agent"), "{hint}");
    for (file, words) in
        [(binaries::agent(), "is dynamically linked"), (hosts.ssh_config(), "is not a program for Linux")]
    {
        let run =
            hosts.bootstrap_command(&["h1", "--agent", file.to_str().expect("a path")]).output().expect("it runs");
        let result = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.code() == Some(1) && result.contains(words) && result.contains("→"), "{result}");
    }
    // One that is cut off does not run there.
    let half = beside(&hosts, "half-an-agent");
    let whole = fs::read(&agent).expect("the agent");
    fs::write(&half, &whole[..whole.len() * 9 / 10]).expect("a file");
    let (_, result) = hosts.bootstrap(&["h1", "--agent", half.to_str().expect("a path")]);
    assert!(fault(&result, "h1")[1].starts_with("the agent's program does not run on the host"), "{result:#}");
    untouched(&hosts, &result);

    // The connection breaks during the upload.
    let cut =
        "ProxyCommand=bash -c 'exec 3<>/dev/tcp/$0/$1; cat <&3 & dd bs=16384 count=60 status=none >&3; kill $!' %h %p";
    let (_, result) = hosts.bootstrap(&["h1", "--agent", another, "--ssh-option", cut]);
    let [state, error, left, _] = fault(&result, "h1");
    assert!(state == "failed" && error.starts_with("the connection was lost"), "{result:#}");
    assert!(left.starts_with("either none of the files was replaced"), "{left}");
    hosts.wait("nothing to be left of it", || (traces(&hosts, "h1") == before.0).then_some(()));

    // A broker that hosts cannot reach by that name; an address without a listener; and a file that is no certificate.
    let (_, result) = hosts.bootstrap(&["h1", "--agent", program, "--broker", "mqtt://localhost:1883"]);
    assert!(fault(&result, "h1")[1].contains("is a loopback address"), "{result:#}");
    untouched(&hosts, &result);
    let unreachable = "mqtt://198.51.100.1:1";
    let (_, result) = hosts.bootstrap(&["h1", "--agent", another, "--broker", unreachable, "--timeout", "20s"]);
    let [state, error, left, _] = fault(&result, "h1");
    assert_eq!(
        (state, left),
        ("failed", "the previous files were restored, and the previous agent runs"),
        "{result:#}"
    );
    assert!(error.contains("did not connect to the planner in time"), "{error}");
    assert!(of(&result, "h1")["journal"].as_array().is_some_and(|lines| !lines.is_empty()), "{result:#}");
    untouched(&hosts, &result);
    let ca = beside(&hosts, "ca.pem");
    fs::write(&ca, "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n").expect("a file");
    let tls =
        ["h1", "--agent", program, "--broker", "mqtts://198.51.100.1", "--broker-ca", ca.to_str().expect("a path")];
    let (_, result) = hosts.bootstrap(&tls);
    assert!(fault(&result, "h1")[1].starts_with("the agent does not start: "), "{result:#}");
    untouched(&hosts, &result);

    // Broken off by Ctrl-C while the agent is waited for; the same again, without the mistake, finds out and finishes.
    let mut broken =
        hosts.bootstrap_command(&["h1", "--agent", another, "--broker", unreachable]).spawn().expect("groundplan runs");
    hosts.wait("the other program", || {
        assert_eq!(broken.try_wait().expect("a child"), None, "it ended before it was broken off");
        (hosts.file("h1", "/etc/groundplan/agent.toml")?.contains(unreachable)).then_some(())
    });
    Identity::of(broken.id()).expect("a process").interrupt();
    let ended = broken.wait_with_output().expect("groundplan ends");
    let result: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    assert!(ended.status.code() == Some(1) && of(&result, "h1")["state"] == "interrupted", "{result:#}");
    no_ssh(&hosts);
    let broker = format!("mqtt://{}", hosts.fleet.broker.address());
    let (good, result) = hosts.bootstrap(&["h1", "--agent", another, "--broker", &broker]);
    assert!(good, "{result:#}");
    assert_eq!(
        hosts.out("h1", "ls -A /etc/groundplan; ls /usr/bin/groundplan-agent*"),
        "agent.toml\n/usr/bin/groundplan-agent"
    );

    // Another site's, and ours from now on.
    hosts.out(
        "h1",
        "sed -i 's/^site = .*/site = \"elsewhere\"/' /etc/groundplan/agent.toml; systemctl restart groundplan-agent",
    );
    let theirs = traces(&hosts, "h1");
    let (_, result) = hosts.bootstrap(&["all", "--agent", another]);
    let [state, error, _, hint] = fault(&result, "h1");
    assert!(state == "refused" && error == "the host already has an agent, of site elsewhere, node h1", "{result:#}");
    assert!(hint.contains("--take-over"), "{hint}");
    assert_eq!((traces(&hosts, "h1"), of(&result, "h2")["state"].as_str()), (theirs.clone(), Some("upgraded")));
    let (_, result) = hosts.bootstrap(&["h1", "--agent", another, "--take-over"]);
    assert!(fault(&result, "h1")[3].contains("--replace-key"), "its key moves with its state: {result:#}");
    assert_eq!(traces(&hosts, "h1"), theirs);
    let (good, result) = hosts.bootstrap(&["h1", "--agent", another, "--take-over", "--replace-key"]);
    assert!(good, "{result:#}");
    let moved = of(&result, "h1")["moved"].as_str().expect("where the state went");
    hosts.out("h1", &format!("test -s {moved}/node.key && test -s /var/lib/groundplan/node.key"));
    hosts.converged(&hosts.change(&FILE.replace("1\\n", "2\\n")));

    // A host that was installed again has another key.
    hosts.wipe("h2");
    hosts.know("h2");
    let (_, result) = hosts.bootstrap(&["all", "--agent", another]);
    let [state, error, _, hint] = fault(&result, "h2");
    assert!(
        state == "refused" && error.contains("and the host has none") && hint.contains("--replace-key"),
        "{result:#}"
    );
    assert_eq!((traces(&hosts, "h2").as_str(), of(&result, "h1")["state"].as_str()), ("", Some("up_to_date")));
    let (good, result) = hosts.bootstrap(&["h2", "--agent", another, "--replace-key"]);
    assert!(good && states(&result) == ["installed"], "{result:#}");
    hosts.wait("the fresh host", || (hosts.file("h2", "/etc/one").as_deref() == Some("2\n")).then_some(()));
}

#[test]
fn as_a_user_who_may_become_root() {
    needs_hosts!();
    let agent = binaries::static_agent();
    let program = agent.to_str().expect("a path");
    let hosts = Hosts::site(&["h1"]).bare().serve(FILE);
    hosts.wait("the first commit", || hosts.ask(&["status"]).filter(|status| !status["commit"].is_null()));
    hosts.out(
        "h1",
        "useradd --create-home --shell /bin/bash op && cp -r /root/.ssh /home/op/ && chown -R op: /home/op/.ssh && \
         echo 'echo welcome, groundplan: friend' > /home/op/.bashrc",
    );
    let op = ["h1", "--agent", program, "--ssh-user", "op"];
    let (_, result) = hosts.bootstrap(&op);
    assert!(
        fault(&result, "h1")[1].starts_with("the login user on the host is not root")
            && fault(&result, "h1")[3].contains("--sudo"),
        "{result:#}"
    );
    let sudo = [&op[..], &["--sudo"]].concat();
    let (_, result) = hosts.bootstrap(&sudo);
    assert!(fault(&result, "h1")[1].starts_with("`sudo` does not permit becoming root: "), "{result:#}");
    assert_eq!(traces(&hosts, "h1"), "");
    hosts.out("h1", "echo 'op ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/op");
    let (good, result) = hosts.bootstrap(&sudo);
    assert!(good && states(&result) == ["installed"], "{result:#}");
    hosts.converged(&hosts.head());
    let (good, result) = hosts.bootstrap(&sudo);
    assert!(good && states(&result) == ["up_to_date"], "{result:#}");
}

/// A certificate of that name and its key, in PEM.
fn issue(authority: &Issuer<'static, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new([name.to_owned()]).and_then(|params| params.signed_by(&key, authority));
    (certificate.expect("a certificate").pem(), key.serialize_pem())
}

#[test]
fn with_certificates_of_their_own() {
    needs_hosts!();
    let agent = binaries::static_agent();
    let program = agent.to_str().expect("a path");
    let folder = TempDir::new().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path").to_owned()
    };
    let mut params = CertificateParams::new(Vec::new()).expect("names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = write("ca.pem", &params.self_signed(&key).expect("a certificate").pem());
    let authority = Issuer::new(params, key);
    let builder = Hosts::site(&["h1", "h2"]).bare();
    let (certificate, key) = issue(&authority, &builder.own_address().to_string());
    let (certificate, key) = (write("broker.pem", &certificate), write("broker-key.pem", &key));
    let tls = ServerTls::open(ca.as_ref(), certificate.as_ref(), key.as_ref()).expect("a server's side of TLS");
    let hosts = builder.tls(tls).serve(FILE);
    hosts.wait("the first commit", || hosts.ask(&["status"]).filter(|status| !status["commit"].is_null()));
    let give = |node: &str| {
        let (certificate, key) = issue(&authority, node);
        write(&format!("{node}.pem"), &certificate);
        write(&format!("{node}-key.pem"), &key);
    };
    let broker = format!("mqtts://{}", hosts.fleet.broker.tls_address());
    let certs = folder.path().to_str().expect("a path");

    // All files are checked before any host is touched.
    give("h1");
    let args = ["all", "--agent", program, "--broker", &broker, "--broker-ca", &ca, "--broker-certs", certs];
    let run = hosts.bootstrap_command(&args).output().expect("groundplan runs");
    let result = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.code() == Some(1) && result.contains("h2.pem") && result.contains("→"), "{result}");
    assert_eq!(traces(&hosts, "h1"), "");
    let (_, result) = hosts.bootstrap(&args[..5]);
    assert!(fault(&result, "h1")[3].contains("--broker-ca"), "{result:#}");

    give("h2");
    let (good, result) = hosts.bootstrap(&args);
    assert!(good && states(&result) == ["installed", "installed"], "{result:#}");
    hosts.converged(&hosts.head());
    let modes = hosts.out("h1", "stat -c '%a %n' /etc/groundplan/*.pem");
    assert_eq!(modes, "644 /etc/groundplan/ca.pem\n600 /etc/groundplan/node-key.pem\n600 /etc/groundplan/node.pem");
    let connected = format!("ss -Htn state established dst {}", hosts.fleet.broker.tls_address());
    assert_eq!(hosts.out("h1", &connected).lines().count(), 1, "by TLS");

    // One certificate is renewed: that host's agent restarts. Then nothing is left to do, also without naming them again.
    give("h1");
    let (good, result) = hosts.bootstrap(&args);
    assert!(good && states(&result) == ["changed", "up_to_date"], "{result:#}");
    let (good, result) = hosts.bootstrap(&args[..3]);
    assert!(good && states(&result) == ["up_to_date", "up_to_date"], "{result:#}");
}
