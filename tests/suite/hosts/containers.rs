//! `image`, `container` and `pod` on a real host, by podman; the image is a static busybox of the host's own.

use groundplan_tests::{
    hosts::{Hosts, Image},
    needs_hosts,
};

use super::{drifted, recheck};

/// An image of the root file system `/srv/rootfs-<n>.tar` that is on the host, and a container that serves the port with it.
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
for name in sh httpd sleep wget; do ln -sf busybox /srv/rootfs/bin/$name; done
for n in 1 2; do echo $n > /srv/rootfs/version; tar -C /srv/rootfs -cf /srv/rootfs-$n.tar .; done
"#;

/// When the container's unit was started last.
fn started(hosts: &Hosts) -> String {
    hosts.out("h1", "systemctl show --property ActiveEnterTimestampMonotonic --value web.service")
}

/// Has a container start that ends at once with an exit code, which fails. Its start is watched for a second: on a busy machine it may take
/// longer to end, and is tried again.
fn ends_at_once(hosts: &Hosts, task: &str, unit: &str, service: impl Fn(u8) -> String) {
    for code in 3..=12 {
        hosts.settled(&hosts.change(&service(code)));
        let outcome = hosts.report(task, "h1").outcome;
        if outcome.starts_with("failed: ") {
            assert!(outcome.contains(&format!("see `journalctl -u {unit}`")), "{outcome}");
            return;
        }
    }
    panic!("{task} never failed");
}

#[test]
fn replaced_only_for_another_image_or_definition() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).image(Image::Podman).serve(LAST);
    hosts.out("h1", MAKE);
    hosts.converged(&hosts.change(&service(1, "hello", false)));
    assert_eq!(hosts.out("h1", GET), "hello 100%");
    assert_eq!(hosts.out("h1", "systemctl is-active web"), "active");
    assert_eq!(hosts.out("h1", "podman container inspect --format '{{.Config.Labels.of}}' web"), "us");
    let first = started(&hosts);

    // Planned again, and rechecked: left running.
    hosts.converged(&hosts.commit(&[("README", "nothing")], "nothing"));
    recheck(&hosts);
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

    // Out of band: removed, and stopped.
    hosts.out("h1", "systemctl stop web && rm /etc/systemd/system/web.service && systemctl daemon-reload");
    let drift = drifted(&hosts);
    assert_eq!(drift[0], "s.web /etc/systemd/system/web.service: file: present -> -");
    assert!(drift.iter().any(|line| line == "s.web container web: present -> -"), "{drift:?}");
    assert!(drift.iter().all(|line| line.starts_with("s.web ")), "{drift:?}");
    hosts.ask(&["recheck", "s.web"]).expect("an answer");
    assert_eq!(hosts.report("s.web", "h1").outcome, "changed");
    assert_eq!(hosts.out("h1", GET), "good day 100%");

    // An image that does not exist: what depends on it is blocked, everything else proceeds.
    let wrong = service(2, "bye", false)
        .replace("image = \"localhost/web:1\"", "image = \"localhost/none:1\", pull = \"never\"");
    hosts.settled(&hosts.change(&wrong));
    let outcome = hosts.report("s.web", "h1").outcome;
    let start = "failed: this host has no image `localhost/none:1`, and `pull = \"never\"` forbids to ask a registry";
    assert!(outcome.starts_with(start), "{outcome}");
    assert_eq!(hosts.file("h1", "/etc/beside").as_deref(), Some("bye"));
    assert_eq!(hosts.out("h1", GET), "good day 100%", "what ran before runs on");
    ends_at_once(&hosts, "s.web", "web", |code| {
        service(2, "bye", false).replace("exec httpd", &format!("exit {code}; exec httpd")).replace("ready = {", "# {")
    });

    // Removed: the container first, and the image once nothing uses it.
    hosts.converged(&hosts.change(&service(2, "bye", true)));
    assert_eq!(hosts.sh("h1", "podman container exists web").status, Some(1));
    assert_eq!(hosts.sh("h1", "test -e /etc/systemd/system/web.service").status, Some(1));
    hosts.out("h1", "podman run --detach --name other localhost/web:1 /bin/sleep 1000");
    hosts.converged(&hosts.change(LAST));
    assert!(hosts.report("s.image", "h1").output.starts_with("left in place: "));
    assert_eq!(hosts.sh("h1", "podman image exists localhost/web:1").status, Some(0));
}

/// Archives of two images under one name, which the host itself has for a third one by then.
const ARCHIVES: &str = r#"
for n in 1 2; do
    podman import --quiet /srv/rootfs-$n.tar localhost/theirs:1; podman save --quiet --output /srv/archive-$n.tar localhost/theirs:1
    podman image rm localhost/theirs:1
done
podman load --quiet --input /srv/archive-2.tar
"#;

#[test]
fn an_image_takes_no_name_but_its_own_and_leaves_nothing_behind() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).image(Image::Podman).serve(LAST);
    hosts.out("h1", MAKE);
    hosts.out("h1", ARCHIVES);
    let images =
        || hosts.out("h1", "podman image ls --all --no-trunc --format '{{.Repository}}:{{.Tag}} {{.Id}}' | sort");
    let image = |name: &str, archive: u32| {
        let image = format!("image = {{ name = \"localhost/{name}:1\", path = \"/srv/archive-{archive}.tar\" }}");
        format!("[[task]]\nid = \"image\"\n{image}\n{LAST}")
    };
    let before = images();
    assert_eq!(before.lines().count(), 1, "{before}");
    // The archive names an image that the host has: that one keeps the name.
    hosts.converged(&hosts.change(&image("ours", 1)));
    let with = images();
    assert!(with.lines().count() == 2 && with.contains(&before) && with.contains("localhost/ours:1"), "{with}");
    // The image of a former archive goes, unless it has other names.
    hosts.converged(&hosts.change(&image("ours", 2)));
    let with = images();
    assert!(with.lines().count() == 2 && with.contains(&before) && with.contains("localhost/ours:1"), "{with}");
    hosts.converged(&hosts.change(&image("ours", 1)));
    hosts.converged(&hosts.change(LAST));
    assert_eq!(images(), before);
    // Several at a time, whose archives all have one name in them.
    let task = |n: u32| {
        let image = format!("image = {{ name = \"localhost/ours{n}:1\", path = \"/srv/archive-{}.tar\" }}", 1 + n % 2);
        format!("[[task]]\nid = \"image{n}\"\n{image}\n")
    };
    let several: String = (0..6).map(task).chain([LAST.to_owned()]).collect();
    for _ in 0..2 {
        hosts.converged(&hosts.change(&several));
        let with = images();
        let id =
            |name: &str| with.lines().find_map(|line| line.strip_prefix(&format!("{name}:1 "))).unwrap_or_default();
        for n in 0..6 {
            assert_eq!(id(&format!("localhost/ours{n}")), id(&format!("localhost/ours{}", n % 2)), "{with}");
        }
        assert!(with.lines().count() == 7 && with.contains(&before) && id("localhost/ours0") != id("localhost/ours1"));
        hosts.converged(&hosts.change(LAST));
        assert_eq!(images(), before);
    }
    // What was there before, and equal, stays.
    hosts.converged(&hosts.change(&image("theirs", 2)));
    assert_eq!(images(), before);
    hosts.converged(&hosts.change(LAST));
    assert_eq!(images(), before);
}

/// Images of root file systems on the host, and a pod of two containers; `more` is another container of it.
fn pod(page: &str, note: &str, image: u32, ports: &str, more: &str) -> String {
    format!(
        r#"
[[task]]
id = "page-image"
image = {{ name = "localhost/page:1", path = "/srv/rootfs-1.tar", rootfs = true }}

[[task]]
id = "note-image"
image = {{ name = "localhost/note:1", path = "/srv/rootfs-{image}.tar", rootfs = true }}

[[task]]
id = "app"
reload_on = ["page-image", "note-image"]

[task.pod]
name = "app"
ports = [{ports}]
labels = {{ of = "us" }}

[[task.pod.containers]]
name = "page"
image = "localhost/page:1"
command = "echo '{page}' > /index.html; exec httpd -f -p 80 -h /"
options = ["--stop-signal=KILL"]

[[task.pod.containers]]
name = "note"
image = "localhost/note:1"
command = "echo '{note}' > /index.html; exec httpd -f -p 81 -h /"
options = ["--stop-signal=KILL"]
{more}
[[task]]
id = "beside"
file = {{ path = "/etc/beside", content = "{note}" }}
requires = []
"#
    )
}

const PORT: &str = "\"8080:80\"";
const THIRD: &str = r#"
[[task.pod.containers]]
name = "third"
image = "localhost/page:1"
command = ["sleep", "100000"]
options = ["--stop-signal=KILL"]
"#;

/// As an agent leaves it that was killed between the two: the unit's text is current, and what runs was made from another.
const STALE: &str = "
cd /etc/systemd/system && cp -p note.service /root/kept && sed -i 's/deux/trois/; s/definition=[^ ]*\"/definition=other\"/' note.service
systemctl daemon-reload && systemctl restart note && cp -p /root/kept note.service && systemctl daemon-reload
";

/// When the units of the pod and of its two containers were started last.
fn pod_started(hosts: &Hosts) -> [String; 3] {
    ["app-pod", "page", "note"].map(|unit| {
        hosts.out("h1", &format!("systemctl show --property ActiveEnterTimestampMonotonic --value {unit}.service"))
    })
}

#[test]
fn a_container_of_a_pod_is_replaced_alone() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).image(Image::Podman).serve(LAST);
    hosts.out("h1", MAKE);
    hosts.converged(&hosts.change(&pod("one", "two", 1, PORT, "")));
    hosts.wait("its page", || (hosts.sh("h1", GET).out == "one").then_some(()));
    assert_eq!(hosts.out("h1", "podman exec page wget -qO- http://127.0.0.1:81/index.html"), "two", "one network");
    assert_eq!(hosts.out("h1", "podman pod inspect --format '{{.Labels.of}} {{.NumContainers}}' app"), "us 3");
    assert_eq!(hosts.out("h1", "systemctl is-enabled app-pod"), "enabled");
    let first = pod_started(&hosts);

    // Planned again, and rechecked: left running.
    hosts.converged(&hosts.commit(&[("README", "nothing")], "nothing"));
    assert_eq!(drifted(&hosts), [""; 0]);
    let checked = hosts.recheck(&[], &[]);
    assert_eq!((checked.changed, checked.unchanged.contains(&"s.app@h1".to_owned())), (vec![], true));
    assert_eq!(pod_started(&hosts), first);

    // Another definition of one container, then another image of it, then a third container: the rest runs on.
    hosts.converged(&hosts.change(&pod("one", "deux", 1, PORT, "")));
    let second = pod_started(&hosts);
    assert_eq!((&second[..2], second[2] != first[2]), (&first[..2], true));
    hosts.converged(&hosts.change(&pod("one", "deux", 2, PORT, "")));
    assert_eq!(hosts.report("s.app", "h1").outcome, "reloaded");
    let third = pod_started(&hosts);
    assert_eq!((&third[..2], third[2] != second[2]), (&first[..2], true));
    assert_eq!(hosts.out("h1", "podman exec note /bin/sh -c 'read v < /version; echo $v'"), "2");
    hosts.converged(&hosts.change(&pod("one", "deux", 2, PORT, THIRD)));
    assert_eq!(hosts.out("h1", "systemctl is-active third"), "active");
    hosts.converged(&hosts.change(&pod("one", "deux", 2, PORT, "")));
    assert_eq!(hosts.sh("h1", "podman container exists third").status, Some(1));
    assert_eq!(hosts.sh("h1", "test -e /etc/systemd/system/third.service").status, Some(1));
    assert_eq!(pod_started(&hosts), third);

    // A parameter of the pod itself: all containers are replaced.
    hosts.converged(&hosts.change(&pod("one", "deux", 2, "\"8080:80\", \"8081:81\"", "")));
    let replaced = pod_started(&hosts);
    assert!(replaced.iter().zip(&third).all(|(now, before)| now != before), "{replaced:?} {third:?}");
    assert_eq!(hosts.out("h1", "busybox wget -qO- http://127.0.0.1:8081/index.html"), "deux");

    // Out of band: one stopped, the unit of another removed; then a unit whose text was only written.
    hosts.out("h1", "podman kill note && systemctl stop note && rm /etc/systemd/system/page.service");
    let drift = drifted(&hosts);
    assert_eq!(drift[0], "s.app /etc/systemd/system/page.service: file: present -> -");
    assert!(drift.iter().any(|line| line.starts_with("s.app active note.service: active -> ")), "{drift:?}");
    assert_eq!(hosts.recheck(&["s.app"], &[]).changed, ["s.app@h1"]);
    assert_eq!(hosts.out("h1", "systemctl is-active page note app-pod"), "active\nactive\nactive");
    assert_eq!(pod_started(&hosts)[..2], replaced[..2], "of `page` only the unit's file was missing");
    hosts.out("h1", STALE);
    assert_eq!(hosts.out("h1", "podman exec page wget -qO- http://127.0.0.1:81/index.html"), "trois");
    assert_eq!(hosts.recheck(&["s.app"], &[]).changed, ["s.app@h1"]);
    assert_eq!(hosts.out("h1", "podman exec page wget -qO- http://127.0.0.1:81/index.html"), "deux");
    let before = pod_started(&hosts);

    // An image that does not exist: nothing is touched, everything else proceeds.
    let wrong =
        pod("bye", "bye", 2, PORT, &THIRD.replace("localhost/page:1\"", "localhost/none:1\"\npull = \"never\""));
    hosts.settled(&hosts.change(&wrong));
    let outcome = hosts.report("s.app", "h1").outcome;
    let start = "failed: this host has no image `localhost/none:1`, and `pull = \"never\"` forbids to ask a registry";
    assert!(outcome.starts_with(start), "{outcome}");
    assert_eq!(hosts.file("h1", "/etc/beside").as_deref(), Some("bye"));
    assert_eq!(pod_started(&hosts), before);

    // One that ends at once does not hold back the other; removed, nothing is left.
    ends_at_once(&hosts, "s.app", "note", |code| {
        pod("bye", "bye", 2, PORT, "").replace("exec httpd -f -p 81", &format!("exit {code}"))
    });
    assert_eq!(hosts.out("h1", GET), "bye");
    hosts.converged(&hosts.change(LAST));
    assert_eq!(hosts.out("h1", "podman pod ls --quiet; podman ps --all --quiet"), "");
    assert_eq!(hosts.out("h1", "ls /etc/systemd/system | grep -E 'app|page|note' || true"), "");
    assert_eq!(hosts.out("h1", "systemctl list-units --all --plain --no-legend 'app-pod*' 'page*' 'note*'"), "");
}
