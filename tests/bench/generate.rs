//! Generated sites: as large as the design's targets, shaped like real ones.

use std::{fmt::Write as _, fs, path::Path, process::Command};

/// How large.
pub(crate) struct Size {
    /// Nodes.
    pub(crate) nodes: usize,
    /// Services.
    pub(crate) services: usize,
    /// Services on each node.
    pub(crate) per_node: usize,
}

/// Writes a site into `directory` and commits it. Each service has a directory, a template with a var of the site and one of its
/// own, and a process that the template restarts; every tenth service requires what the one before it provides. Groups of
/// services are spread over the nodes so that each node runs `per_node`.
pub(crate) fn site(directory: &Path, size: &Size) {
    let write = |path: &str, text: &str| {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    write("site.toml", "name = \"generated\"\n[vars]\nregion = \"one\"\n");
    for s in 0..size.services {
        let requires = if s % 10 == 1 { format!("requires = [\"cap/s{}\"]\n", s - 1) } else { String::new() };
        let provides = if s % 10 == 0 { format!("provides = [\"cap/s{s}\"]\n") } else { String::new() };
        write(
            &format!("services/s{s}/service.toml"),
            &format!(
                "[service]\ndescription = \"service {s}\"\n{requires}\n[vars]\nport_s{s} = {port}\n\n\
                 [[task]]\nid = \"dir\"\ndirectory = {{ path = \"/etc/s{s}\" }}\n\n\
                 [[task]]\nid = \"config\"\ntemplate = {{ source = \"conf.j2\", path = \"/etc/s{s}/conf\" }}\n\n\
                 [[task]]\nid = \"run\"\nprocess = {{ run = [\"sleep\", \"100000\"] }}\nrestart_on = [\"config\"]\n{provides}",
                port = 20000 + s
            ),
        );
        write(&format!("services/s{s}/conf.j2"), &format!("region = {{{{ region }}}}\nport = {{{{ port_s{s} }}}}\n"));
    }
    let groups = size.services / size.per_node;
    let mut inventory = String::new();
    for g in 0..groups {
        let services: Vec<String> = (0..size.per_node).map(|i| format!("\"s{}\"", g * size.per_node + i)).collect();
        writeln!(inventory, "[groups.g{g}]\nservices = [{}]\n", services.join(", ")).expect("a string grows");
    }
    for n in 0..size.nodes {
        writeln!(
            inventory,
            "[nodes.n{n:04}]\ngroups = [\"g{}\"]\naddress = \"10.0.{}.{}\"\n",
            n % groups,
            n / 250,
            n % 250
        )
        .expect("a string grows");
    }
    write("inventory/nodes.toml", &inventory);
    git(directory, &["init", "-q", "-b", "main"]);
    commit(directory, "generated");
}

/// Commits everything in the work tree.
pub(crate) fn commit(directory: &Path, message: &str) {
    git(directory, &["add", "-A"]);
    git(directory, &["commit", "-q", "-m", message]);
}

/// Runs git.
///
/// # Panics
/// If it fails.
pub(crate) fn git(directory: &Path, args: &[&str]) {
    let status = Command::new("git")
        .args(["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"])
        .args(args)
        .current_dir(directory)
        .status()
        .expect("git is installed");
    assert!(status.success(), "git {args:?}");
}
