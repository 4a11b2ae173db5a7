use super::*;

/// Faults of one service `s` on all nodes, beside a service `db` with a task `start` that runs nowhere.
fn check(service: &str, expect: &str) {
    check_faults(&(on_all(&["s"]) + "=== services/s/service.toml\n[service]\n" + service), expect);
}

/// A task that does nothing much.
fn task(id: &str, rest: &str) -> String {
    format!("[[task]]\nid = \"{id}\"\ncommand = {{ run = \"true\" }}\n{rest}\n")
}

#[test]
fn references_to_what_is_not_there() {
    let db = format!("=== services/db/service.toml\n[service]\n{}", task("start", "provides = [\"database/ready\"]"));
    let refs = "[\"confg\", \"db\", \"dba.start\", \"db.strat\", \"db.start@n9\", \"db.start@n1\", \"s.once@n2\", \"database/redy\", \"what/ever\", \"database/ready\"]";
    check(
        &(task("config", "") + &task("once", "once = true") + &task("x", &format!("requires = {refs}")) + &db),
        r#"
services/s/service.toml:13 ‹"confg"›: service `s` has no task `confg`
  hint: did you mean `config`?
services/s/service.toml:13 ‹"db"›: service `s` has no task `db`
  hint: `db` is a service: name a task of it, such as `db.start`
services/s/service.toml:13 ‹"dba.start"›: there is no service `dba`
  hint: did you mean `db`?
services/s/service.toml:13 ‹"db.strat"›: service `db` has no task `strat`
  hint: did you mean `start`?
services/s/service.toml:13 ‹"db.start@n9"›: there is no node `n9`
services/s/service.toml:13 ‹"db.start@n1"›: `db.start` does not run on node `n1`
  hint: no node runs it
services/s/service.toml:13 ‹"s.once@n2"›: `s.once` runs on one node only, and which that is may change
  hint: write `s.once`, which stands for it on the node where it runs
services/s/service.toml:13 ‹"database/redy"›: no task provides the capability `database/redy`
  hint: did you mean `database/ready`?
services/s/service.toml:13 ‹"what/ever"›: no task provides the capability `what/ever`
  hint: let a task provide it, or declare [external."what/ever"] in site.toml
services/s/service.toml:13 ‹"database/ready"›: capability `database/ready` is provided by `db.start`, which runs on no node
  hint: let a group with nodes in it list the service `db`
"#,
    );
}

#[test]
fn what_a_node_is_shipped_in_all_has_a_limit() {
    let limited = |mib: u32, services: &[&str]| {
        on_all(services).replace("name = \"test\"\n", &format!("name = \"test\"\nmax_node_mib = {mib}\n"))
    };
    let file = |id: &str, source: &str, more: &str| {
        format!("[[task]]\nid = \"{id}\"\nfile = {{ source = \"{source}\", path = \"/{id}\" }}\n{more}\n")
    };
    let content = |name: &str, byte: &str, kib: usize| format!("=== services/s/{name}\n{}\n", byte.repeat(kib * 1024));
    let tasks = file("a", "a", "")
        + &file("b", "b", "")
        + &file("c", "b", "")
        + &file("d", "d", "when = \"node.name == 'n1'\"");
    let files = content("a", "a", 600) + &content("b", "b", 400) + &content("d", "d", 500) + &content("small", "s", 30);
    let text = |mib: u32, tasks: &str| {
        format!("{}=== services/s/service.toml\n[service]\n{tasks}{files}", limited(mib, &["s"]))
    };
    // What two tasks ship counts once: 1000 KiB on two of the nodes.
    check_faults(
        &text(1, &tasks),
        r#"
services/s/service.toml:4 ‹"a"›: node `n1` is shipped 1.5 MiB of files; all of a node together may have 1.0 MiB (0.6 MiB by `s.a`)
  services/s/service.toml:16 ‹"d"›: 0.5 MiB by `s.d`
  services/s/service.toml:8 ‹"b"›: 0.4 MiB by `s.b`
  hint: install what is large as packages, fetch it on the node with a `command`, or raise `max_node_mib` in site.toml and `max_blobs` of the agents
"#,
    );
    check_faults(&text(2, &tasks), "");
    check_faults(
        &text(1, &(file("a", "a", "") + &file("d", "d", "") + &file("e", "small", ""))),
        r#"
services/s/service.toml:4 ‹"a"›: node `n0` (and 2 more) is shipped 1.1 MiB of files; all of a node together may have 1.0 MiB (0.6 MiB by `s.a`)
  services/s/service.toml:8 ‹"d"›: 0.5 MiB by `s.d`
  hint: install what is large as packages, fetch it on the node with a `command`, or raise `max_node_mib` in site.toml and `max_blobs` of the agents
"#,
    );
}

#[test]
fn a_service_that_no_folder_declares() {
    let text = on_all(&["s", "sx", "zzz"]) + "=== services/s/service.toml\n[service]\n" + &task("x", "");
    check_faults(
        &text,
        r#"
inventory/nodes.toml:5 ‹"sx"›: there is no service `sx`
  hint: did you mean `s`?
inventory/nodes.toml:5 ‹"zzz"›: there is no service `zzz`
  hint: declare it in services/zzz/service.toml
"#,
    );
}

#[test]
fn needed_by_names_tasks() {
    check(
        &(task("x", "provides = [\"cap/x\"]")
            + &task("y", "requires = []\nneeded_by = [\"cap/x\", \"s.x@n0\", \"z\"]")),
        r#"
services/s/service.toml:10 ‹"cap/x"›: `needed_by` cannot name a capability: `cap/x`
  hint: name the task that provides it: `s.x`
services/s/service.toml:10 ‹"s.x@n0"›: `needed_by` cannot name one node: `s.x@n0`
  hint: name the task, `s.x`: all its instances then wait
services/s/service.toml:10 ‹"z"›: service `s` has no task `z`
"#,
    );
}

#[test]
fn a_service_does_not_require_itself() {
    check(
        &("requires = [\"cap/x\", \"s.y\"]\n".to_owned() + &task("x", "provides = [\"cap/x\"]") + &task("y", "")),
        r#"
services/s/service.toml:2 ‹"cap/x"›: service `s` requires its own task `s.x`
  hint: what a service requires comes before all its tasks: list it in `requires` of the tasks that need it
services/s/service.toml:2 ‹"s.y"›: service `s` requires its own task `s.y`
  hint: what a service requires comes before all its tasks: list it in `requires` of the tasks that need it
"#,
    );
}

#[test]
fn a_capability_is_provided_once() {
    let site = on_all(&["s"]).replace("name = \"test\"\n", "name = \"test\"\n[external.\"cap/x\"]\naddress = \"x\"\n");
    let tasks = task("x", "provides = [\"cap/x\", \"cap/y\"]") + &task("y", "provides = [\"cap/y\"]");
    check_faults(
        &(site + "=== services/s/service.toml\n[service]\n" + &tasks),
        r#"
services/s/service.toml:5 ‹"cap/x"›: capability `cap/x` is provided twice (here by `s.x`)
  site.toml:2 ‹"cap/x"›: and here outside of the site, by site.toml
  hint: let one of them provide it, or give it another name
services/s/service.toml:9 ‹"cap/y"›: capability `cap/y` is provided twice (here by `s.y`)
  services/s/service.toml:5 ‹"cap/y"›: and here by `s.x`
  hint: let one of them provide it, or give it another name
"#,
    );
}

#[test]
fn cycles_are_reported_whole_and_each_once() {
    check(
        &(task("a", "requires = [\"c\"]")
            + &task("b", "")
            + &task("c", "run_on = [\"b\"]")
            + &task("d", "requires = [\"s.d\"]")
            + &task("e", "requires = []\nneeded_by = [\"f\"]")
            + &task("f", "requires = []\nprovides = [\"cap/f\"]")
            + &task("g", "requires = [\"cap/f\"]\nneeded_by = [\"e\"]")),
        r#"
services/s/service.toml:5 ‹"c"›: tasks wait for each other: s.a → s.c → s.b → s.a (`s.a` requires `s.c`)
  services/s/service.toml:13 ‹"b"›: `s.c` is to run on `s.b`
  services/s/service.toml:7 ‹"b"›: `s.b` follows `s.a` in the file
  hint: remove one of these edges; `requires = []` removes that of the file's order
services/s/service.toml:17 ‹"s.d"›: tasks wait for each other: s.d → s.d (`s.d` requires `s.d`)
  hint: remove one of these edges; `requires = []` removes that of the file's order
services/s/service.toml:32 ‹"e"›: tasks wait for each other: s.e → s.g → s.f → s.e (`s.e` is named in `needed_by` of `s.g`)
  services/s/service.toml:31 ‹"cap/f"›: `s.g` requires `s.f`
  services/s/service.toml:22 ‹"f"›: `s.f` is named in `needed_by` of `s.e`
  hint: remove one of these edges; `requires = []` removes that of the file's order
"#,
    );
}

#[test]
fn undefined_names_in_templates_and_strings() {
    let text = "
[vars]
db_port = 1
[[task]]
id = \"t\"
template = { source = \"t.j2\", path = \"/t\" }
[[task]]
id = \"u\"
file = { content = \"{{ db_port + undefined_one }} {{ db_port.x.y }}\", path = \"/{{ external['cap/x'].address }}\" }
[[task]]
id = \"p\"
process = { run = [\"a\", \"é \\\" {{ prot }} {{ db_port }}\"], env = { A = '{{ db_prot }}', B = \"\"\"
two {{ lines }}\"\"\" } }
ready = { http = \"http://{{ node.adress }}:{{ db_port }}/\" }
=== services/s/t.j2
first {{ db_prot }} {{ db_prot }}
{{ secrets.password }} {{ other|join(',') }}
{% for item in facts.disks %}{{ item }}{% endfor %}
{% include 'part.j2' %}
=== services/s/part.j2
é {{ groups.al[0] }}
";
    check(
        text,
        r#"
services/s/part.j2:1 ‹groups.al›: there is no group `al`
  hint: did you mean `all`?
services/s/service.toml:10 ‹undefined_one›: undefined variable `undefined_one`
  hint: set it in the vars of the service, the site, a group or the node
services/s/service.toml:10 ‹external['cap/x']›: there is no external capability `cap/x`
services/s/service.toml:13 ‹prot›: undefined variable `prot`
  hint: set it in the vars of the service, the site, a group or the node
services/s/service.toml:13 ‹db_prot›: undefined variable `db_prot`
  hint: did you mean `db_port`?
services/s/service.toml:14 ‹lines›: undefined variable `lines`
  hint: set it in the vars of the service, the site, a group or the node
services/s/service.toml:15 ‹node.adress›: `node.adress` is undefined
  hint: did you mean `address`?
services/s/t.j2:1 ‹db_prot›: undefined variable `db_prot`
  hint: did you mean `db_port`?
services/s/t.j2:2 ‹secrets›: `secrets` is known only on the node, where this version does not render templates yet
  hint: use vars, `node`, `groups`, `external`, `facts` and `exports`
services/s/t.j2:2 ‹other›: undefined variable `other`
  hint: set it in the vars of the service, the site, a group or the node
services/s/t.j2:3 ‹facts.disks›: `facts.disks` is undefined
  hint: facts are `addresses`, `arch`, `cpus`, `hostname`, `init`, `kernel`, `local`, `memory`, `os`, `package_manager`
"#,
    );
}

#[test]
fn undefined_names_on_some_nodes_are_reported_once() {
    let site = on_all(&["s"]).replace("[nodes.n0]\n", "[nodes.n0]\nvars = { a = 1 }\n");
    check_faults(
        &(site
            + "=== services/s/service.toml\n[service]\n[[task]]\nid = \"t\"\ntemplate = { source = \"t.j2\", path = \"/t\" }\n\
               === services/s/t.j2\n{{ a }} {{ node.address }}\n"),
        r#"
services/s/t.j2:1 ‹a›: undefined variable `a` (on node `n1`)
  hint: set it in the vars of the service, the site, a group or the node
services/s/t.j2:1 ‹node.address›: `node.address` is undefined (on node `n0`)
  hint: give the node an `address`
"#,
    );
}

#[test]
fn templates_that_cannot_be_read_or_rendered() {
    let t = |id: &str, rest: &str| format!("[[task]]\nid = \"{id}\"\n{rest}\n");
    let text = t("a", "file = { content = \"{{ x\", path = \"/a{% endif %}\" }")
        + &t("b", "template = { source = \"b.j2\", path = \"/b\" }")
        + &t("c", "file = { content = \"{{ 1|nope }} \", path = \"/c{{ nope() }}\" }")
        + &t("d", "file = { content = \"{{ 'a' / 2 }}\", path = \"/d\" }")
        + &t("e", "template = { source = \"e.j2\", path = \"/e\" }")
        + &t("f", "file = { content = \"{{ 1 is nope }}\", path = \"/f\" }");
    check(
        &(text + "=== services/s/b.j2\nline\n{% if %}\n=== services/s/e.j2\nline\n{% include \"no.j2\" %}\n"),
        r#"
services/s/b.j2:2 ‹%}›: syntax error in a template: unexpected end of block
services/s/e.j2:2 ‹include "no.j2"›: there is no template `no.j2` in the service's folder
  hint: name a file by its path below that folder
services/s/service.toml:4 ‹{{›: syntax error in a template: unexpected end of input, expected end of variable block
  hint: is a `}}` missing?
services/s/service.toml:4 ‹endif›: syntax error in a template: unknown statement endif
services/s/service.toml:10 ‹nope›: there is no filter `nope`
services/s/service.toml:10 ‹nope()›: there is no function `nope`
services/s/service.toml:13 ‹'a' / 2›: invalid operation: tried to use / operator on unsupported types string and number
services/s/service.toml:19 ‹nope›: there is no test `nope`
"#,
    );
}

#[test]
fn parameters_are_checked_once_they_are_rendered() {
    let t = |id: &str, rest: &str| format!("[[task]]\nid = \"{id}\"\n{rest}\n");
    let text = "[vars]\nv = \"x\"\n".to_owned()
        + &t("a", "file = { content = \"\", path = \"{{ v }}\", mode = \"{{ v }}\" }")
        + &t("b", "process = { run = [\"\"] }\nready = { tcp = \"{{ v }}\", http = \"{{ v }}\" }")
        + &t("c", "directory = { path = \"/{{ v }}/\" }")
        + &t("d", "command = { run = [\"\", \"{{ v }}\"] }");
    check(
        &text,
        r#"
services/s/service.toml:9 ‹[""]›: `run` of the process is empty
  hint: give a shell line or a list of arguments
services/s/service.toml:6 ‹"{{ v }}"›: `path` of the file: `x` is not an absolute path in its shortest form
  hint: begin with `/`, without `.`, `..`, doubled or trailing slashes
services/s/service.toml:6 ‹"{{ v }}"›: `mode` of the file: `x` is not a file mode
  hint: give three or four octal digits in quotes, such as "0640"
services/s/service.toml:10 ‹"{{ v }}"›: `x` is not a TCP address
  hint: write "host:port", or a port alone
services/s/service.toml:10 ‹"{{ v }}"›: `x` is not an http:// URL
  hint: write it in full, such as "http://127.0.0.1:5000/v3/"; https is not probed
services/s/service.toml:13 ‹"/{{ v }}/"›: `path` of the directory: `/x/` is not an absolute path in its shortest form
  hint: begin with `/`, without `.`, `..`, doubled or trailing slashes
services/s/service.toml:16 ‹["", "{{ v }}"]›: `run` of the command is empty
  hint: give a shell line or a list of arguments
"#,
    );
}

#[test]
fn two_tasks_do_not_use_one_declared_thing_on_a_node() {
    let t = |id: &str, rest: &str| format!("[[task]]\nid = \"{id}\"\ncommand = {{ run = \"x\" }}\n{rest}\n");
    let text = t("a", "conflicts = [\"gpu0\", \"gpu1\"]")
        + &t("b", "conflicts = [\"gpu2\"]\nwhen = \"node.name == 'n0'\"")
        + &t("c", "conflicts = [\"gpu2\"]\nwhen = \"node.name != 'n0'\"")
        + &t("d", "conflicts = [\"gpu1\"]\nonce = true");
    check(
        &text,
        r#"
services/s/service.toml:19 ‹"gpu1"›: two tasks conflict over `gpu1` on node `n0` (`s.d` here)
  services/s/service.toml:5 ‹"gpu1"›: `s.a` here
  hint: let one of them use it, or place the services on different nodes
"#,
    );
}

#[test]
fn two_tasks_do_not_own_one_path_on_a_node() {
    let t = |id: &str, rest: &str| format!("[[task]]\nid = \"{id}\"\n{rest}\n");
    let text = t("a", "file = { content = \"\", path = \"/x\" }")
        + &t("b", "directory = { path = \"/{{ 'x' }}\" }")
        + &t("c", "link = { path = \"/{{ node.name }}\", target = \"x\" }")
        + &t("d", "once = true\ndirectory = { path = \"/n1\" }")
        + &t("e", "directory = { path = \"/n2\" }");
    check(
        &text,
        r#"
services/s/service.toml:7 ‹"/{{ 'x' }}"›: two tasks own `/x` on node `n0` (`s.b` here)
  services/s/service.toml:4 ‹"/x"›: `s.a` here
  hint: let one task own it, or place the services on different nodes
services/s/service.toml:14 ‹"/n1"›: two tasks own `/n1` on node `n1` (`s.d` here)
  services/s/service.toml:10 ‹"/{{ node.name }}"›: `s.c` here
  hint: let one task own it, or place the services on different nodes
services/s/service.toml:17 ‹"/n2"›: two tasks own `/n2` on node `n2` (`s.e` here)
  services/s/service.toml:10 ‹"/{{ node.name }}"›: `s.c` here
  hint: let one task own it, or place the services on different nodes
"#,
    );
}

#[test]
fn no_task_undoes_what_another_does_on_its_node() {
    let t = |id: &str, rest: &str| format!("[[task]]\nid = \"{id}\"\n{rest}\n");
    let text = t("a", "file = { content = \"\", path = \"/x\" }")
        + &t("b", "line = { path = \"/{{ 'x' }}\", line = \"y\" }")
        + &t("c", "once = true\nline = { path = \"/{{ node.name }}\", line = \"y\" }")
        + &t("d", "file = { content = \"\", path = \"/n2\" }")
        + &t("e", "package = [\"p\"]")
        + &t("f", "package = { names = [\"q\", \"p\"], state = \"absent\" }")
        + &t("g", "directory = { path = \"/x/y\" }");
    check(
        &text,
        r#"
services/s/service.toml:7 ‹"/{{ 'x' }}"›: s.b edits the file that s.a writes as a whole, so each undoes what the other does, on node `n0` (`s.b` here)
  services/s/service.toml:4 ‹"/x"›: `s.a` here
  hint: put the text into the content of the file, for which a `template` has variables; a file is edited where something else brings it, such as a package
services/s/service.toml:20 ‹["q", "p"]›: the package `p` is to be installed and to be absent, on node `n0` (`s.f` here)
  services/s/service.toml:16 ‹"e"›: `s.e` here
  hint: take it out of one of the two
services/s/service.toml:23 ‹{ path = "/x/y" }›: s.a makes a file of what is a directory for s.g, on node `n0` (`s.g` here)
  services/s/service.toml:4 ‹"/x"›: `s.a` here
  hint: a path is one or the other: change one of the two
services/s/service.toml:23 ‹{ path = "/x/y" }›: s.b makes a file of what is a directory for s.g, on node `n0` (`s.g` here)
  services/s/service.toml:7 ‹"/{{ 'x' }}"›: `s.b` here
  hint: a path is one or the other: change one of the two
"#,
    );
}

#[test]
fn sources_are_files_of_the_service() {
    let sources =
        ["confi.txt", "/etc/passwd", "../db/x", "dir", "link", "module/x", "module", "down.txt", "bin.j2", "ok"];
    let mut text = on_all(&["s"]) + "=== services/s/service.toml\n[service]\n";
    for (i, source) in sources.iter().enumerate() {
        let kind = if source.ends_with(".j2") { "template" } else { "file" };
        text += &format!("[[task]]\nid = \"t{i}\"\n{kind} = {{ source = \"{source}\", path = \"/{i}\" }}\n");
    }
    text += "=== services/s/config.txt\n=== services/s/dir/down.txt\n=== services/s/ok\n";
    let mut tree = tree(&text);
    tree.put_other("services/s/link", EntryKind::Symlink);
    tree.put_other("services/s/module", EntryKind::Submodule);
    tree.write("services/s/bin.j2", [b'a', 0xff]);
    let (state, faults) = resolved(&tree, &mut Cache::default());
    assert!(state.is_none());
    assert_eq!(
        diagnostics(&tree, &faults).trim(),
        r#"
services/s/service.toml:4 ‹"confi.txt"›: there is no file `confi.txt` in services/s
  hint: did you mean `config.txt`?
services/s/service.toml:7 ‹"/etc/passwd"›: `/etc/passwd` is absolute
  hint: name a file by its path below services/s
services/s/service.toml:10 ‹"../db/x"›: `../db/x` is not a plain path below services/s
  hint: give the plain path, without `.`, `..` or doubled slashes; files outside of the folder are not the service's
services/s/service.toml:13 ‹"dir"›: `dir` is a directory
  hint: name a file in it
services/s/service.toml:16 ‹"link"›: `link` is a symbolic link, and links are not followed
  hint: commit the file itself
services/s/service.toml:19 ‹"module/x"›: `module/x` lies in `services/s/module`, which is a submodule: what is there is not in this repository
  hint: commit the file itself
services/s/service.toml:22 ‹"module"›: `module` is a submodule: what is there is not in this repository
  hint: commit the files themselves
services/s/service.toml:25 ‹"down.txt"›: there is no file `down.txt` in services/s
  hint: did you mean `dir/down.txt`?
services/s/service.toml:28 ‹"bin.j2"›: `bin.j2` is not a template: it is not UTF-8 at byte 1
  hint: ship it as it is, with `file`
"#
        .trim()
    );
}

#[test]
fn a_service_that_runs_nowhere_is_checked_as_far_as_it_can_be() {
    let text = on_all(&[])
        + "=== services/s/service.toml\n[service]\n[[task]]\nid = \"a\"\ntemplate = { source = \"a.j2\", path = \"/a\" }\n\
           [[task]]\nid = \"b\"\nfile = { source = \"no\", path = \"b\" }\n[[task]]\nid = \"c\"\ncommand = { run = \"{{ some_var }}\" }\n\
           === services/s/a.j2\n{% if %}";
    check_faults(
        &text,
        r#"
services/s/service.toml:7 ‹"b"›: `path` of the file: `b` is not an absolute path in its shortest form
  hint: begin with `/`, without `.`, `..`, doubled or trailing slashes
services/s/a.j2:1 ‹%}›: syntax error in a template: unexpected end of block
services/s/service.toml:7 ‹"no"›: there is no file `no` in services/s
"#,
    );
}
