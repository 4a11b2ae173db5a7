//! The way of a command's events to the client that asked for it.
//!
//! Never waits. Results always arrive; output is left out while a reader is too far behind, and its size is reported in its place.

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
pub(crate) struct EventSender {
    events: mpsc::UnboundedSender<ExecEvent>,
    /// Bytes of output that were not read yet.
    unread: Arc<AtomicUsize>,
    /// What was left out, by node, and not reported yet.
    missed: BTreeMap<NodeId, u64>,
}

/// Where they come out.
#[derive(Debug)]
pub(crate) struct EventReceiver {
    events: mpsc::UnboundedReceiver<ExecEvent>,
    unread: Arc<AtomicUsize>,
}

/// A way for the events of one command.
pub(crate) fn event_channel() -> (EventSender, EventReceiver) {
    let (sender, events) = mpsc::unbounded_channel();
    let unread = Arc::new(AtomicUsize::new(0));
    (
        EventSender { events: sender, unread: Arc::clone(&unread), missed: BTreeMap::new() },
        EventReceiver { events, unread },
    )
}

impl EventSender {
    /// Sends an event; output is left out, and counted, while the client has too much of it unread.
    pub(crate) fn send(&mut self, event: ExecEvent) {
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
            // That no client reads any more is seen by `closed`.
            let _ = self.events.send(event);
        }
    }

    /// Resolves when no client reads any more.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let events = self.events.clone();
        async move { events.closed().await }
    }
}

impl EventReceiver {
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
    async fn results_arrive_and_output_that_is_left_out_is_reported() {
        let (mut sender, mut receiver) = event_channel();
        let node = || NodeId::new("n").unwrap();
        let output = || ExecEvent::Output { node: node(), stream: Stream::Out, text: "x".repeat(1 << 20) };
        (0..20).for_each(|_| sender.send(output()));
        let ended = NodeOutcome::Exited { code: 0 };
        sender.send(ExecEvent::NodeEnded { node: node(), outcome: ended, duration_ms: None, omitted: 0 });
        for _ in 0..17 {
            assert_eq!(receiver.next().await, Some(output()));
        }
        assert_eq!(receiver.next().await, Some(ExecEvent::Missed { node: node(), bytes: 3 << 20 }));
        assert!(matches!(receiver.next().await, Some(ExecEvent::NodeEnded { .. })));
        sender.send(output());
        assert_eq!(receiver.next().await, Some(output()));
        drop(receiver);
        sender.closed().await;
    }
}
