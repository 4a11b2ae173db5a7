//! groundplan-core
