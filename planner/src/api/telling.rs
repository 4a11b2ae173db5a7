//! The way of a command's events to who asked for it.
//!
//! Never waits. Results always arrive; output is left out while a reader is too far behind, and how much is told in its place.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use groundplan_protocol::ids::NodeId;
use tokio::sync::mpsc;

use super::exec::ExecEvent;

/// Output beyond this that was not read is left out, in bytes.
const UNREAD: usize = 16 << 20;

/// Where events go in.
#[derive(Debug)]
pub(crate) struct Telling {
    events: mpsc::UnboundedSender<ExecEvent>,
    /// Bytes of output that were not read yet.
    unread: Arc<AtomicUsize>,
    /// What was left out, by node, and not told yet.
    missed: BTreeMap<NodeId, u64>,
}

/// Where they come out.
#[derive(Debug)]
pub(crate) struct Hearing {
    events: mpsc::UnboundedReceiver<ExecEvent>,
    unread: Arc<AtomicUsize>,
}

/// A way for the events of one command.
pub(crate) fn telling() -> (Telling, Hearing) {
    let (sender, events) = mpsc::unbounded_channel();
    let unread = Arc::new(AtomicUsize::new(0));
    (Telling { events: sender, unread: Arc::clone(&unread), missed: BTreeMap::new() }, Hearing { events, unread })
}

impl Telling {
    /// Tells an event.
    pub(crate) fn tell(&mut self, event: ExecEvent) {
        if let ExecEvent::Output { node, text, .. } = &event {
            if self.unread.load(Ordering::Relaxed) > UNREAD {
                *self.missed.entry(node.clone()).or_default() += text.len() as u64;
                return;
            }
            self.unread.fetch_add(text.len(), Ordering::Relaxed);
        }
        let missed = match &event {
            ExecEvent::Output { node, .. } | ExecEvent::NodeEnded { node, .. } => self.missed.remove_entry(node),
            _ => None,
        };
        let missed = missed.map(|(node, bytes)| ExecEvent::Missed { node, bytes });
        for event in missed.into_iter().chain([event]) {
            // That nobody listens any more is seen by `has_gone`.
            let _ = self.events.send(event);
        }
    }

    /// Whether nobody listens any more.
    pub(crate) fn has_gone(&self) -> bool {
        self.events.is_closed()
    }
}

impl Hearing {
    /// The next event; none after the last.
    pub(crate) async fn next(&mut self) -> Option<ExecEvent> {
        let event = self.events.recv().await?;
        if let ExecEvent::Output { text, .. } = &event {
            self.unread.fetch_sub(text.len(), Ordering::Relaxed);
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::exec::Stream;

    use super::*;
    use crate::api::exec::NodeOutcome;

    #[tokio::test]
    async fn results_arrive_and_what_output_is_left_out_is_told() {
        let (mut telling, mut hearing) = telling();
        let node = || NodeId::new("n").unwrap();
        let output = || ExecEvent::Output { node: node(), stream: Stream::Out, text: "x".repeat(1 << 20) };
        (0..20).for_each(|_| telling.tell(output()));
        let ended = NodeOutcome::Exited { code: 0 };
        telling.tell(ExecEvent::NodeEnded { node: node(), outcome: ended, duration_ms: None, omitted: 0 });
        for _ in 0..17 {
            assert_eq!(hearing.next().await, Some(output()));
        }
        assert_eq!(hearing.next().await, Some(ExecEvent::Missed { node: node(), bytes: 3 << 20 }));
        assert!(matches!(hearing.next().await, Some(ExecEvent::NodeEnded { .. })));
        telling.tell(output());
        assert_eq!(hearing.next().await, Some(output()));
        assert!(!telling.has_gone());
        drop(hearing);
        assert!(telling.has_gone());
    }
}
