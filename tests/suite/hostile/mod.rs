//! Attacks on a running planner, agents and broker: a scripted client, or a broker of the attacker's, does what a party that turned
//! hostile could do. What each of them gains, and what not, is in docs/security.md.

mod broker;
mod committers;
mod freshness;
mod generations;
mod late_orders;
mod leadership;
mod local_user;
mod long_texts;
mod message_flood;
mod stolen_certificate;
mod unsteady;
mod want_flood;
mod wiretap;
