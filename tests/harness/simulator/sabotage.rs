//! What the simulator can be made to do wrong, to show that it would be noticed.

/// Something that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// An agent forgets its obligations when it is started again.
    ForgetObligations,
    /// An agent starts jobs without noting them in its journal.
    SkipJournal,
    /// An agent's ledger is not synced: a power loss takes what the agent has reported already.
    SkipSync,
    /// Now and then an agent is given an older plan under a new number, as if it had no fence.
    RollBack,
    /// An agent takes every gate of its plan as open.
    OpenGatesEarly,
    /// An agent takes every turn of a rolling restart as given.
    IgnoreLimits,
    /// A planner publishes before its writes are on the disk.
    PublishFirst,
    /// A planner's log of its rollout is not written.
    DropLog,
    /// A gate that fired is published as one that did not.
    ForgetFired,
    /// A planner acknowledges reports that it then loses.
    LoseReports,
    /// An agent's state does not list what its tasks claim.
    ForgetClaims,
    /// A planner waits for parked nodes as for others.
    WaitForParked,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ForgetObligations,
        Self::SkipJournal,
        Self::SkipSync,
        Self::RollBack,
        Self::OpenGatesEarly,
        Self::IgnoreLimits,
        Self::PublishFirst,
        Self::DropLog,
        Self::ForgetFired,
        Self::LoseReports,
        Self::ForgetClaims,
        Self::WaitForParked,
    ];

    /// The first seed of whose world it may be noticed.
    pub fn first_seed(self) -> u64 {
        match self {
            Self::ForgetClaims => super::schedule::WITH_RENAMES,
            Self::WaitForParked => super::schedule::WITH_PARKING,
            _ => 1,
        }
    }
}
