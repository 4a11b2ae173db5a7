//! The way to the broker and back, over rumqttc with its traps fenced off.
//!
//! In: messages to publish, and what the broker sends. Out: signed envelopes, and events for the machine out of envelopes
//! that a trusted planner signed for this site. Remembers only what a lost connection may have swallowed; all else that
//! must not be lost is in the ledger. A message above the limit is never handed to the client.

mod inbound;
mod link;
mod outlet;
mod tls;

pub use self::{
    inbound::{Inbound, Reader},
    link::{Link, Signal},
    outlet::Outlet,
    tls::TlsError,
};
