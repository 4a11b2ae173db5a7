//! groundplan-protocol
