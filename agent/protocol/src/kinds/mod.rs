//! Task kinds: one parameter type each. The planner parses, validates and documents tasks by these types, and the agent
//! carries them out by them.
//!
//! A new kind is a module here with its type, a line in `kinds!` in `params.rs`, and its counterpart in the agent. A kind states
//! the faults of its parameters, what it ships, what it claims on the node and which effects a trigger may have on it; never
//! how it is carried out.

mod archive;
mod claim;
mod command;
mod conflict;
mod container;
mod cron;
mod directory;
mod existence;
mod export;
mod file;
mod group;
mod hostname;
mod image;
mod ini;
mod kind;
mod line;
mod link;
mod module;
mod mount;
mod package;
mod params;
mod plugin;
mod pod;
mod problem;
mod process;
mod reboot;
mod run;
mod selinux;
mod sysctl;
mod systemd;
mod template;
mod user;
mod validate;
mod wait;

pub use self::{
    archive::{Archive, ArchiveFormat},
    claim::{Claim, ClaimKey, EDITED, TaskClaim},
    command::Command,
    conflict::{Conflict, Thing},
    container::{Container, RestartPolicy},
    cron::Cron,
    directory::Directory,
    existence::Existence,
    export::{EXPORT_LIMIT, Export, is_break, is_control},
    file::File,
    group::Group,
    hostname::Hostname,
    image::{Image, Pull},
    ini::{Ini, IniValue, Scalar},
    kind::{About, ContentSource, Kind},
    line::{Line, MARK},
    link::Link,
    module::Module,
    mount::{Mount, MountState},
    package::{Package, PackageState},
    params::{KINDS, NAMES, TaskParams},
    plugin::{Plugin, PluginClaim},
    pod::Pod,
    problem::{Problem, parse_mode},
    process::{Process, Signal},
    reboot::Reboot,
    run::Run,
    selinux::{Selinux, SelinuxMode},
    sysctl::Sysctl,
    systemd::{OnChange, Systemd, UnitState},
    template::Template,
    user::{User, key_of},
    validate::{Format, Validate, Validator},
    wait::{Wait, WaitState},
};
