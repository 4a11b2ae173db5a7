//! The connection to the broker, over rumqttc and around its pitfalls.
//!
//! In: messages to publish, and messages from the broker. Out: signed envelopes, and events for the machine from envelopes that a
//! trusted planner signed for this site. It keeps only what a lost connection may not have delivered; all else that must not be
//! lost is in the ledger. A message above the size limit is never passed to the client.

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
