//! Units of tasks that systemd has started again because they ended.
//!
//! In: what systemd has of a unit, at each check. Out: why it does not work; one that was started again counts as such for some checks more.

use std::sync::{Mutex, MutexGuard};

use groundplan_protocol::ids::TaskId;

/// For so many checks a unit that systemd has started again stays reported, unless it ends again.
const CALM: u32 = 2;

/// What was seen of the units of tasks. A list: a map of another type would be more code than all of the rest.
#[derive(Debug, Default)]
pub(super) struct UnitEnds(Mutex<Vec<Seen>>);

#[derive(Debug)]
struct Seen {
    task: TaskId,
    /// How often systemd had started it again.
    restarts: u64,
    /// Why it is reported, and for how many checks it has run since.
    ended: Option<(String, u32)>,
}

impl UnitEnds {
    /// Takes how often systemd has started the unit of a task again, and what else is wrong with it; why it does not work.
    pub(super) fn take(&self, task: &TaskId, restarts: u64, fault: Option<String>) -> Option<String> {
        let mut all = self.lock();
        match all.iter_mut().find(|seen| seen.task == *task) {
            Some(seen) => seen.take(restarts, fault),
            None => {
                // How often before the first check says nothing of now.
                all.push(Seen { task: task.clone(), restarts, ended: None });
                fault
            }
        }
    }

    /// Whether anything was seen of the task's unit, which is forgotten.
    pub(super) fn forget(&self, task: &TaskId) -> bool {
        let mut all = self.lock();
        let at = all.iter().position(|seen| seen.task == *task);
        at.map(|at| all.swap_remove(at)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Seen {
    fn take(&mut self, restarts: u64, fault: Option<String>) -> Option<String> {
        let restarted = restarts > std::mem::replace(&mut self.restarts, restarts);
        if restarted {
            let why = format!("the unit ends by itself: systemd has started it again {restarts} times");
            self.ended = Some((why, 0));
        }
        if fault.is_some() {
            return fault;
        }
        let (why, calm) = self.ended.as_mut()?;
        *calm += 1;
        let why = (*calm <= CALM).then(|| why.clone());
        if why.is_none() {
            self.ended = None;
        }
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_systemd_starts_again_is_reported_until_it_runs_on() {
        let (ends, task) = (UnitEnds::default(), "web.server".parse::<TaskId>().unwrap());
        let take = |restarts, fault: Option<&str>| ends.take(&task, restarts, fault.map(str::to_owned));
        assert_eq!(take(7, None), None, "what was before the first check is not known");
        assert_eq!(take(7, None), None);
        assert!(take(8, None).is_some_and(|why| why.contains("8 times")));
        assert!(take(8, None).is_some(), "it may end again");
        assert_eq!(take(8, None), None, "it runs on");
        assert_eq!(take(8, Some("the unit has failed")).as_deref(), Some("the unit has failed"));
        assert_eq!(take(0, None), None, "an operator has started it again");
        assert!(ends.forget(&task) && !ends.forget(&task));
    }
}
