//! What the host is: facts for people, templates and `when`.
//!
//! In: the host's own files and the programs of a folder. Out: facts by name, each time that they have changed, from a task of its
//! own: however long a program takes, the agent goes on. Only what stays as it is while the host does: no load, no free memory.

mod host;
mod local;

use std::{path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{Receiver, channel},
    task::JoinHandle,
    time::sleep,
};

pub use self::host::boot_id;
use crate::machine::Facts;

/// How often facts are read anew.
const EVERY: Duration = Duration::from_secs(300);

/// Reads facts at the start, every five minutes, and on SIGHUP.
#[derive(Debug)]
pub struct Watch {
    changed: Receiver<Facts>,
    reader: JoinHandle<()>,
}

impl Watch {
    /// Begins to read. `programs` is the folder of those that tell facts of their own.
    pub fn start(programs: PathBuf) -> std::io::Result<Self> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (tell, changed) = channel(1);
        let reader = tokio::spawn(async move {
            let mut last = None;
            loop {
                let facts = read(&programs).await;
                if last.as_ref() != Some(&facts) {
                    last = Some(facts.clone());
                    if tell.send(facts).await.is_err() {
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

    /// The facts, when they are known for the first time and when they have changed.
    pub async fn changed(&mut self) -> Facts {
        match self.changed.recv().await {
            Some(facts) => facts,
            // The reader never ends before its receiver.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(programs: &std::path::Path) -> Facts {
    let mut facts = host::facts();
    let local = local::facts(programs).await;
    if !local.is_empty() {
        facts.insert("local".to_owned(), Value::Object(local));
    }
    facts
}
