//! `wait`: waits for a time, or until something answers, or no longer does.
//!
//! It waits when it is new or changed and when a trigger fires, and then always counts as changed, so that its triggers do not
//! depend on how fast the other side was. Checked again it probes once more, and that changes nothing.

use groundplan_protocol::{
    duration::Span,
    effect::Effect,
    kinds::{Wait, WaitState},
    ready::{DEFAULT_INTERVAL, DEFAULT_TIMEOUT},
};
use tokio::time::{Duration, Instant, sleep};

use super::{
    context::Context,
    kind::{Applied, Check, Kind, essence},
};
use crate::host::{
    error::{HostError, KindError},
    probe::{self, Patience, ProbeError, Probes, Tried},
};

/// Why the wait failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    #[error("gave up after {} in {took}: {last}", times(*attempts))]
    GaveUp { attempts: u32, took: Span, last: String },
    #[error(transparent)]
    Probe(ProbeError),
}

impl KindError for WaitError {}

impl Kind for Wait {
    /// What answered once may stop answering: that is not drift.
    fn drifts(&self, _: &Context<'_>) -> bool {
        false
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        if cx.memory() != Some(&essence(self)) {
            return Ok(Check::OutOfSync);
        }
        let once = Patience { attempts: Some(1), ..patience(self) };
        Ok((!self.probes() || tried(self, cx, once).await?.last.is_none()).into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        wait(self, cx).await?;
        cx.remember(&essence(self));
        Ok(Applied { afresh: true })
    }

    async fn remove(&self, _: &Context<'_>) -> Result<bool, HostError> {
        Ok(false)
    }

    async fn effect(&self, cx: &Context<'_>, _: Effect) -> Result<bool, HostError> {
        wait(self, cx).await?;
        Ok(true)
    }
}

async fn wait(wait: &Wait, cx: &Context<'_>) -> Result<(), WaitError> {
    if let Some(seconds) = wait.seconds {
        return tokio::select! {
            () = cx.cancel.cancelled() => Err(WaitError::Probe(ProbeError::Cancelled)),
            () = sleep(Duration::from_secs(seconds)) => Ok(()),
        };
    }
    let Tried { attempts, last } = tried(wait, cx, patience(wait)).await?;
    match last {
        None => {
            cx.report(&format!("succeeded at attempt {attempts}"));
            Ok(())
        }
        Some(last) => {
            let took = Span::millis(u64::try_from(cx.begun.elapsed().as_millis()).unwrap_or(u64::MAX));
            Err(WaitError::GaveUp { attempts, took, last })
        }
    }
}

async fn tried(wait: &Wait, cx: &Context<'_>, patience: Patience) -> Result<Tried, WaitError> {
    let probes = Probes {
        tcp: wait.tcp.as_ref(),
        http: wait.http.as_deref(),
        status: &wait.status,
        command: wait.command.as_ref(),
        down: wait.state == Some(WaitState::Down),
    };
    let host = cx.host;
    let tried = probe::persist(&host.environment, probes, patience, host.stop_grace, cx.cancel).await;
    tried.map_err(WaitError::Probe)
}

fn patience(wait: &Wait) -> Patience {
    let until = limit(wait).map(|limit| Instant::now() + limit);
    let interval = wait.interval.unwrap_or(DEFAULT_INTERVAL).into();
    Patience { until, interval, attempts: wait.retries.map(|retries| retries.saturating_add(1)) }
}

/// No time limit if only a number of attempts is given.
fn limit(wait: &Wait) -> Option<Duration> {
    let default = wait.retries.is_none().then_some(DEFAULT_TIMEOUT);
    wait.timeout.or(default).map(Duration::from)
}

fn times(attempts: u32) -> String {
    if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") }
}
