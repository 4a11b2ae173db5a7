//! What a task resolved to, by the answers to what it asked for.
//!
//! A task's result depends on nothing but those answers, and what it asks for next on nothing but the answers so far. So results are
//! the leaves of a tree: each step names a question and leads on by its answer. Nodes that answer alike share a result, whatever else
//! differs between them, and so do commits. Answers contain places, because results do.

use std::{collections::HashMap, sync::Arc};

use groundplan_protocol::digest::Digest;

use crate::{
    desired::{Off, Resolved},
    render::Access,
};

/// Results of one task, for as long as its declaration stays the same.
#[derive(Debug, Default)]
pub(crate) enum Memo {
    /// Nothing known.
    #[default]
    Empty,
    /// Depends on an answer.
    Ask { question: Access, answers: HashMap<Answer, Memo> },
    /// Known; `run` is when it was last of use.
    Done { form: Form, run: u64 },
}

/// What a task is on a node.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// This.
    Resolved(Arc<Resolved>),
    /// Nobody knows yet, for want of these answers.
    Pending(Arc<[Access]>),
    /// Nobody knows, for it does not go with the answers that there are.
    Misfit(Arc<str>),
    /// Nothing: its `when` is false.
    Off(Arc<Off>),
}

/// An answer, by what tells it from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// There is no such thing.
    Absent,
    /// A node has yet to give it.
    Unknown,
    /// Digest of a value and its place.
    Value(Digest),
    /// A file's version.
    File(Arc<str>),
}

impl Memo {
    /// The result for whoever gives these answers.
    pub(crate) fn find(&mut self, now: u64, mut answer: impl FnMut(&Access) -> Answer) -> Option<Form> {
        let mut memo = self;
        loop {
            match memo {
                Self::Empty => return None,
                Self::Ask { question, answers } => memo = answers.get_mut(&answer(question))?,
                Self::Done { form, run } => {
                    *run = now;
                    return Some(form.clone());
                }
            }
        }
    }

    /// Keeps a result with the questions and answers that led to it.
    pub(crate) fn insert(&mut self, now: u64, trace: Vec<(Access, Answer)>, form: Form) {
        let mut memo = self;
        for (access, answer) in trace {
            if !matches!(memo, Self::Ask { question, .. } if *question == access) {
                *memo = Self::Ask { question: access, answers: HashMap::new() };
            }
            let Self::Ask { answers, .. } = memo else { return };
            memo = answers.entry(answer).or_default();
        }
        *memo = Self::Done { form, run: now };
    }

    /// Forgets what was of no use in this run.
    pub(crate) fn prune(&mut self, now: u64) {
        match self {
            Self::Empty => {}
            Self::Ask { answers, .. } => {
                answers.retain(|_, memo| {
                    memo.prune(now);
                    !matches!(memo, Self::Empty)
                });
                if answers.is_empty() {
                    *self = Self::Empty;
                }
            }
            Self::Done { run, .. } if *run != now => *self = Self::Empty,
            Self::Done { .. } => {}
        }
    }

    /// Calls `with` for each result, in no order.
    pub(crate) fn each<'m>(&'m self, with: &mut impl FnMut(&'m Arc<Resolved>)) {
        match self {
            Self::Empty => {}
            Self::Ask { answers, .. } => answers.values().for_each(|memo| memo.each(with)),
            Self::Done { form: Form::Resolved(resolved), .. } => with(resolved),
            Self::Done { .. } => {}
        }
    }
}
