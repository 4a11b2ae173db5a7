//! The trait of all kinds: what each states about itself and its parameters.

use super::{
    claim::{Claim, TaskClaim},
    problem::Problem,
};
use crate::{effect::Effect, ids::TaskId};

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

    /// Calls `claim` with each thing on the node that `task` owns with these parameters, its subject first.
    fn claims<'a>(&'a self, _task: &'a TaskId, _claim: &mut dyn FnMut(TaskClaim<'a>)) {}

    /// What the task is about as a whole, none where it leaves nothing behind: an update to another subject removes what was
    /// applied before. The first claim, unless the kind says otherwise.
    fn subject<'a>(&'a self, task: &'a TaskId) -> Vec<Claim<'a>> {
        let mut first = None;
        self.claims(task, &mut |stated| _ = first.get_or_insert(stated.claim));
        first.into_iter().collect()
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
