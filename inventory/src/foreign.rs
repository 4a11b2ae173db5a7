//! What words of other tools (Ansible, Salt, Puppet, Compose, Helm) are called here: the one table of such hints.
//!
//! In: a name that is not known where it stands, and the names that are. Out: a hint, if the name is a word of another tool. A row
//! applies only where the name that its hint leads to is allowed, so that no word is explained in the wrong place.

/// A word of another tool, a name that must be allowed where it stands, and the hint.
type Row = (&'static str, &'static str, &'static str);

const TRIGGER: &str = "triggers stand on the task that they act on: there, list the id of this one in `restart_on`, `reload_on` or `run_on`";
const ORDER: &str = "write `requires = [\"…\"]`, with ids of tasks or capabilities";
const ORDERED: &str = "write `needed_by = [\"…\"]`, with ids of tasks";
const ON: &str = "write `restart_on`, `reload_on` or `run_on`, with ids of tasks";
const EACH: &str = "write one task for each; packages, options and the like stand in one task as a list or table";
const USER: &str = "leave it out: tasks act as the agent's user; `command` and `process` have a `user`";
const FAILURE: &str = "leave it out: a task that failed holds back only what depends on it";
const GUARD: &str = "a `command` has the guards `creates`, `unless` and `only_if`";
const PACKAGE: &str = "write `package = { names = [\"…\"] }`: it uses the host's own package manager";
const COMMAND: &str =
    "write `command = { run = \"…\" }`: a text is a line for the shell, a list is a program with arguments";
const UNIT: &str = "write `unit`: the unit's full name with its type, such as \"nginx.service\"";
const RETRY: &str =
    "a task is done when its `ready` passes, which is tried until then; the kind `wait` waits before another task";
const WITHIN: &str = "`command`, `process` and other kinds that run programs have `env`, which stands in their braces";
const INCLUDE: &str =
    "leave it out: a service has all its tasks in its service.toml; what several need is a service of its own";
const TEST: &str = "write `command = { run = \"…\" }`: if it fails, that holds back what requires it";
const DOWNLOAD: &str = "write `command = { run = [\"…\"], creates = \"…\" }`: files come from the repository otherwise";
const INSTALL: &str = "write `command`, with a guard such as `creates`; `package` uses the host's own package manager";
const ALL: &str = "leave it out: a plan contains what has changed and what follows from it";

/// Keys, and words where one of several is to be chosen.
const KEYS: &[Row] = &[
    ("notify", "restart_on", TRIGGER),
    ("notifies", "restart_on", TRIGGER),
    ("watch_in", "restart_on", TRIGGER),
    ("onchanges_in", "restart_on", TRIGGER),
    ("listen", "restart_on", ON),
    ("subscribe", "restart_on", ON),
    ("subscribes", "restart_on", ON),
    ("watch", "restart_on", ON),
    ("onchanges", "restart_on", ON),
    ("depends_on", "requires", ORDER),
    ("depends", "requires", ORDER),
    ("dependencies", "requires", ORDER),
    ("needs", "requires", ORDER),
    ("require", "requires", ORDER),
    ("after", "requires", ORDER),
    ("require_in", "needed_by", ORDERED),
    ("required_by", "needed_by", ORDERED),
    ("before", "needed_by", ORDERED),
    (
        "handlers",
        "task",
        "there are no handlers: a task lists in `restart_on`, `reload_on` or `run_on` what acts on it",
    ),
    ("name", "unit", UNIT),
    ("service", "unit", UNIT),
    ("daemon_reload", "unit", "leave it out: systemd reads a changed unit file again by itself"),
    ("running", "state", "write `state = \"started\"` or `state = \"stopped\"`"),
    ("ensure", "state", "write `state`"),
    ("name", "id", "write `id`: one word, by which other tasks refer to this one"),
    ("dest", "path", "write `path`: the place on the node"),
    ("src", "source", "write `source`: a file below the service's folder, or what is mounted"),
    ("device", "source", "write `source`: what is mounted"),
    ("src", "target", "write `target`: what the link leads to"),
    ("permissions", "mode", "write `mode`, in octal and in quotes, such as \"0640\""),
    ("chdir", "cwd", "write `cwd`"),
    ("workdir", "cwd", "write `cwd`"),
    ("environment", "env", "write `env`"),
    ("cmd", "run", "write `run`"),
    ("become_user", "user", "write `user`"),
    ("runas", "user", "write `user`"),
    (
        "state",
        "path",
        "leave it out: a task that is left out of its service is removed; directories and links have kinds of their own",
    ),
    ("loop", "id", EACH),
    ("with_list", "id", EACH),
    ("with_sequence", "id", EACH),
    ("with_together", "id", EACH),
    ("with_nested", "id", EACH),
    ("loop_control", "id", EACH),
    ("retries", "id", "`retry = { attempts = 3, backoff = \"30s\" }` has a task that fails tried again"),
    ("until", "id", RETRY),
    ("delay", "id", RETRY),
    ("vars", "id", "vars stand in `[vars]` of the service or the site, or in `vars` of a group or a node"),
    ("env", "id", WITHIN),
    ("environment", "id", WITHIN),
    ("ports", "id", "they are parameters of `container` and `pod`, and stand in its braces"),
    ("volumes", "id", "they are parameters of `container` and `pod`, and stand in its braces"),
    ("description", "id", "write it as a comment: # …"),
    ("comment", "id", "write it as a comment: # …"),
    ("include", "id", INCLUDE),
    ("include_tasks", "id", INCLUDE),
    ("import_tasks", "id", INCLUDE),
    ("include_role", "id", INCLUDE),
    ("import_role", "id", INCLUDE),
    ("assert", "id", TEST),
    ("fail", "id", TEST),
    ("debug", "id", "leave it out: `groundplan show` prints what a task has printed"),
    ("stat", "id", "write a `when` on `facts`, or a guard of a `command`: `creates`, `unless` or `only_if`"),
    ("pause", "wait", "write `wait`"),
    ("get_url", "command", DOWNLOAD),
    ("uri", "command", DOWNLOAD),
    ("git", "command", DOWNLOAD),
    ("pip", "command", INSTALL),
    ("npm", "command", INSTALL),
    ("gem", "command", INSTALL),
    ("authorized_key", "user", "write `user`, with `ssh_keys`"),
    ("replace", "line", "write `line`"),
    ("ansible", "id", "write the kind alone, without the name of a collection; `groundplan kinds` lists all kinds"),
    ("serial", "rollout", "write `[rollout]` with `max_unavailable`: on how many nodes it may be unavailable at once"),
    ("with_items", "id", EACH),
    ("with_dict", "id", EACH),
    ("with_fileglob", "id", EACH),
    ("become", "id", USER),
    ("become_user", "id", USER),
    ("sudo", "id", USER),
    ("remote_user", "id", USER),
    ("ignore_errors", "id", FAILURE),
    ("failed_when", "id", GUARD),
    ("changed_when", "id", GUARD),
    ("creates", "id", GUARD),
    ("unless", "id", GUARD),
    ("only_if", "id", GUARD),
    ("onlyif", "only_if", "write `only_if`"),
    ("register", "id", "a task of the kind `export` publishes a value, for templates as `exports.<service>.<task>`"),
    (
        "set_fact",
        "export",
        "write a var, or a task of the kind `export`, whose value templates read as `exports.<service>.<task>`",
    ),
    ("run_once", "once", "write `once = true`"),
    (
        "delegate_to",
        "id",
        "a task runs on the nodes whose groups list its service: list the service in a group of that node",
    ),
    ("tags", "id", ALL),
    ("check_mode", "id", "leave it out: `groundplan plan` shows what a commit would do"),
    ("block", "id", "write its tasks one after the other: they run in the order of the file"),
    ("shell", "command", COMMAND),
    ("cmd", "command", COMMAND),
    ("exec", "command", COMMAND),
    ("script", "command", COMMAND),
    ("raw", "command", COMMAND),
    ("apt", "package", PACKAGE),
    ("dnf", "package", PACKAGE),
    ("yum", "package", PACKAGE),
    ("apk", "package", PACKAGE),
    ("pkg", "package", PACKAGE),
    ("copy", "file", "write `file`, with `source` or `content`, and `path`"),
    ("lineinfile", "line", "write `line`, with `line`"),
    ("blockinfile", "line", "write `line`, with `block`"),
    ("ini_file", "ini", "write `ini`"),
    ("unarchive", "archive", "write `archive`"),
    ("service", "systemd", "write `systemd`, with `unit`"),
    ("docker", "container", "write `container`: podman runs it as a unit"),
    ("docker_container", "container", "write `container`: podman runs it as a unit"),
    ("reload", "reload_on", "write `reload_on`, with ids of tasks"),
    ("restart", "restart_on", "write `restart_on`, with ids of tasks"),
    ("hosts", "nodes", "write `[nodes.<name>]`, once for each host"),
    ("hosts", "services", "a node lists its groups: `groups = [\"…\"]` in `[nodes.<name>]`"),
    ("nodes", "services", "a node lists its groups: `groups = [\"…\"]` in `[nodes.<name>]`"),
    ("children", "services", "a group contains no groups: a node lists all that it is in"),
    ("roles", "services", "write `services`: names of folders below services/"),
    ("roles", "labels", "a group lists services, and a node its groups"),
    ("services", "labels", "a group lists services, and a node its groups"),
    ("ansible_host", "address", "write `address`"),
    ("host", "address", "write `address`"),
    ("ip", "address", "write `address`"),
    ("tags", "labels", "write `labels = { … }`"),
    ("running", "started", "write `started`"),
    ("enabled", "started", "write `enabled = true` beside `state`"),
    ("restarted", "started", "write `started`, and list in `restart_on` what restarts it"),
    ("reloaded", "started", "write `started`, and list in `reload_on` what reloads it"),
    ("installed", "present", "write `present`"),
    ("removed", "absent", "write `absent`"),
];

/// Names that templates read.
const NAMES: &[(&str, &str)] = &[
    (
        "hostvars",
        "`groups.<group>` has nodes with `name`, `address` and `labels`; `exports.<service>.<task>[\"<node>\"]` is what one of them published",
    ),
    ("inventory_hostname", "write `node.name`"),
    ("inventory_hostname_short", "write `node.name`"),
    ("group_names", "write `node.groups`"),
    ("play_hosts", "write `groups.all`, or another group"),
    ("ansible_play_hosts", "write `groups.all`, or another group"),
    ("ansible_host", "write `node.address`"),
    ("ansible_hostname", "write `facts.hostname`"),
    ("ansible_nodename", "write `facts.hostname`"),
    ("ansible_fqdn", "write `facts.hostname`"),
    ("ansible_facts", "write `facts`"),
    ("ansible_managed", "write the text itself"),
    ("grains", "write `facts`"),
    ("facter", "write `facts`"),
    ("pillar", "a var is read by its name alone, such as `{{ db_port }}`"),
    ("vars", "a var is read by its name alone, such as `{{ db_port }}`"),
    ("Values", "a var is read by its name alone, such as `{{ db_port }}`"),
    ("salt", "a template runs nothing: use vars, `facts` and `exports`"),
    ("lookup", "a template runs nothing: use vars, `facts` and `exports`"),
    ("query", "a template runs nothing: use vars, `facts` and `exports`"),
    ("item", "write `{% for item in … %}` … `{% endfor %}`"),
    ("omit", "write an `{% if … %}` around what is to be left out"),
    ("playbook_dir", "name a file by its path below the folder of its service"),
    ("role_path", "name a file by its path below the folder of its service"),
    ("if", STATEMENT),
    ("else", STATEMENT),
    ("end", STATEMENT),
    ("range", STATEMENT),
    ("with", STATEMENT),
];

/// Of words of Go's templates.
const STATEMENT: &str = "statements stand in `{% … %}`: `{% if … %}`, `{% for … in … %}`; for another program to read, put the text between {% raw %} and {% endraw %}";
const JSON: &str = "write `tojson`: JSON is YAML as well";
const TEXT: &str = "`replace` replaces a text; there are no regular expressions";
const HERE: &str =
    "write it in the template, or publish the value by a task of the kind `export`, whose command computes it";

/// Filters, functions and tests.
const CALLS: &[(&str, &str)] = &[
    ("to_nice_yaml", JSON),
    ("to_yaml", JSON),
    ("yaml", JSON),
    ("to_nice_json", JSON),
    ("to_json", JSON),
    ("json", JSON),
    ("regex_replace", TEXT),
    ("regex_search", TEXT),
    ("regex_findall", TEXT),
    ("mandatory", "leave it out: a name that is not defined is an error"),
    ("ternary", "write `a if condition else b`"),
    ("dict2items", "write `items`"),
    ("quote", "write the command as a list: its arguments need no quotes"),
    ("match", "the tests `startingwith`, `endingwith` and `in` compare texts"),
    ("search", "the test `in` finds a text in another"),
    ("version", "compare the parts as numbers: `x.split('.')[0] | int >= 3`"),
    ("lookup", "a template runs nothing: use vars, `facts` and `exports`"),
    ("query", "a template runs nothing: use vars, `facts` and `exports`"),
    ("b64encode", HERE),
    ("b64decode", HERE),
    ("hash", HERE),
    ("password_hash", HERE),
    ("combine", HERE),
    ("ipaddr", HERE),
    ("basename", "write `split('/') | last`"),
    ("dirname", HERE),
    ("splitext", HERE),
    ("flatten", HERE),
    ("union", HERE),
    ("difference", HERE),
    ("intersect", HERE),
    ("from_json", HERE),
    ("from_yaml", HERE),
    ("urlsplit", HERE),
    ("strftime", HERE),
    ("random", HERE),
    ("shuffle", HERE),
    ("comment", "write the signs of the comment in the template"),
    ("regex_escape", TEXT),
    ("now", HERE),
    ("changed", "a task lists in `restart_on`, `reload_on` or `run_on` what acts on it"),
    ("failed", FAILURE),
    ("succeeded", FAILURE),
];

/// The hint for a key, or a choice, that is none of `allowed`.
pub fn key<'a>(name: &str, allowed: impl Iterator<Item = &'a str> + Clone) -> Option<&'static str> {
    row(name, allowed).map(|row| row.2)
}

/// The words of other tools that have a hint among `allowed`.
pub fn words<'a>(allowed: impl Iterator<Item = &'a str> + Clone) -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|row| row.0).filter(move |word| row(word, allowed.clone()).is_some())
}

/// The key that a word of another tool stands for, where its hint is to write that.
pub fn meant<'a>(name: &str, allowed: impl Iterator<Item = &'a str> + Clone) -> Option<&'static str> {
    row(name, allowed).filter(|row| row.2.starts_with(&format!("write `{}", row.1))).map(|row| row.1)
}

fn row<'a>(name: &str, allowed: impl Iterator<Item = &'a str> + Clone) -> Option<&'static Row> {
    KEYS.iter().find(|row| row.0 == name && allowed.clone().any(|allowed| allowed == row.1))
}

/// The hint for a name that a template reads and that is not defined.
pub fn name(name: &str) -> Option<&'static str> {
    let given = NAMES.iter().find(|row| row.0 == name).map(|row| row.1);
    // Ansible puts this before the names of all its facts.
    given.or_else(|| name.starts_with("ansible_").then_some("`facts` has what nodes report of their hosts"))
}

/// The hint for a filter, function or test that does not exist.
pub fn call(name: &str) -> Option<&'static str> {
    CALLS.iter().find(|row| row.0 == name).map(|row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_a_hint_only_where_that_leads_somewhere() {
        assert!(key("notify", ["id", "restart_on"].into_iter()).is_some());
        assert_eq!(key("notify", ["path", "content"].into_iter()), None);
        assert_eq!(key("name", ["unit", "state"].into_iter()), Some(UNIT));
        assert!(key("name", ["id"].into_iter()).is_some_and(|hint| hint.contains("`id`")));
        assert_eq!(meant("name", ["id"].into_iter()), Some("id"));
        assert_eq!(meant("become", ["id"].into_iter()), None);
        assert!(name("ansible_eth0").is_some() && name("db_port").is_none());
    }

    #[test]
    fn no_word_stands_twice_for_the_same_place() {
        let mut places: Vec<_> = KEYS.iter().map(|(word, needs, _)| (*word, *needs)).collect();
        places.extend(NAMES.iter().map(|row| (row.0, "in a template")));
        places.extend(CALLS.iter().map(|row| (row.0, "a call")));
        let count = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), count);
    }
}
