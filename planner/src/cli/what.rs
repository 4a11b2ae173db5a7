//! Services and tasks as arguments.

use std::{collections::BTreeSet, str::FromStr};

use groundplan_protocol::ids::{ServiceId, TaskId};

/// A service (`keystone`) or a task (`keystone.config`).
#[derive(Debug, Clone)]
pub(super) enum What {
    Service(ServiceId),
    Task(TaskId),
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.contains('.') {
            true => text.parse().map(Self::Task).map_err(|e| format!("{e}; a task is `service.task`")),
            false => ServiceId::new(text).map(Self::Service).map_err(|e| e.to_string()),
        }
    }
}

/// The services and tasks that were named; none means all.
#[derive(Debug, Clone, Default)]
pub(super) struct Whats {
    pub(super) services: BTreeSet<ServiceId>,
    pub(super) tasks: BTreeSet<TaskId>,
}

impl Whats {
    /// Sorts arguments into services and tasks.
    pub(super) fn new(named: &[What]) -> Self {
        let mut whats = Self::default();
        for what in named {
            match what {
                What::Service(service) => _ = whats.services.insert(service.clone()),
                What::Task(task) => _ = whats.tasks.insert(task.clone()),
            }
        }
        whats
    }

    /// Whether a task was named, by itself or by its service, or nothing was.
    pub(super) fn includes(&self, task: &TaskId) -> bool {
        let all = self.services.is_empty() && self.tasks.is_empty();
        all || self.services.contains(&task.service) || self.tasks.contains(task)
    }
}
