//! The plan and its rollout against an independent oracle, on random sites.
//!
//! `world` generates sites; `naive` computes by brute force over instances what a plan must contain and in which order; `plan` compares,
//! and checks what must hold of any plan; `agents` and `rollout` carry plans out with simulated nodes that fail, disconnect, and receive
//! newer commits during a rollout. Nothing here shares code with the algorithms under test.

mod agents;
mod naive;
mod plan;
mod rollout;
mod world;
