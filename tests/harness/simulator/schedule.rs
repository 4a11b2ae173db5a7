//! What goes wrong, when: a list of operations made up from the seed before the world begins, each with chance of its own.
//!
//! So one can be left out without changing the others, which is what makes a failing schedule short.

use std::time::Duration;

use super::rng::Rng;

/// From this seed on, tasks change their names and services. The worlds of lesser seeds are as they were when those seeds became
/// regressions.
pub const WITH_RENAMES: u64 = 1_000_000;

/// From this seed on, tasks also exchange what they own, and leave it to others by updates.
pub(super) const WITH_EXCHANGES: u64 = 2_000_000;

/// From this seed on, operators also park nodes, by request and in the inventory.
pub const WITH_PARKING: u64 = 3_000_000;

/// From this seed on, the broker also delivers presences of planners again.
pub const WITH_REPLAYS: u64 = 10_000_000;

/// From this seed on, the broker also drops what its queues for planners have no room for.
pub const WITH_DROPS: u64 = 20_000_000;

/// Something that happens to the world from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A connection breaks.
    Cut,
    /// A client's network lets nothing through for a while.
    Partition,
    /// An agent is killed between two effects.
    KillAgent,
    /// A host loses its power: what was not synced may be lost.
    PowerLoss,
    /// A planner is killed between two effects.
    KillPlanner,
    /// A planner is stopped in good order, and started again.
    StopPlanner,
    /// A planner loses its disk.
    LoseDisk,
    /// The broker loses all that it holds.
    WipeBroker,
    /// A second planner begins, or ends.
    Contend,
    /// A commit.
    Commit,
    /// The branch goes to another commit, older or a sibling.
    ForcePush,
    /// A commit that asks for what an older one did.
    Revert,
    /// A commit with a fault.
    BadCommit,
    /// A node is declared, with its host earlier or later.
    NewNode,
    /// A node is declared no more.
    RemoveNode,
    /// A node gets another name.
    RenameNode,
    /// A host is built again from nothing.
    Rebuild,
    /// A host is away for long.
    Away,
    /// Facts of a host change.
    Facts,
    /// An operator has things checked again.
    Recheck,
    /// A task gets another name.
    RenameTask,
    /// A task moves to another service, or to one of its own.
    MoveTask,
    /// Two tasks exchange what they own, or one leaves it to another one and owns something new.
    Exchange,
    /// An operator parks a node, for a time or until it is taken back, often one that is away from then on; or takes that back.
    Park,
    /// The inventory has a node as parked, decommissioned or active from now on.
    Lifecycle,
    /// The broker delivers what planners have published of their presence, and their last wills, again and again for a while.
    Replay,
}

/// An operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Op {
    pub(super) at: Duration,
    pub(super) fault: Fault,
    pub(super) salt: u64,
}

/// What may happen in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Profile {
    /// Processes may be killed, nodes come and go, planners contend.
    pub(super) rough: bool,
    /// Percent of jobs that fail.
    pub(super) failures: usize,
    /// Planners may lose their disks and contend.
    pub(super) planners: bool,
    /// Tasks change their names and services: what they own changes hands.
    pub(super) renames: bool,
    /// And so by updates.
    pub(super) exchanges: bool,
    /// Nodes are parked.
    pub(super) parks: bool,
    /// Presences of planners come again.
    pub(super) replays: bool,
    /// The broker drops messages to planners.
    pub(super) drops: bool,
}

/// The schedule of a seed.
pub(super) fn schedule(profile: Profile, rng: &mut Rng) -> Vec<Op> {
    use Fault::*;
    let calm = [(Cut, 12), (Partition, 6), (Commit, 12), (ForcePush, 2), (Revert, 2), (BadCommit, 2), (Facts, 4)];
    let rough = [
        (KillAgent, 10),
        (PowerLoss, 4),
        (KillPlanner, 6),
        (StopPlanner, 2),
        (WipeBroker, 3),
        (NewNode, 3),
        (RemoveNode, 2),
        (RenameNode, 2),
        (Rebuild, 3),
        (Away, 4),
        (Recheck, 3),
    ];
    let planners = [(LoseDisk, 2), (Contend, 4)];
    let mut weights: Vec<(Fault, usize)> = calm.to_vec();
    if profile.rough {
        weights.extend(rough);
    }
    if profile.planners {
        weights.extend(planners);
    }
    if profile.renames {
        weights.extend([(RenameTask, 10), (MoveTask, 8)]);
    }
    if profile.exchanges {
        weights.push((Exchange, 18));
    }
    if profile.parks {
        weights.extend([(Park, 16), (Lifecycle, 8)]);
    }
    if profile.replays {
        weights.extend([(Replay, 12), (Contend, 8), (KillPlanner, 8)]);
    }
    let total: usize = weights.iter().map(|(_, weight)| weight).sum();
    let count = rng.between(10, 40);
    let pace = *rng.pick(&[150, 600, 2000]);
    let mut at = Duration::from_millis(rng.between(200, 3000));
    let mut ops = Vec::new();
    for _ in 0..count {
        let mut left = rng.below(total);
        let fault = weights.iter().find(|(_, weight)| {
            let found = left < *weight;
            left = left.saturating_sub(*weight);
            found
        });
        let fault = fault.map_or(Cut, |(fault, _)| *fault);
        ops.push(Op { at, fault, salt: rng.next() });
        at += Duration::from_millis(rng.between(1, 2 * pace));
    }
    ops
}
