//! `image` and `container` on a real host, by podman; the image is a static busybox of the host's own.

use groundplan_tests::{
    hosts::{Hosts, Image},
    needs_hosts,
};

/// An image of the root file system `/srv/rootfs-<n>.tar` that lies on the host, and a container that serves the port with it.
fn service(n: u32, greeting: &str, image_only: bool) -> String {
    let image = format!(
        r#"
[[task]]
id = "image"
image = {{ name = "localhost/web:1", path = "/srv/rootfs-{n}.tar", rootfs = true }}
"#
    );
    if image_only {
        return image;
    }
    format!(
        r#"{image}
[[task]]
id = "web"
container = {{ name = "web", image = "localhost/web:1", command = "echo \"$GREETING 100%\" > /index.html; exec httpd -f -p 80 -h /", env = {{ GREETING = "{greeting}" }}, ports = ["8080:80"], volumes = ["/srv:/data:ro"], labels = {{ of = "us" }}, options = ["--stop-signal=KILL"] }}
restart_on = ["image"]
ready = {{ http = "http://127.0.0.1:8080/index.html" }}

[[task]]
id = "beside"
file = {{ path = "/etc/beside", content = "{greeting}" }}
requires = []
"#
    )
}

/// Nothing of podman.
const LAST: &str = "[[task]]\nid = \"x\"\ncommand = { run = \"true\" }\n";
const GET: &str = "busybox wget -qO- http://127.0.0.1:8080/index.html";
const MAKE: &str = r#"
mkdir -p /srv/rootfs/bin && cp /bin/busybox /srv/rootfs/bin/
for name in sh httpd sleep; do ln -sf busybox /srv/rootfs/bin/$name; done
for n in 1 2; do echo $n > /srv/rootfs/version; tar -C /srv/rootfs -cf /srv/rootfs-$n.tar .; done
"#;

/// When the container's unit was started last.
fn started(hosts: &Hosts) -> String {
    hosts.out("h1", "systemctl show --property ActiveEnterTimestampMonotonic --value web.service")
}

#[test]
fn made_anew_only_for_another_image_or_definition() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).image(Image::Podman).serve(LAST);
    hosts.out("h1", MAKE);
    hosts.converged(&hosts.change(&service(1, "hello", false)));
    assert_eq!(hosts.out("h1", GET), "hello 100%");
    assert_eq!(hosts.out("h1", "systemctl is-active web"), "active");
    assert_eq!(hosts.out("h1", "podman container inspect --format '{{.Config.Labels.of}}' web"), "us");
    let first = started(&hosts);

    // Planned again, and asked to be checked again: left running.
    hosts.converged(&hosts.commit(&[("README", "nothing")], "nothing"));
    hosts.ask(&["recheck"]).expect("an answer");
    for task in ["s.image", "s.web"] {
        assert_eq!(hosts.report(task, "h1").outcome, "unchanged", "{task}");
    }
    assert_eq!(started(&hosts), first);

    // Another definition; then another image behind the name.
    hosts.converged(&hosts.change(&service(1, "good day", false)));
    assert_eq!(hosts.out("h1", GET), "good day 100%");
    let second = started(&hosts);
    assert_ne!(second, first);
    hosts.converged(&hosts.change(&service(2, "good day", false)));
    let third = started(&hosts);
    assert_ne!(third, second);
    assert_eq!(hosts.out("h1", "podman exec web /bin/sh -c 'read v < /version; echo $v'"), "2");

    // Behind the agent's back: taken away, and stopped.
    hosts.out("h1", "systemctl stop web && rm /etc/systemd/system/web.service && systemctl daemon-reload");
    hosts.ask(&["recheck", "s.web"]).expect("an answer");
    assert_eq!(hosts.report("s.web", "h1").outcome, "changed");
    assert_eq!(hosts.out("h1", GET), "good day 100%");

    // An image that nobody has: what depends on it waits, all else goes on.
    let wrong = service(2, "bye", false)
        .replace("image = \"localhost/web:1\"", "image = \"localhost/none:1\", pull = \"never\"");
    hosts.settled(&hosts.change(&wrong));
    let outcome = hosts.report("s.web", "h1").outcome;
    let word = "failed: this host has no image `localhost/none:1`, and `pull = \"never\"` says not to ask a registry";
    assert!(outcome.starts_with(word), "{outcome}");
    assert_eq!(hosts.file("h1", "/etc/beside").as_deref(), Some("bye"));
    assert_eq!(hosts.out("h1", GET), "good day 100%", "what ran before runs on");
    let broken = service(2, "bye", false).replace("exec httpd", "exit 3; exec httpd").replace("ready = {", "# {");
    hosts.settled(&hosts.change(&broken));
    let outcome = hosts.report("s.web", "h1").outcome;
    assert!(outcome.starts_with("failed: ") && outcome.contains("see `journalctl -u web`"), "{outcome}");

    // Taken away: the container first, and the image once nothing uses it.
    hosts.converged(&hosts.change(&service(2, "bye", true)));
    assert_eq!(hosts.sh("h1", "podman container exists web").status, Some(1));
    assert_eq!(hosts.sh("h1", "test -e /etc/systemd/system/web.service").status, Some(1));
    hosts.out("h1", "podman run --detach --name other localhost/web:1 /bin/sleep 1000");
    hosts.converged(&hosts.change(LAST));
    assert!(hosts.report("s.image", "h1").output.starts_with("left in place: "));
    assert_eq!(hosts.sh("h1", "podman image exists localhost/web:1").status, Some(0));
}
