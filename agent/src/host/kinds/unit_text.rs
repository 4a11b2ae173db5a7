//! What systemd and Quadlet read of a container: text, made of parameters alone.
//!
//! Words are quoted as systemd.service(5) says, so that neither blanks nor `%`, `$`, quotes and line ends in a parameter mean anything.

use std::fmt::Write as _;

use groundplan_protocol::{
    ids::TaskId,
    kinds::{Container, RestartPolicy, Run},
};

/// How each text begins.
pub(super) const MARK: &str = "# Written by groundplan";

/// A unit that runs podman, for hosts without Quadlet: what `podman generate systemd --new` would write.
pub(super) fn service(container: &Container, task: &TaskId) -> String {
    let mut run = vec!["podman", "run", "--cidfile=%t/%n.ctr-id", "--cgroups=no-conmon", "--rm", "--replace"];
    run.extend(["--detach", "--sdnotify=conmon", "--pull=never"]);
    // These words hold specifiers of systemd's own.
    let mut line = run.join(" ");
    for word in options(container) {
        let _ = write!(line, " {}", quoted(&word));
    }
    let _ = write!(line, " {}", quoted(&container.image));
    for word in command(container) {
        let _ = write!(line, " {}", quoted(&word));
    }
    format!(
        "{}\
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
         WantedBy=multi-user.target\n",
        head(container, task),
        restart(container),
    )
}

/// A file for Quadlet (podman-systemd.unit(5)).
pub(super) fn quadlet(container: &Container, task: &TaskId) -> String {
    let mut text = head(container, task);
    let _ = write!(text, "[Container]\nContainerName={}\nImage={}\nPull=never\n", container.name, container.image);
    let words: Vec<String> = options(container).into_iter().skip(2).map(|word| quoted(&word)).collect();
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

fn head(container: &Container, task: &TaskId) -> String {
    format!(
        "{MARK} for the task {task}: changes here are lost.\n\
         [Unit]\n\
         Description=Container {}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n",
        container.name
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

/// A word as systemd takes it for itself.
fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
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
        let text = service(&container(), &"s.web".parse().unwrap());
        assert!(text.starts_with("# Written by groundplan for the task s.web: changes here are lost.\n[Unit]\n"));
        let line = text.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        assert_eq!(
            line,
            r#"ExecStart=podman run --cidfile=%t/%n.ctr-id --cgroups=no-conmon --rm --replace --detach --sdnotify=conmon --pull=never "--name" "web" "--env=A=b c" "--memory=64m" "--publish=8080:80" "--volume=/srv:/data:ro" "localhost/web:1" "/bin/sh" "-c" "echo \"$$HOME\" 100%%\nsleep 1""#
        );
        assert!(text.contains("\nRestart=on-failure\n"));
    }

    #[test]
    fn a_file_for_quadlet() {
        let text = quadlet(&container(), &"s.web".parse().unwrap());
        let expected = r#"[Container]
ContainerName=web
Image=localhost/web:1
Pull=never
PodmanArgs="--env=A=b c" "--memory=64m" "--publish=8080:80" "--volume=/srv:/data:ro"
Exec="/bin/sh" "-c" "echo \"$$HOME\" 100%%\nsleep 1"

[Service]
Restart=on-failure
TimeoutStartSec=300

[Install]
WantedBy=multi-user.target
"#;
        assert!(text.ends_with(expected), "{text}");
    }
}
