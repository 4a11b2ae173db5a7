//! Task kinds: one parameter type each. The planner parses, validates and documents tasks by these types, and the agent
//! carries them out by them.
//!
//! A new kind is a module here with its type, a line in `kinds!` below, and its counterpart in the agent. A kind says what
//! may be wrong with its parameters, what it ships, what it claims on the node and which effects a trigger may have on it; never how
//! it is carried out.

mod archive;
mod command;
mod container;
mod cron;
mod directory;
mod export;
mod file;
mod group;
mod hostname;
mod image;
mod ini;
mod line;
mod link;
mod module;
mod mount;
mod package;
mod plugin;
mod pod;
mod process;
mod reboot;
mod selinux;
mod sysctl;
mod systemd;
mod template;
mod user;
mod validate;
mod wait;

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::{
    archive::{Archive, ArchiveFormat},
    command::Command,
    container::{Container, RestartPolicy},
    cron::Cron,
    directory::Directory,
    export::{EXPORT_LIMIT, Export},
    file::File,
    group::Group,
    hostname::Hostname,
    image::{Image, Pull},
    ini::{Ini, IniValue, Scalar},
    line::{Line, MARK},
    link::Link,
    module::Module,
    mount::{Mount, MountState},
    package::{Package, PackageState},
    plugin::{Plugin, PluginClaim},
    pod::Pod,
    process::{Process, Signal},
    reboot::Reboot,
    selinux::{Selinux, SelinuxMode},
    sysctl::Sysctl,
    systemd::{OnChange, Systemd, UnitState},
    template::Template,
    user::{Existence, User, key_of},
    validate::{Format, Validate, Validator},
    wait::{Wait, WaitState},
};
use crate::effect::Effect;

/// What every kind tells of itself.
pub trait Kind {
    /// Its key in a task, such as `file`.
    const NAME: &'static str;
    /// One line on what it does, for people who choose among kinds.
    const SUMMARY: &'static str;
    /// What triggers may do to it.
    const EFFECTS: &'static [Effect];

    /// What people call it: [`Kind::NAME`], unless it goes by another name.
    fn name(&self) -> &str {
        Self::NAME
    }

    /// See [`Kind::EFFECTS`], which this is unless the parameters say more.
    fn effects(&self) -> &[Effect] {
        Self::EFFECTS
    }

    /// Everything wrong with the parameters that their types do not show; called with templates rendered.
    fn problems(&self) -> Vec<Problem>;

    /// The content that it ships.
    fn source(&self) -> Option<ContentSource<'_>> {
        None
    }

    /// Drops what only says where its content comes from: the plan carries the content itself.
    fn drop_source(&mut self) {}

    /// Drops what does not decide the result, such as a time limit: a change there is no change of the instance.
    fn drop_incidental(&mut self) {}

    /// Whether the host shows if it is so. What cannot be checked is not carried out again merely because somebody asks for a check.
    fn can_check(&self) -> bool {
        true
    }

    /// Calls `claim` with each thing on the node that it claims; no two instances of a node may claim the same.
    fn claims<'a>(&'a self, _claim: &mut dyn FnMut(Claim<'a>)) {}
}

/// Something on a node that one task alone decides on. Which parameter says so makes no difference.
#[derive(Debug, Clone, Copy)]
pub enum Claim<'a> {
    /// A path.
    Path(&'a str),
    /// An option in a file that others may have parts in, too.
    Option {
        /// The file.
        path: &'a str,
        /// The section.
        section: &'a str,
        /// The option.
        option: &'a str,
    },
    /// Something with a name: what sort of thing it is, such as `user`, the name, and the parameter that it stands in.
    Named {
        /// Such as `user`.
        what: &'a str,
        /// Such as `keystone`.
        name: &'a str,
        /// The parameter that says so; empty for the task as a whole.
        param: &'a str,
    },
}

impl<'a> Claim<'a> {
    /// The parameter that says so.
    pub fn param(&self) -> &'a str {
        match self {
            Self::Path(_) | Self::Option { .. } => "path",
            Self::Named { param, .. } => param,
        }
    }

    /// What tells it from others.
    fn key(&self) -> (&str, [&str; 3]) {
        match self {
            Self::Path(path) => ("path", [path, "", ""]),
            Self::Option { path, section, option } => ("option", [path, section, option]),
            Self::Named { what, name, .. } => ("named", [what, name, ""]),
        }
    }
}

impl PartialEq for Claim<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Claim<'_> {}

impl Hash for Claim<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "`{path}`"),
            Self::Option { path, section, option } => write!(f, "the option `{option}` of `[{section}]` in `{path}`"),
            Self::Named { what, name, .. } => write!(f, "the {what} `{name}`"),
        }
    }
}

/// Where a task's content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentSource<'a> {
    /// In the parameters themselves.
    Inline(&'a str),
    /// A file below the service's folder, shipped as it is.
    File(&'a str),
    /// A file below the service's folder, rendered as a template.
    Template(&'a str),
    /// The program of that name in `plugins/`.
    Plugin(&'a str),
}

/// What a kind tells of itself, whatever its parameters.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// See [`Kind::NAME`].
    pub name: &'static str,
    /// See [`Kind::SUMMARY`].
    pub summary: &'static str,
    /// See [`Kind::EFFECTS`].
    pub effects: &'static [Effect],
}

/// A fault in one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The parameter's name; empty for the task as a whole.
    pub param: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    fn new(param: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { param, message: message.into(), hint: Some(hint.into()) }
    }
}

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

        /// What each kind that is built in tells of itself, in the same order.
        pub const KINDS: &[About] = &[$(About { name: $name, summary: $kind::SUMMARY, effects: $kind::EFFECTS }),*];

        /// Names of all kinds that are built in, in the order in which people read about them.
        pub const NAMES: &[&str] = &[$($name),*];

        const _: () = { $(assert!(same($kind::NAME, $name));)* $(assert!(same($unlisted::NAME, $unlisted_name));)* };

        impl TaskParams {
            /// See [`Kind::name`].
            pub fn kind(&self) -> &str {
                match self { $(Self::$kind(params) => Kind::name(params),)* $(Self::$unlisted(params) => Kind::name(params),)* }
            }

            /// See [`Kind::effects`].
            pub fn effects(&self) -> &[Effect] {
                match self { $(Self::$kind(params) => Kind::effects(params),)* $(Self::$unlisted(params) => Kind::effects(params),)* }
            }

            /// The parameters as a site gives them, by name.
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

            /// See [`Kind::problems`].
            pub fn problems(&self) -> Vec<Problem> {
                match self { $(Self::$kind(params) => params.problems(),)* $(Self::$unlisted(params) => params.problems(),)* }
            }

            /// See [`Kind::source`].
            pub fn source(&self) -> Option<ContentSource<'_>> {
                match self { $(Self::$kind(params) => params.source(),)* $(Self::$unlisted(params) => params.source(),)* }
            }

            /// See [`Kind::drop_source`].
            pub fn drop_source(&mut self) {
                match self { $(Self::$kind(params) => params.drop_source(),)* $(Self::$unlisted(params) => params.drop_source(),)* }
            }

            /// See [`Kind::drop_incidental`].
            pub fn drop_incidental(&mut self) {
                match self { $(Self::$kind(params) => params.drop_incidental(),)* $(Self::$unlisted(params) => params.drop_incidental(),)* }
            }

            /// See [`Kind::can_check`].
            pub fn can_check(&self) -> bool {
                match self { $(Self::$kind(params) => params.can_check(),)* $(Self::$unlisted(params) => params.can_check(),)* }
            }

            /// See [`Kind::claims`].
            pub fn claims<'a>(&'a self, claim: &mut dyn FnMut(Claim<'a>)) {
                match self { $(Self::$kind(params) => params.claims(claim),)* $(Self::$unlisted(params) => params.claims(claim),)* }
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

/// Whether something is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is there.
    #[default]
    Present,
    /// It is not there.
    Absent,
}

impl Presence {
    /// Whether it is to be there.
    pub fn is_present(&self) -> bool {
        *self == Self::Present
    }
}

/// What to run: a line for `/bin/sh -c`, or a program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Run {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A program, looked up in `PATH`, and its arguments; no shell.
    Args(Vec<String>),
}

impl Run {
    fn problem(&self, param: &'static str) -> Option<Problem> {
        let empty = match self {
            Self::Shell(line) => line.trim().is_empty(),
            Self::Args(args) => args.first().is_none_or(String::is_empty),
        };
        empty.then(|| Problem::new(param, "is empty", "give a shell line or a list of arguments"))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(line) => f.write_str(line),
            Self::Args(args) => f.write_str(&args.join(" ")),
        }
    }
}

/// Whether `path` is absolute and plain, so that the same file always has the same name.
fn path_problem(param: &'static str, path: &str) -> Option<Problem> {
    let plain = path.strip_prefix('/').is_some_and(|rest| {
        !rest.is_empty() && !rest.contains('\0') && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
    });
    (!plain).then(|| {
        Problem::new(
            param,
            format!("`{}` is not an absolute path in its shortest form", path.escape_default()),
            "begin with `/`, without `.`, `..`, doubled or trailing slashes",
        )
    })
}

/// Whether `mode` is an octal file mode.
fn mode_problem(mode: Option<&String>) -> Option<Problem> {
    parse_mode(mode?).is_none().then(|| {
        Problem::new(
            "mode",
            format!("`{}` is not a file mode", mode.map_or("", |m| m)),
            "give three or four octal digits in quotes, such as \"0640\"",
        )
    })
}

/// The permission bits of a mode of three or four octal digits (chmod(1)).
pub fn parse_mode(mode: &str) -> Option<u32> {
    let octal = (3..=4).contains(&mode.len()) && mode.bytes().all(|b| (b'0'..=b'7').contains(&b));
    octal.then(|| u32::from_str_radix(mode, 8).ok()).flatten()
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
    fn paths_have_one_spelling() {
        for good in ["/a", "/etc/x.conf", "/a/..b/.c"] {
            assert_eq!(path_problem("path", good), None, "{good}");
        }
        for bad in ["", "/", "a", "a/b", "/a/", "//a", "/a//b", "/a/../b", "/./a", "/a\0b"] {
            assert!(path_problem("path", bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0640"), Some(0o640));
        assert_eq!(parse_mode("755"), Some(0o755));
        for bad in ["", "7", "0888", "rw", "00755", "+75"] {
            assert_eq!(parse_mode(bad), None, "{bad}");
        }
    }
}
