//! The plan and its rollout against what they ought to be, on random sites.
//!
//! `world` makes up sites; `naive` says by brute force over instances what a plan must contain and in which order; `plan` compares,
//! and checks what must hold of any plan; `agents` and `rollout` carry plans out with simulated nodes that fail, go away, and are
//! told of newer commits half way. Nothing here shares code with the algorithms under test.

mod agents;
mod naive;
mod plan;
mod rollout;
mod world;
