//! Past rollouts, refused commits and commands, with those under way as they are now.

use groundplan_protocol::ids::{ExecId, Generation};

use super::Snapshot;
use crate::{
    api::{
        exec::ExecRecord,
        history::{History, Refusal},
        types::{Problem, ProblemKind, RolloutDetail, VERSION},
    },
    store::Reader,
};

/// Most rollouts in one answer.
const LIMIT: usize = 1000;

/// The latest rollouts, refused commits and commands, newest first, without what was printed.
pub(crate) fn history(snapshot: &Snapshot, store: &Reader, limit: usize) -> Result<History, Problem> {
    let (view, limit) = (&snapshot.view, limit.min(LIMIT));
    let mut rollouts = store.summaries(limit)?;
    for known in &mut rollouts {
        if let Some(active) = view.rollout.as_ref().filter(|active| active.head.generation == known.generation) {
            *known = active.summary();
        }
    }
    let mut execs = store.execs(limit)?;
    for record in &mut execs {
        if let Some(run) = view.commands.get(&record.id) {
            *record = run.record().without_output();
        }
    }
    let refusals = store.refusals(limit)?.into_iter();
    Ok(History {
        version: VERSION,
        rollouts: rollouts.into_iter().map(Into::into).collect(),
        execs: execs.into_iter().map(Into::into).collect(),
        refusals: refusals.map(|row| Refusal { at_ms: row.at_ms, refused: row.refused.into() }).collect(),
    })
}

/// One rollout in full; the latest if none is named.
pub(crate) fn rollout(
    snapshot: &Snapshot,
    store: &Reader,
    generation: Option<Generation>,
) -> Result<RolloutDetail, Problem> {
    let active = snapshot.view.rollout.as_ref().filter(|r| generation.is_none_or(|g| g == r.head.generation));
    let found = match (active, generation) {
        (Some(active), _) => Some(active.detail(&|i| snapshot.view.runs(i))),
        (None, Some(generation)) => store.rollout(generation)?,
        (None, None) => None,
    };
    found.map(Into::into).ok_or_else(|| {
        let error = generation.map_or("there was no rollout yet".to_owned(), |g| format!("there is no rollout {g}"));
        Problem::new(ProblemKind::NotFound, error).hint("`groundplan history` lists them")
    })
}

/// A command, with what it printed.
pub(crate) fn exec_record(snapshot: &Snapshot, store: &Reader, id: &ExecId) -> Result<ExecRecord, Problem> {
    let running = snapshot.view.commands.get(id).map(|run| run.record());
    let found = match running {
        Some(record) => Some(record),
        None => store.exec(id)?,
    };
    found.map(Into::into).ok_or_else(|| {
        let error = format!("there is no command `{id}`");
        Problem::new(ProblemKind::NotFound, error).hint("`groundplan history` lists them")
    })
}
