//! Task kinds, carried out.
//!
//! A kind is one module here that implements [`Kind`](kind::Kind) for its parameters, and one line in `kinds!` in
//! `dispatch.rs`. It checks whether the host is in sync with them and brings it in sync. The order of a job, probes, time limits
//! of effects and the removal of what an update replaces are not its business: see `host/run.rs`. Applying twice has the
//! effect of applying once; removing what is not there is not an error.

mod archive;
mod command;
mod compare;
mod container;
pub(crate) mod context;
mod cron;
mod directory;
mod dispatch;
mod export;
mod file;
pub(crate) mod found;
mod group;
mod hostname;
mod image;
mod ini;
pub(crate) mod kind;
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
mod unit_text;
mod user;
mod wait;

pub(crate) use self::{
    dispatch::{
        abandon, apply, brings_host_down, broken, check, drifts, effect, given_up, notes_changes, remove, whole_host,
    },
    systemd::watch,
};
