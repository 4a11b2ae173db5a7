//! Results of resolving a task, by the values that it read.
//!
//! A task's result depends on nothing but those values, and what it reads next on nothing but the values so far. So results are the
//! leaves of a decision tree: each inner node names a question, and its answers lead on. Nodes with equal answers share a result,
//! whatever else differs between them, and so do commits. Answers contain places, because results do.

use std::{collections::HashMap, sync::Arc};

use groundplan_protocol::digest::Digest;

use crate::{
    desired::{Off, Resolved},
    render::Access,
};

/// Results of one task, for as long as its declaration stays the same.
#[derive(Debug, Default)]
pub(crate) enum Memo {
    /// No result.
    #[default]
    Empty,
    /// The result depends on an answer.
    Ask { question: Access, answers: HashMap<Answer, Memo> },
    /// A result; `run` is the number of the resolution that used it last.
    Done { resolution: Resolution, run: u64 },
}

/// What a task is on a node.
#[derive(Debug, Clone)]
pub(crate) enum Resolution {
    /// An instance with this spec.
    Resolved(Arc<Resolved>),
    /// Not known: these values are missing.
    Pending(Arc<[Access]>),
    /// Not known: the values that nodes reported do not fit, for this reason.
    Misfit(Arc<str>),
    /// No instance: its `when` is false.
    Off(Arc<Off>),
}

/// The answer to a question, as far as it distinguishes results.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// There is no such value or file.
    Absent,
    /// A node has not reported it yet.
    Unknown,
    /// Digest of a value and its place.
    Value(Digest),
    /// A file's version.
    File(Arc<str>),
}

impl Memo {
    /// The result for these answers. `answer` is called only for questions on the way, in the order in which rendering read them.
    pub(crate) fn find(&mut self, now: u64, mut answer: impl FnMut(&Access) -> Answer) -> Option<Resolution> {
        let mut memo = self;
        loop {
            match memo {
                Self::Empty => return None,
                Self::Ask { question, answers } => memo = answers.get_mut(&answer(question))?,
                Self::Done { resolution, run } => {
                    *run = now;
                    return Some(resolution.clone());
                }
            }
        }
    }

    /// Keeps a result with the questions and answers that led to it, in the order in which they were read.
    pub(crate) fn insert(&mut self, now: u64, trace: Vec<(Access, Answer)>, resolution: Resolution) {
        let mut memo = self;
        for (access, answer) in trace {
            // Another question at the same point means that the declaration of the task changed: what is below no longer holds.
            if !matches!(memo, Self::Ask { question, .. } if *question == access) {
                *memo = Self::Ask { question: access, answers: HashMap::new() };
            }
            let Self::Ask { answers, .. } = memo else { return };
            memo = answers.entry(answer).or_default();
        }
        *memo = Self::Done { resolution, run: now };
    }

    /// Drops results that this run did not use, so that the memo does not grow with every commit.
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
            Self::Done { resolution: Resolution::Resolved(resolved), .. } => with(resolved),
            Self::Done { .. } => {}
        }
    }
}
