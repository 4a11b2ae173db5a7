//! What a removal that was not carried out holds back.
//!
//! In: a removal that failed or was blocked, and a task that comes after it. Out: whether that task must not run. Most tasks come
//! after the removals of their service only so that what is renamed does not meet what it replaces: a failed removal holds back
//! those that would meet it, and what depends on it. A plan without it would otherwise never get any further.

use groundplan_protocol::{
    effect::Action,
    ids::TaskId,
    kinds::{Claim, TaskParams},
    plan::TriggerSource,
};

use super::state::Machine;

impl Machine {
    /// Whether the task at `after` must not run, now that the one at `failed` has ended without success.
    pub(super) fn holds_back(&self, failed: usize, after: usize) -> bool {
        let Some(active) = &self.active else { return true };
        let (failed, after) = (&active.queue.get(failed).planned, &active.queue.get(after).planned);
        if failed.action != Action::Remove {
            return true;
        }
        let source = TriggerSource::Task(failed.task.clone());
        // A removal comes after another one because what that removes needs it.
        if after.triggers.iter().any(|trigger| trigger.on == source) || after.action == Action::Remove {
            return true;
        }
        match (self.applied.get(&failed.task), &after.spec) {
            (Some(record), Some(spec)) => {
                record.touched && meet((&failed.task, &record.spec.params), (&after.task, &spec.params))
            }
            // Nothing is known of one of them.
            _ => self.applied.contains_key(&failed.task),
        }
    }
}

/// Whether what one task left on the host and what another one makes would be in each other's way.
fn meet((old, left): (&TaskId, &TaskParams), (new, made): (&TaskId, &TaskParams)) -> bool {
    // Which ports and files they use is not known.
    if runs(left) && runs(made) {
        return true;
    }
    let claims = |params: &TaskParams, task: &TaskId| {
        let mut claims: Vec<Claim<'static>> = Vec::new();
        params.claims(task, &mut |stated| {
            if !stated.shared {
                claims.push(stated.claim.into_owned());
            }
        });
        claims
    };
    let left = claims(left, old);
    claims(made, new).iter().any(|claim| left.contains(claim))
}

/// Whether it keeps something running, or may.
fn runs(params: &TaskParams) -> bool {
    matches!(
        params,
        TaskParams::Process(_)
            | TaskParams::Container(_)
            | TaskParams::Pod(_)
            | TaskParams::Systemd(_)
            | TaskParams::Plugin(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_meets_what_is_left() {
        let (old, new) = ("s.old".parse().unwrap(), "s.new".parse().unwrap());
        let process = r#"{"process": {"run": "a"}}"#;
        let (file, line) = (r#"{"file": {"path": "/a"}}"#, r#"{"line": {"path": "/a", "line": "x"}}"#);
        let ini = r#"{"ini": {"path": "/a", "section": "s", "option": "o", "value": 1}}"#;
        let unit = r#"{"systemd": {"unit": "a.service"}}"#;
        for (left, made, expected) in [
            (process, process, true),
            (process, unit, true),
            (process, file, false),
            (file, process, false),
            (file, r#"{"template": {"path": "/a", "source": "x"}}"#, true),
            (file, r#"{"file": {"path": "/b"}}"#, false),
            (ini, line, false),
            (ini, ini, true),
            (line, line, false),
        ] {
            let params = |json: &str| serde_json::from_str::<TaskParams>(json).unwrap();
            assert_eq!(meet((&old, &params(left)), (&new, &params(made))), expected, "{left} {made}");
        }
    }
}
