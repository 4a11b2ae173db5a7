//! The files that systemd and Quadlet read for containers and pods: text, generated from parameters alone.
//!
//! Words are quoted as in systemd.service(5), so that blanks, `%`, `$`, quotes and line breaks in a parameter have no special
//! meaning. Each text has its own digest as a label, so that podman shows from which text a running container was made.

use std::fmt::Write as _;

use groundplan_protocol::{
    digest::Digest,
    ids::TaskId,
    kinds::{Container, Pod, RestartPolicy, Run},
};

/// The beginning of each text.
pub(super) const MARK: &str = "# Written by groundplan";

/// The label with the digest of the text that a container or pod was made from.
pub(super) const LABEL: &str = "groundplan.definition";

/// A text, and its digest as in the label.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) digest: String,
}

/// The text that `make` generates with a label; the label's digest is of the text without it.
fn labelled(make: impl Fn(Option<String>) -> String) -> Text {
    let digest = Digest::of(make(None).as_bytes()).to_string();
    Text { text: make(Some(format!("--label={LABEL}={digest}"))), digest }
}

/// A unit that runs podman, for hosts without Quadlet and for containers of a pod: as `podman generate systemd --new`
/// prints it.
pub(super) fn service(container: &Container, pod: Option<&Pod>, task: &TaskId) -> Text {
    labelled(|label| service_text(container, pod, task, label))
}

fn service_text(container: &Container, pod: Option<&Pod>, task: &TaskId, label: Option<String>) -> String {
    let mut run = vec!["podman", "run", "--cidfile=%t/%n.ctr-id", "--cgroups=no-conmon", "--rm", "--replace"];
    run.extend(["--detach", "--sdnotify=conmon", "--pull=never"]);
    // Not quoted: these words contain specifiers that systemd expands.
    let mut line = run.join(" ");
    let within = pod.map(|pod| format!("--pod={}", pod.name));
    for word in options(container).into_iter().chain(within).chain(label) {
        let _ = write!(line, " {}", quoted(&word));
    }
    let _ = write!(line, " {}", quoted(&container.image));
    for word in command(container) {
        let _ = write!(line, " {}", quoted(&word));
    }
    // A container of a pod stops and starts with it by its own unit's dependencies: the pod's unit does not name its
    // containers, so that one more or less does not restart the others.
    let (bound, wanted) = match pod.map(Pod::unit) {
        Some(unit) => (format!("BindsTo={unit}\nAfter={unit}\n"), unit),
        None => (String::new(), "multi-user.target".to_owned()),
    };
    format!(
        "{}\
         \n\
         [Service]\n\
         Environment=PODMAN_SYSTEMD_UNIT=%n\n\
         Type=notify\n\
         NotifyAccess=all\n\
         {}\
         TimeoutStartSec=300\n\
         TimeoutStopSec=70\n\
         ExecStartPre=-/bin/rm -f %t/%n.ctr-id\n\
         ExecStart={line}\n\
         ExecStop=podman stop --ignore --cidfile=%t/%n.ctr-id\n\
         ExecStopPost=podman rm --force --ignore --cidfile=%t/%n.ctr-id\n\
         \n\
         [Install]\n\
         WantedBy={wanted}\n",
        head(&format!("Container {}", container.name), task) + &bound,
        restart(container),
    )
}

/// A unit that creates a pod and keeps it running, without its containers.
pub(super) fn pod(pod: &Pod, task: &TaskId) -> Text {
    labelled(|label| pod_text(pod, task, label))
}

fn pod_text(pod: &Pod, task: &TaskId, label: Option<String>) -> String {
    let mut words = vec![format!("--name={}", pod.name)];
    let mut option = |name: &str, value: &str| words.push(format!("--{name}={value}"));
    pod.network.iter().for_each(|network| option("network", network));
    pod.ports.iter().for_each(|port| option("publish", port));
    pod.volumes.iter().for_each(|volume| option("volume", volume));
    pod.labels.iter().for_each(|(key, value)| option("label", &format!("{key}={value}")));
    let words: Vec<String> = words.iter().chain(&pod.options).chain(&label).map(|word| quoted(word)).collect();
    format!(
        "{}\
         \n\
         [Service]\n\
         Environment=PODMAN_SYSTEMD_UNIT=%n\n\
         Type=forking\n\
         PIDFile=%t/%n.pid\n\
         Restart=always\n\
         TimeoutStartSec=300\n\
         TimeoutStopSec=70\n\
         ExecStartPre=-/bin/rm -f %t/%n.pid %t/%n.pod-id\n\
         ExecStartPre=podman pod create --infra-conmon-pidfile=%t/%n.pid --pod-id-file=%t/%n.pod-id --replace {}\n\
         ExecStart=podman pod start --pod-id-file=%t/%n.pod-id\n\
         ExecStop=podman pod stop --ignore --pod-id-file=%t/%n.pod-id\n\
         ExecStopPost=podman pod rm --force --ignore --pod-id-file=%t/%n.pod-id\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        head(&format!("Pod {}", pod.name), task),
        words.join(" "),
    )
}

/// A file for Quadlet (podman-systemd.unit(5)).
pub(super) fn quadlet(container: &Container, task: &TaskId) -> Text {
    labelled(|label| quadlet_text(container, task, label))
}

fn quadlet_text(container: &Container, task: &TaskId, label: Option<String>) -> String {
    let mut text = head(&format!("Container {}", container.name), task);
    let _ = write!(text, "\n[Container]\nContainerName={}\nImage={}\nPull=never\n", container.name, container.image);
    // Without the name, which has a key of its own here.
    let words: Vec<String> = options(container).into_iter().skip(2).chain(label).map(|word| quoted(&word)).collect();
    if !words.is_empty() {
        let _ = writeln!(text, "PodmanArgs={}", words.join(" "));
    }
    let command: Vec<String> = command(container).iter().map(|word| quoted(word)).collect();
    if !command.is_empty() {
        let _ = writeln!(text, "Exec={}", command.join(" "));
    }
    let _ = write!(text, "\n[Service]\n{}TimeoutStartSec=300\n", restart(container));
    if container.enabled.unwrap_or(true) {
        text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    }
    text
}

fn head(description: &str, task: &TaskId) -> String {
    format!(
        "{MARK} for the task {task}: changes here are lost.\n\
         [Unit]\n\
         Description={description}\n\
         Wants=network-online.target\n\
         After=network-online.target\n",
    )
}

fn restart(container: &Container) -> String {
    let policy = match container.restart.unwrap_or_default() {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::No => "no",
    };
    format!("Restart={policy}\n")
}

/// Options of podman-run(1), the name first.
fn options(container: &Container) -> Vec<String> {
    let mut words = vec!["--name".to_owned(), container.name.clone()];
    let mut option = |name: &str, value: &str| words.push(format!("--{name}={value}"));
    container.env.iter().for_each(|(key, value)| option("env", &format!("{key}={value}")));
    let single = [
        ("env-file", &container.env_file),
        ("network", &container.network),
        ("user", &container.user),
        ("memory", &container.memory),
        ("cpus", &container.cpus),
        ("health-cmd", &container.health),
    ];
    single.into_iter().for_each(|(name, value)| value.iter().for_each(|value| option(name, value)));
    container.ports.iter().for_each(|port| option("publish", port));
    container.volumes.iter().for_each(|volume| option("volume", volume));
    container.labels.iter().for_each(|(key, value)| option("label", &format!("{key}={value}")));
    words.extend(container.options.iter().cloned());
    words
}

fn command(container: &Container) -> Vec<String> {
    match &container.command {
        None => Vec::new(),
        Some(Run::Shell(line)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
        Some(Run::Args(args)) => args.clone(),
    }
}

/// A word, quoted so that systemd takes it literally.
fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            // Specifiers (systemd.unit(5)) and variables (systemd.service(5)) are expanded even within quotes.
            '%' => text.push_str("%%"),
            '$' => text.push_str("$$"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container() -> Container {
        serde_json::from_value(json!({
            "name": "web", "image": "localhost/web:1", "command": "echo \"$HOME\" 100%\nsleep 1", "env": { "A": "b c" },
            "ports": ["8080:80"], "volumes": ["/srv:/data:ro"], "memory": "64m", "restart": "on-failure",
        }))
        .unwrap()
    }

    #[test]
    fn a_unit_where_there_is_no_quadlet() {
        let Text { text, digest } = service(&container(), None, &"s.web".parse().unwrap());
        let text = text.replace(&digest, "DIGEST");
        assert!(text.starts_with("# Written by groundplan for the task s.web: changes here are lost.\n[Unit]\n"));
        let line = text.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        assert_eq!(
            line,
            r#"ExecStart=podman run --cidfile=%t/%n.ctr-id --cgroups=no-conmon --rm --replace --detach --sdnotify=conmon --pull=never "--name" "web" "--env=A=b c" "--memory=64m" "--publish=8080:80" "--volume=/srv:/data:ro" "--label=groundplan.definition=DIGEST" "localhost/web:1" "/bin/sh" "-c" "echo \"$$HOME\" 100%%\nsleep 1""#
        );
        assert!(text.contains("\nRestart=on-failure\n"));
    }

    #[test]
    fn a_file_for_quadlet() {
        let Text { text, digest } = quadlet(&container(), &"s.web".parse().unwrap());
        let text = text.replace(&digest, "DIGEST");
        let expected = r#"[Container]
ContainerName=web
Image=localhost/web:1
Pull=never
PodmanArgs="--env=A=b c" "--memory=64m" "--publish=8080:80" "--volume=/srv:/data:ro" "--label=groundplan.definition=DIGEST"
Exec="/bin/sh" "-c" "echo \"$$HOME\" 100%%\nsleep 1"

[Service]
Restart=on-failure
TimeoutStartSec=300

[Install]
WantedBy=multi-user.target
"#;
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn a_pod_and_a_container_of_it_do_not_name_other_containers() {
        let task = "s.app".parse().unwrap();
        let of = |containers| -> Pod {
            let params =
                json!({ "name": "app", "ports": ["8080:80"], "labels": { "of": "a b" }, "containers": containers });
            serde_json::from_value(params).unwrap()
        };
        let two = of(json!([container(), { "name": "log", "image": "localhost/log:1" }]));
        let Text { text, digest } = pod(&two, &task);
        let line = text.lines().find(|line| line.contains("pod create")).unwrap().replace(&digest, "DIGEST");
        assert_eq!(
            line,
            r#"ExecStartPre=podman pod create --infra-conmon-pidfile=%t/%n.pid --pod-id-file=%t/%n.pod-id --replace "--name=app" "--publish=8080:80" "--label=of=a b" "--label=groundplan.definition=DIGEST""#
        );
        let one = of(json!([container()]));
        assert_eq!((text, digest), (pod(&one, &task).text, pod(&one, &task).digest));
        let Text { text, digest } = service(&one.containers[0], Some(&one), &task);
        assert!(text.contains("\nBindsTo=app-pod.service\nAfter=app-pod.service\n\n[Service]\n"), "{text}");
        assert!(text.contains(r#""--pod=app" "--label=groundplan.definition="#), "{text}");
        assert!(text.ends_with("\n[Install]\nWantedBy=app-pod.service\n"), "{text}");
        assert_eq!(digest, service(&two.containers[0], Some(&two), &task).digest);
    }
}
