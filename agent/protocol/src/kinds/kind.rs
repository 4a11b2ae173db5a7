//! The trait of all kinds: what each states about itself and its parameters.

use super::{
    claim::{Claim, TaskClaim},
    problem::Problem,
};
use crate::{effect::Effect, ids::TaskId};

/// What every kind states about itself.
pub trait Kind {
    /// Its key in a task, such as `file`.
    const NAME: &'static str;
    /// One line on what it does, for the documentation and `groundplan kinds`.
    const SUMMARY: &'static str;
    /// The effects that triggers may have on it.
    const EFFECTS: &'static [Effect];
    /// Whether it leaves something on the node that a removal takes away, so that `on_remove` has a meaning.
    const LEAVES: bool = true;

    /// Its name for people: [`Kind::NAME`], unless it has another one, as kinds of plugins do.
    fn name(&self) -> &str {
        Self::NAME
    }

    /// The effects that triggers may have with these parameters: [`Kind::EFFECTS`], unless the parameters define others.
    fn effects(&self) -> &[Effect] {
        Self::EFFECTS
    }

    /// All faults of the parameters that their types allow; called after templates are rendered.
    fn problems(&self) -> Vec<Problem>;

    /// The content that it ships.
    fn source(&self) -> Option<ContentSource<'_>> {
        None
    }

    /// Drops the parameters for where its content comes from: the plan carries the content itself.
    fn drop_source(&mut self) {}

    /// Drops parameters that do not decide the result, such as a time limit: a change of these does not change the instance.
    fn drop_incidental(&mut self) {}

    /// Whether a check can find out if the host is in sync. A task without a check is not carried out again merely because an
    /// operator asks for a check.
    fn can_check(&self) -> bool {
        true
    }

    /// Calls `claim` with each thing on the node that `task` owns with these parameters, its subject first.
    fn claims<'a>(&'a self, _task: &'a TaskId, _claim: &mut dyn FnMut(TaskClaim<'a>)) {}

    /// Calls `claim` with each thing that another task takes over if it states the same: what stays as it is when a task gets
    /// another name, with all that this task remembers of it. By default what it alone may claim, its own parts apart.
    fn identity<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
        self.claims(task, &mut |stated| {
            if !stated.shared && !matches!(stated.claim, Claim::Part { .. }) {
                claim(stated.claim);
            }
        });
    }

    /// Calls `claim` with each thing that, like its identity, a task cannot take while another one has it, unless it takes that over:
    /// the removal of the other task comes first. By default what it claims, its own parts and what any number of tasks may share apart.
    fn contends<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
        self.claims(task, &mut |stated| {
            let shares = matches!(&stated.claim, Claim::Named { what, .. } if what == "program" || what == "package");
            if !shares && !matches!(stated.claim, Claim::Part { .. } | Claim::Line { .. }) {
                claim(stated.claim);
            }
        });
    }

    /// What is lost for good when the task is removed, or is applied with `state = "absent"`: content that exists nowhere else and that
    /// the agent does not keep. A short description for people; none if nothing is.
    fn destroys(&self) -> Option<String> {
        None
    }

    /// What the task is about as a whole, none where it leaves nothing behind: an update to another subject removes what was
    /// applied before. The first claim by default.
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

/// What a kind states about itself, whatever its parameters.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its key in a task, [`Kind::NAME`].
    pub name: &'static str,
    /// One line for people, [`Kind::SUMMARY`].
    pub summary: &'static str,
    /// What trigger edges may do to it, [`Kind::EFFECTS`].
    pub effects: &'static [Effect],
}
