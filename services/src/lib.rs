//! groundplan-services
