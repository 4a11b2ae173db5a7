//! Time limits of the shutdown.

use std::time::Duration;

/// How long cancelled jobs, checks and commands may take to end.
pub(super) const CANCEL_LIMIT: Duration = Duration::from_secs(15);
/// How long the shutdown may take to deliver what is stored and to disconnect.
pub(super) const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);
