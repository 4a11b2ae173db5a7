//! [`TaskParams`]: a task's kind and parameters, and the table of all kinds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    archive::Archive,
    claim::{Claim, TaskClaim},
    command::Command,
    container::Container,
    cron::Cron,
    directory::Directory,
    export::Export,
    file::File,
    group::Group,
    hostname::Hostname,
    image::Image,
    ini::Ini,
    kind::{About, ContentSource, Kind},
    line::Line,
    link::Link,
    module::Module,
    mount::Mount,
    package::Package,
    plugin::Plugin,
    pod::Pod,
    problem::Problem,
    process::Process,
    reboot::Reboot,
    selinux::Selinux,
    sysctl::Sysctl,
    systemd::Systemd,
    template::Template,
    user::User,
    wait::Wait,
};
use crate::{effect::Effect, ids::TaskId};

macro_rules! kinds {
    ($($kind:ident = $name:literal),* ; unlisted $($unlisted:ident = $unlisted_name:literal),*) => {
        /// A task's kind and parameters: `{ "<kind>": { … } }`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        pub enum TaskParams {
            $(
                #[doc = concat!("`", $name, "`")]
                #[serde(rename = $name)]
                $kind($kind),
            )*
            $(
                #[doc = concat!("`", $unlisted_name, "`")]
                #[serde(rename = $unlisted_name)]
                $unlisted($unlisted),
            )*
        }

        /// All built-in kinds, in the order of [`NAMES`].
        pub const KINDS: &[About] = &[$(About { name: $name, summary: $kind::SUMMARY, effects: $kind::EFFECTS }),*];

        /// Names of all built-in kinds, in the order of the documentation.
        pub const NAMES: &[&str] = &[$($name),*];

        const _: () = { $(assert!(same($kind::NAME, $name));)* $(assert!(same($unlisted::NAME, $unlisted_name));)* };

        impl TaskParams {
            /// The name of its kind; for a task of a plugin the name that the plugin declares.
            pub fn kind(&self) -> &str {
                match self { $(Self::$kind(params) => Kind::name(params),)* $(Self::$unlisted(params) => Kind::name(params),)* }
            }

            /// What trigger edges may do to the task; see [`Kind::effects`].
            pub fn effects(&self) -> &[Effect] {
                match self { $(Self::$kind(params) => Kind::effects(params),)* $(Self::$unlisted(params) => Kind::effects(params),)* }
            }

            /// The parameters as a site gives them, by name; empty for a kind whose parameters are not a table.
            pub fn given(&self) -> Map<String, Value> {
                if let Self::Plugin(plugin) = self {
                    return plugin.params.clone();
                }
                match serde_json::to_value(self) {
                    Ok(Value::Object(kind)) => match kind.into_iter().next() {
                        Some((_, Value::Object(params))) => params,
                        _ => Map::new(),
                    },
                    _ => Map::new(),
                }
            }

            /// What is wrong with the parameters, every problem at once; see [`Kind::problems`].
            pub fn problems(&self) -> Vec<Problem> {
                match self { $(Self::$kind(params) => params.problems(),)* $(Self::$unlisted(params) => params.problems(),)* }
            }

            /// The file of the site whose content the task ships, if any; see [`Kind::source`].
            pub fn source(&self) -> Option<ContentSource<'_>> {
                match self { $(Self::$kind(params) => params.source(),)* $(Self::$unlisted(params) => params.source(),)* }
            }

            /// Removes the name of the source, which nodes do not need; see [`Kind::drop_source`].
            pub fn drop_source(&mut self) {
                match self { $(Self::$kind(params) => params.drop_source(),)* $(Self::$unlisted(params) => params.drop_source(),)* }
            }

            /// Removes what does not decide the result, before the fingerprint is taken; see [`Kind::drop_incidental`].
            pub fn drop_incidental(&mut self) {
                match self { $(Self::$kind(params) => params.drop_incidental(),)* $(Self::$unlisted(params) => params.drop_incidental(),)* }
            }

            /// Whether an agent can check the task without applying it; see [`Kind::can_check`].
            pub fn can_check(&self) -> bool {
                match self { $(Self::$kind(params) => params.can_check(),)* $(Self::$unlisted(params) => params.can_check(),)* }
            }

            /// Whether it leaves something on its node; see [`Kind::LEAVES`].
            pub fn leaves_something(&self) -> bool {
                match self { $(Self::$kind(_) => $kind::LEAVES,)* $(Self::$unlisted(_) => $unlisted::LEAVES,)* }
            }

            /// What the task claims on its host; see [`Kind::claims`].
            pub fn claims<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
                match self {
                    $(Self::$kind(params) => params.claims(task, claim),)*
                    $(Self::$unlisted(params) => params.claims(task, claim),)*
                }
            }

            /// Calls `claim` with each thing that another task takes over if it states the same; see [`Kind::identity`].
            pub fn identity<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
                match self {
                    $(Self::$kind(params) => params.identity(task, claim),)*
                    $(Self::$unlisted(params) => params.identity(task, claim),)*
                }
            }

            /// Calls `claim` with each thing that it cannot take while another task has it; see [`Kind::contends`].
            pub fn contends<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
                match self {
                    $(Self::$kind(params) => params.contends(task, claim),)*
                    $(Self::$unlisted(params) => params.contends(task, claim),)*
                }
            }

            /// What is lost for good when it is removed; see [`Kind::destroys`].
            pub fn destroys(&self) -> Option<String> {
                match self { $(Self::$kind(params) => params.destroys(),)* $(Self::$unlisted(params) => params.destroys(),)* }
            }

            /// What the task is about, for people, such as a path or a unit; see [`Kind::subject`].
            pub fn subject<'a>(&'a self, task: &'a TaskId) -> Vec<Claim<'a>> {
                match self {
                    $(Self::$kind(params) => params.subject(task),)*
                    $(Self::$unlisted(params) => params.subject(task),)*
                }
            }
        }
    };
}

kinds! {
    File = "file",
    Template = "template",
    Directory = "directory",
    Link = "link",
    Ini = "ini",
    Line = "line",
    Archive = "archive",
    Package = "package",
    Systemd = "systemd",
    Process = "process",
    Container = "container",
    Pod = "pod",
    Image = "image",
    User = "user",
    Group = "group",
    Hostname = "hostname",
    Sysctl = "sysctl",
    Module = "module",
    Mount = "mount",
    Cron = "cron",
    Selinux = "selinux",
    Command = "command",
    Wait = "wait",
    Reboot = "reboot",
    Export = "export";
    unlisted Plugin = "plugin"
}

impl TaskParams {
    /// Whether it wants something not to be there, so that applying it is what destroys.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::User(user) => !user.is_present(),
            Self::Package(package) => package.state() == super::PackageState::Absent,
            _ => false,
        }
    }

    /// Whether an update to `after` gives up all that the task owns.
    pub fn gives_up_all(&self, after: &Self, task: &TaskId) -> bool {
        let mut kept = Vec::new();
        after.identity(task, &mut |claim| kept.push(claim));
        let (mut owns, mut keeps) = (false, false);
        self.identity(task, &mut |claim| {
            owns = true;
            keeps |= kept.contains(&claim);
        });
        owns && !keeps
    }

    /// What is lost for good when it is removed; none if nothing is. What wants something not to be there has nothing of its own.
    pub fn destroyed_by_removal(&self) -> Option<String> {
        self.destroys().filter(|_| !self.is_absence())
    }
}

/// Whether two names are the same, at compile time.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reads_as_its_kind() {
        let params: TaskParams = serde_json::from_str(r#"{"command":{"run":["true"]}}"#).unwrap();
        assert_eq!(params.kind(), "command");
        assert!(serde_json::from_str::<TaskParams>(r#"{"teleport":{}}"#).is_err());
        assert!(serde_json::from_str::<TaskParams>(r#"{"link":{"path":"/a","target":"b","x":1}}"#).is_err());
    }

    #[test]
    fn a_plugin_goes_by_its_own_name_and_is_not_listed() {
        let plugin =
            r#"{"plugin":{"name":"limits","params":{"unit":"web.service"},"effects":["restart"],"can_check":false}}"#;
        let params: TaskParams = serde_json::from_str(plugin).unwrap();
        assert_eq!((params.kind(), params.effects(), params.can_check()), ("limits", &[Effect::Restart][..], false));
        assert_eq!(params.source(), Some(ContentSource::Plugin("limits")));
        assert!(!NAMES.contains(&"plugin") && KINDS.iter().all(|kind| kind.name != "plugin"));
        assert_eq!(serde_json::from_value::<TaskParams>(serde_json::to_value(&params).unwrap()).unwrap(), params);
    }

    fn claims(params: &str) -> Vec<String> {
        let (params, task): (TaskParams, TaskId) = (serde_json::from_str(params).unwrap(), "s.t".parse().unwrap());
        let mut claims = Vec::new();
        params.claims(&task, &mut |stated| {
            assert_eq!(stated.claim.clone().into_owned(), stated.claim);
            claims.push(format!("{}{}", if stated.shared { "shared: " } else { "" }, stated.claim));
        });
        claims
    }

    #[test]
    fn every_kind_states_what_it_owns() {
        let image = r#""image": "localhost/web:1""#;
        let expected: [(&str, &[&str]); 10] = [
            (r#"{"link": {"path": "/l", "target": "t"}}"#, &["`/l`"]),
            (r#"{"cron": {"schedule": "@daily", "run": "x"}}"#, &["`/etc/cron.d/groundplan-s-t-df4ee0`"]),
            (
                r#"{"ini": {"path": "/i", "section": "a", "option": "b", "value": 1}}"#,
                &[
                    "what s.t has in `/i`",
                    "the option `b` of `[a]` in `/i`",
                    "shared: the edited file `/i`",
                    "shared: the section `[a] /i`",
                ],
            ),
            (
                r#"{"line": {"path": "/f", "line": "x"}}"#,
                &["what s.t has in `/f`", "shared: the line `x` in `/f`", "shared: the edited file `/f`"],
            ),
            (
                r#"{"line": {"path": "/f", "line": "x", "state": "absent"}}"#,
                &["what s.t has in `/f`", "shared: the edited file `/f`"],
            ),
            (r#"{"package": ["a"]}"#, &["what s.t has in `packages`", "shared: the package `a`"]),
            (r#"{"package": {"names": ["a"], "state": "absent"}}"#, &["what s.t has in `packages`"]),
            (
                &format!(r#"{{"container": {{"name": "web", {image}}}}}"#),
                &["the container `web`", "shared: the unit `web.service`"],
            ),
            (
                &format!(r#"{{"pod": {{"name": "p", "containers": [{{"name": "web", {image}}}]}}}}"#),
                &[
                    "the pod `p`",
                    "the container `web`",
                    "shared: the unit `p-pod.service`",
                    "shared: the unit `web.service`",
                ],
            ),
            (r#"{"command": {"run": "true"}}"#, &[]),
        ];
        for (params, owned) in expected {
            assert_eq!(claims(params), owned, "{params}");
        }
    }

    #[test]
    fn a_plugin_claims_what_other_kinds_claim() {
        let claims_of = |more: &str| claims(&format!(r#"{{"plugin": {{"name": "limits"{more}}}}}"#));
        let named = r#"{"named": {"what": "user", "name": "bob", "param": "who"}}"#;
        let stated = claims_of(&format!(r#", "claims": [{{"path": "/etc/x"}}, {named}]"#));
        assert_eq!(stated, ["`/etc/x`", "the user `bob`"]);
        assert_eq!(stated[1..], claims(r#"{"user": {"name": "bob"}}"#));
        assert_eq!(claims_of(""), ["what s.t has in `limits`"]);
    }
}
