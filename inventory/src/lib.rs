//! groundplan-inventory
