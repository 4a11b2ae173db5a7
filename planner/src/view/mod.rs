//! The read side: answers from an immutable snapshot of the machine and from the store, on the threads of those who ask.
//!
//! In: a [`Snapshot`], and for what is past a [`Reader`](crate::store::Reader). Out: the API's types. Changes nothing and waits for
//! nothing, so any number of readers may ask as often as they like.

mod convert;
mod drift;
mod history;
mod select;
mod snapshot;
mod status;
mod why;

pub(crate) use self::{
    convert::command_event,
    drift::{drift, drift_answers},
    history::{exec_record, history, rollout},
    select::{has, hosts, is_declared, knowledge, may_forget, parked, selected},
    snapshot::{PlannerInfo, Snapshot, StoreFault},
    status::status,
    why::why,
};
