//! The core's values in the API's words: reasons and faults with lines, statuses as states.

use groundplan_core::{
    Reason, SourceTree,
    locate::Locator,
    rollout::{Status, Summary, Verdict, Wait},
};
use groundplan_inventory::{Diagnostic, Location};
use groundplan_protocol::{ids::InstanceId, report::Outcome};

use crate::api::types::{Counts, Fault, InstanceState, Place, ReasonRecord, Related, RolloutResult};

/// Finds lines in the files of a tree; each file is read once.
pub(super) struct Places<'a> {
    locator: Locator<'a>,
}

impl<'a> Places<'a> {
    pub(super) fn new(tree: &'a dyn SourceTree) -> Self {
        Self { locator: Locator::of_tree(tree) }
    }

    pub(super) fn place(&mut self, at: &Location) -> Place {
        let lines = self.locator.lines(&at.file);
        let found = lines.and_then(|lines| Some((lines, lines.find(at.span())?)));
        Place {
            file: at.file.to_string(),
            line: found.map(|(_, at)| at.line as u32),
            column: found.map(|(_, at)| at.column as u32),
            text: found.and_then(|(lines, at)| lines.line(at.line)).map(str::to_owned),
        }
    }

    /// Without the line's text, which a reason does not need.
    fn short(&mut self, at: &Location) -> Place {
        Place { text: None, ..self.place(at) }
    }

    pub(super) fn fault(&mut self, diagnostic: &Diagnostic) -> Fault {
        let related = diagnostic.related.iter();
        Fault {
            at: Some(self.place(&diagnostic.at)),
            message: diagnostic.message.clone(),
            label: diagnostic.label.clone(),
            related: related.map(|(at, words)| Related { at: self.place(at), words: words.clone() }).collect(),
            hint: diagnostic.hint.clone(),
        }
    }

    pub(super) fn reason(&mut self, reason: &Reason) -> ReasonRecord {
        match reason {
            Reason::Added { what, at } => ReasonRecord::Added { what: what.to_string(), at: self.short(at) },
            Reason::Changed { input, before, after, at } => ReasonRecord::Changed {
                input: input.clone(),
                before: before.clone(),
                after: after.clone(),
                at: self.short(at),
            },
            Reason::Off { when, input, before, after, at } => ReasonRecord::Off {
                when: when.clone(),
                input: input.clone(),
                before: before.clone(),
                after: after.clone(),
                at: self.short(at),
            },
            Reason::Removed { file, .. } => ReasonRecord::Removed { file: file.clone() },
            Reason::Triggered { by, effect } => ReasonRecord::Triggered { by: by.clone(), effect: *effect },
            Reason::Drifted { what, .. } => ReasonRecord::Drifted { what: what.clone() },
            Reason::Asked { .. } => ReasonRecord::Asked,
            Reason::Owed { effect, .. } => ReasonRecord::Owed { effect: *effect },
        }
    }
}

/// What has become of an instance. `running` says whether its agent named it as at work.
pub(super) fn state(status: Status, running: bool) -> InstanceState {
    let finished = |outcome| InstanceState::Finished { outcome };
    match status {
        Status::Waiting(waits) => {
            let unknown = waits.iter().filter_map(|wait| match wait {
                Wait::Unknown(unknown) => Some(unknown.to_string()),
                _ => None,
            });
            let unknown: Vec<String> = unknown.take(8).collect();
            let on = waits.into_iter().filter_map(|wait| match wait {
                Wait::Instance { instance, .. } => Some(instance),
                Wait::Offline | Wait::Turn { .. } | Wait::Unknown(_) => None,
            });
            let on: Vec<InstanceId> = on.take(8).collect();
            match on.is_empty() && unknown.is_empty() {
                true => InstanceState::Pending,
                false => InstanceState::Waiting { on, unknown },
            }
        }
        Status::Running if running => InstanceState::Running,
        Status::Running => InstanceState::Pending,
        Status::Done { changed, effect } => finished(Outcome::Done { changed, effect }),
        Status::Skipped => finished(Outcome::Skipped),
        Status::Failed { error } => finished(Outcome::Failed { error }),
        Status::Blocked { by } => finished(Outcome::Blocked { by: by.task }),
        Status::Superseded => finished(Outcome::Superseded),
    }
}

/// Numbers of instances.
pub(super) fn counts(summary: Summary) -> Counts {
    Counts {
        pending: 0,
        waiting: summary.waiting,
        running: summary.running,
        changed: summary.changed,
        unchanged: summary.unchanged + summary.skipped,
        failed: summary.failed,
        blocked: summary.blocked,
        superseded: summary.superseded,
    }
}

/// How a rollout stands.
pub(super) fn result(verdict: &Verdict) -> RolloutResult {
    match verdict {
        Verdict::Running | Verdict::Offline(_) => RolloutResult::Running,
        Verdict::Waiting => RolloutResult::Waiting,
        Verdict::Succeeded => RolloutResult::Succeeded,
        Verdict::Failed => RolloutResult::Failed,
    }
}
