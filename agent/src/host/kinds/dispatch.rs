//! The table of kinds: calls the module of a task's kind. Its work is boxed, so that a job is not as large as the largest of all kinds.

use groundplan_protocol::{effect::Effect, kinds::TaskParams};

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::error::HostError;

macro_rules! kinds {
    ($($kind:ident),* $(,)?) => {
        pub(crate) fn whole_host(params: &TaskParams) -> bool {
            match params { $(TaskParams::$kind(kind) => kind.whole_host(),)* }
        }

        pub(crate) fn notes_changes(params: &TaskParams) -> bool {
            match params { $(TaskParams::$kind(kind) => kind.notes_changes(),)* }
        }

        pub(crate) fn drifts(params: &TaskParams, cx: &Context<'_>) -> bool {
            match params { $(TaskParams::$kind(kind) => kind.drifts(cx),)* }
        }

        pub(crate) async fn find(params: &TaskParams, cx: &Context<'_>) -> Result<(), HostError> {
            match params { $(TaskParams::$kind(kind) => Box::pin(kind.find(cx)).await,)* }
        }

        pub(crate) async fn check(params: &TaskParams, cx: &Context<'_>) -> Result<Check, HostError> {
            match params { $(TaskParams::$kind(kind) => Box::pin(kind.check(cx)).await,)* }
        }

        pub(crate) async fn apply(params: &TaskParams, cx: &Context<'_>) -> Result<Applied, HostError> {
            match params { $(TaskParams::$kind(kind) => Box::pin(kind.apply(cx)).await,)* }
        }

        pub(crate) async fn remove(params: &TaskParams, cx: &Context<'_>) -> Result<bool, HostError> {
            match params { $(TaskParams::$kind(kind) => Box::pin(kind.remove(cx)).await,)* }
        }

        pub(crate) async fn effect(params: &TaskParams, cx: &Context<'_>, effect: Effect) -> Result<bool, HostError> {
            match params { $(TaskParams::$kind(kind) => Box::pin(kind.effect(cx, effect)).await,)* }
        }

        pub(crate) async fn broken(params: &TaskParams, cx: &Context<'_>) -> HostError {
            match params { $(TaskParams::$kind(kind) => kind.broken(cx).await,)* }
        }

        pub(crate) fn given_up(params: &TaskParams, cx: &Context<'_>) {
            match params { $(TaskParams::$kind(kind) => kind.given_up(cx),)* }
        }

        pub(crate) async fn abandon(params: &TaskParams, cx: &Context<'_>) {
            match params { $(TaskParams::$kind(kind) => kind.abandon(cx).await,)* }
        }
    };
}

kinds! {
    File,
    Template,
    Directory,
    Link,
    Ini,
    Line,
    Archive,
    Package,
    Systemd,
    Process,
    Container,
    Pod,
    Image,
    User,
    Group,
    Hostname,
    Sysctl,
    Module,
    Mount,
    Cron,
    Selinux,
    Command,
    Wait,
    Reboot,
    Export,
    Plugin,
}

/// Whether it brings the host down, so that nothing else may run beside it.
pub(crate) fn brings_host_down(params: &TaskParams) -> bool {
    matches!(params, TaskParams::Reboot(_))
}
