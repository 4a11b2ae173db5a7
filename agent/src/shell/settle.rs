//! Plans that come right after a connection: a broker that kept the session delivers every plan that was missed, oldest first.
//!
//! In: plans, and the time. Out: the newest of those that came in one go, so that a node that was away goes from where it was to where
//! it should be in one step. Older ones are only acknowledged: the fence would refuse them after the newest anyway.

use std::time::Duration;

use groundplan_protocol::ids::Generation;
use rumqttc::Publish;

use crate::machine::Event;

/// This long without another plan, and the newest counts.
const QUIET: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Settling {
    until: Option<Duration>,
    held: Option<(Generation, Event, Publish)>,
}

/// What becomes of a message.
#[derive(Debug)]
pub(super) enum Offered {
    /// It is to be handled now.
    Handle(Event, Publish),
    /// It waits; the other, if any, is outdated and is only acknowledged.
    Held(Option<Publish>),
}

impl Settling {
    /// A connection was made, to a session that the broker had kept or not.
    pub(super) fn connected(&mut self, kept: bool, now: Duration) {
        // What was held was not acknowledged: it comes again.
        *self = Self { until: kept.then_some(now + QUIET), held: None };
    }

    /// Takes what came.
    pub(super) fn offer(&mut self, event: Event, publish: Publish, now: Duration) -> Offered {
        let generation = match &event {
            Event::Plan(plan) => plan.generation,
            Event::PlanRef(reference) => reference.generation,
            _ => return Offered::Handle(event, publish),
        };
        if self.until.is_none() {
            return Offered::Handle(event, publish);
        }
        self.until = Some(now + QUIET);
        match &self.held {
            Some((held, ..)) if *held > generation => Offered::Held(Some(publish)),
            _ => Offered::Held(self.held.replace((generation, event, publish)).map(|(.., outdated)| outdated)),
        }
    }

    /// When `settled` is to be asked.
    pub(super) fn at(&self) -> Option<Duration> {
        self.until
    }

    /// What was held, once it has been quiet.
    pub(super) fn settled(&mut self, now: Duration) -> Option<(Event, Publish)> {
        self.until.take_if(|until| *until <= now)?;
        self.held.take().map(|(_, event, publish)| (event, publish))
    }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{
        blob::BlobRef,
        ids::{NodeId, SiteName},
        plan::NodePlanRef,
    };
    use rumqttc::QoS;

    use super::*;

    fn plan(generation: u64) -> (Event, Publish) {
        let reference = NodePlanRef {
            version: groundplan_protocol::VERSION,
            site: SiteName::new("s").unwrap(),
            node: NodeId::new("n").unwrap(),
            generation: Generation(generation),
            plan: BlobRef::of(b""),
        };
        (Event::PlanRef(reference), Publish::new("plan", QoS::AtLeastOnce, generation.to_string()))
    }

    fn text(publish: &Publish) -> &[u8] {
        &publish.payload
    }

    #[test]
    fn of_what_was_missed_only_the_newest_counts() {
        let ms = Duration::from_millis;
        let mut settling = Settling::default();
        settling.connected(true, ms(0));
        for (generation, outdated) in [(2, None), (3, Some("2")), (4, Some("3")), (1, Some("1"))] {
            let (event, publish) = plan(generation);
            let Offered::Held(acknowledge) = settling.offer(event, publish, ms(10)) else { panic!("held") };
            assert_eq!(acknowledge.as_ref().map(text), outdated.map(str::as_bytes));
        }
        assert!(settling.settled(ms(59)).is_none());
        let (_, publish) = settling.settled(ms(60)).expect("quiet for long enough");
        assert_eq!(text(&publish), b"4");
        let (event, publish) = plan(5);
        assert!(matches!(settling.offer(event, publish, ms(61)), Offered::Handle(..)), "from then on at once");
    }

    #[test]
    fn a_session_that_was_not_kept_missed_nothing() {
        let mut settling = Settling::default();
        settling.connected(false, Duration::ZERO);
        let (event, publish) = plan(1);
        assert!(matches!(settling.offer(event, publish, Duration::ZERO), Offered::Handle(..)));
    }
}
