//! Facts of the host, for people, templates and `when`.
//!
//! In: the host's own files and the programs of a folder. Out: facts by name, each time that they have changed, from a task of its
//! own: a slow program does not delay the agent. Only properties that stay as they are while the host does: no load, no free
//! memory.

mod host;
mod local;

use std::{path::PathBuf, time::Duration};

use groundplan_protocol::{limits::facts_length, state::FACTS_LIMIT};
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{Receiver, channel},
    task::JoinHandle,
    time::sleep,
};

pub use self::host::boot_id;
use crate::{log, machine::Facts};

/// How often facts are read again.
const EVERY: Duration = Duration::from_secs(300);

/// Reads facts at the start, every five minutes, and on SIGHUP.
#[derive(Debug)]
pub struct FactsWatch {
    changed: Receiver<Facts>,
    reader: JoinHandle<()>,
}

impl FactsWatch {
    /// Starts to read. `programs` is the folder of programs for facts of the operator's own.
    ///
    /// # Errors
    /// If SIGHUP cannot be listened to.
    pub fn start(programs: PathBuf) -> std::io::Result<Self> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (sender, changed) = channel(1);
        let reader = tokio::spawn(async move {
            let mut last = None;
            loop {
                let facts = read(&programs).await;
                if last.as_ref() != Some(&facts) {
                    last = Some(facts.clone());
                    if sender.send(facts).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = sleep(EVERY) => {}
                    _ = hangup.recv() => {}
                }
            }
        });
        Ok(Self { changed, reader })
    }

    /// Returns the facts once they are read for the first time, and whenever they have changed.
    pub async fn changed(&mut self) -> Facts {
        match self.changed.recv().await {
            Some(facts) => facts,
            // The reader never ends before its receiver.
            None => std::future::pending().await,
        }
    }
}

impl Drop for FactsWatch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Facts that a planner takes: it refuses a state with more.
fn bounded(mut facts: Facts) -> Facts {
    while facts_length(&facts) > FACTS_LIMIT {
        let length = |(name, value): &(&String, &Value)| name.len() + value.to_string().len();
        let Some(name) = facts.iter().max_by_key(length).map(|(name, _)| name.clone()) else { break };
        log::warn(format_args!("fact `{name}` is left out: all facts together are too large"));
        facts.remove(&name);
    }
    facts
}

async fn read(programs: &std::path::Path) -> Facts {
    let mut facts = host::facts();
    let local = local::facts(programs).await;
    if !local.is_empty() {
        facts.insert("local".to_owned(), Value::Object(local));
    }
    bounded(facts)
}
