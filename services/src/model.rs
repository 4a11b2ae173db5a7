//! The validated model of service definitions. Only this crate's validation makes it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use groundplan_inventory::{DriftPolicy, Located, Location, Rollout, Vars, decode::Toggle};
use groundplan_protocol::{
    duration::Span,
    effect::Effect,
    ids::{Capability, NodeId, Resource, ServiceId, TaskId, TaskName},
    kinds::TaskParams,
    plan::{OnInterrupt, OnRemove, Retry},
    ready::Ready,
};

/// All services of a site.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// The services; shared, because a file that did not change is not read again.
    pub services: BTreeMap<ServiceId, Arc<Service>>,
}

/// A service: vars, tasks in their order, and policies.
#[derive(Debug, Clone)]
pub struct Service {
    /// One line for people.
    pub description: Option<String>,
    /// What comes before all of its tasks.
    pub requires: Vec<Located<Reference>>,
    /// Defaults of vars; site, groups and nodes override them.
    pub vars: Vars,
    /// Its tasks, in file order.
    pub tasks: Vec<Task>,
    /// Its rolling limits; those that it does not set come from the site.
    pub rollout: Rollout,
    /// What happens to drift in it; none: the site's policy.
    pub drift: Option<DriftPolicy>,
    /// Its folder in the repository, such as `services/keystone`.
    pub folder: String,
    /// Where it is declared.
    pub at: Location,
}

/// A task as declared.
#[derive(Debug, Clone)]
pub struct Task {
    /// The task's name, unique within its service.
    pub id: TaskName,
    /// Its kind and parameters; strings may be templates.
    pub params: TaskParams,
    /// Where the key of its kind stands.
    pub kind_at: Location,
    /// Further keys that may be kinds of plugins, or unknown: empty, once [`crate::tree::merge`] has found no fault.
    pub strays: Vec<Located<TaskName>>,
    /// Where each parameter's value stands, by its path below the kind (`path`, `env.PORT`, `run[2]`); so too below `ready.`.
    pub places: BTreeMap<String, Location>,
    /// What it comes after, instead of the task before it in the file; `None`: that task.
    pub requires: Option<Vec<Located<Reference>>>,
    /// Tasks that come after it: edges declared at their source.
    pub needed_by: Vec<Located<Reference>>,
    /// Trigger edges that lead to it.
    pub triggers: Vec<TaskTrigger>,
    /// Whether it runs on one elected node of the service only, and when another node takes over.
    pub once: Option<Once>,
    /// The expression that decides whether a node has it; its place is `when` in `places`.
    pub when: Option<String>,
    /// The probe that decides when it counts as done; strings may be templates.
    pub ready: Option<Ready>,
    /// Capabilities that are available once it is done.
    pub provides: Vec<Located<Capability>>,
    /// What no other task of a node may use at the same time.
    pub conflicts: Vec<Located<Resource>>,
    /// Where it says that a commit that would remove it from a node is refused, if it does.
    pub prevent_destroy: Option<Location>,
    /// Whether it is tried again when it fails; absent: what its service or the site says.
    pub retry: Option<Toggle<Retry>>,
    /// What happens after the agent was killed while it ran.
    pub on_interrupt: OnInterrupt,
    /// What its removal does with what it changed.
    pub on_remove: OnRemove,
    /// Where it is declared.
    pub at: Location,
}

/// That a task runs on one node of its service only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Once {
    /// How long its node may be away before another one takes over, at least 1 s; none: however long.
    pub failover: Option<Span>,
}

/// A trigger edge as declared: `restart_on`, `reload_on` or `run_on`.
#[derive(Debug, Clone)]
pub struct TaskTrigger {
    /// What it does to the task that declares it.
    pub effect: Effect,
    /// The task that it comes from.
    pub on: Located<Reference>,
}

/// A reference as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// `config`: a task of this service, on this node.
    Local(TaskName),
    /// `mariadb.start`: a task of a service, on every node that runs it.
    Task(TaskId),
    /// `mariadb.start@node`: that task on that node only.
    Instance(TaskId, NodeId),
    /// `database/ready`: all instances of the task that provides it.
    Capability(Capability),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(task) => task.fmt(f),
            Self::Task(task) => task.fmt(f),
            Self::Instance(task, node) => write!(f, "{task}@{node}"),
            Self::Capability(capability) => capability.fmt(f),
        }
    }
}
