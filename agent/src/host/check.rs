//! Drift checks: whether the host is still as a task was applied, and if not, what differs.
//!
//! In: what the ledger holds of a task. Out: a [`CheckResult`]. It runs the check of the kind and nothing else: nothing is
//! changed, and what a check notes for its task is dropped.

use std::{sync::Mutex, time::Duration};

use groundplan_protocol::{blob::Content, ids::TaskId, plan::TaskSpec};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    cancel::Cancel,
    differences::shorten,
    error::HostError,
    fs::files::Sum,
    kinds::{
        self,
        context::{Context, Shipped},
        kind::Check,
    },
    shared::Host,
};
use crate::drift::CheckResult;

/// How long the check of one task may take. One that hangs, as on a file system whose server is away, fails and delays no other.
const LONGEST: Duration = Duration::from_secs(10 * 60);

impl Host {
    /// Checks an applied task without changing anything: `spec` and `memory` are what the ledger holds of it.
    pub async fn check(&self, task: &TaskId, spec: &TaskSpec, memory: Option<&Value>, cancel: &Cancel) -> CheckResult {
        match self.drift_of(task, spec, memory, cancel).await {
            Ok(result) => result,
            Err(error) => CheckResult::Failed(shorten(&crate::log::chain(&error))),
        }
    }

    async fn drift_of(
        &self,
        task: &TaskId,
        spec: &TaskSpec,
        memory: Option<&Value>,
        cancel: &Cancel,
    ) -> Result<CheckResult, HostError> {
        let _turn = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(HostError::Cancelled),
            turn = self.exclusive.turn() => turn,
        };
        // Whether it was refused or skipped: there is nothing of it to compare.
        if self.is_beyond(&spec.params) {
            return Ok(CheckResult::LeftOut);
        }
        let mut cx = Context::new(self, task, cancel).with_memory(memory);
        cx.differences = Some(Mutex::default());
        // The ledger keeps only the digest of what was shipped, which is all that a check needs.
        let blob = spec.content.as_ref().and_then(Content::name);
        cx.content = blob.map(|blob| Shipped::named(Sum { digest: blob.sha256, size: blob.size }));
        if !kinds::drifts(&spec.params, &cx) {
            return Ok(CheckResult::LeftOut);
        }
        let check = timeout(LONGEST, kinds::check(&spec.params, &cx)).await.map_err(|_| HostError::CheckTimeout)?;
        Ok(match check? {
            Check::InSync => CheckResult::InSync,
            Check::OutOfSync => CheckResult::Drifted(cx.into_differences()),
        })
    }
}
