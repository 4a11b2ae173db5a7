//! Plans that come right after a connection was made: a broker that kept the session delivers every missed plan, oldest first.
//!
//! In: plans, and the time. Out: the newest of those that came in one go, so that a node that was away gets from its own base to
//! the desired state in one step. Older ones are only acknowledged: the fence would refuse them after the newest anyway.

use std::time::Duration;

use groundplan_protocol::ids::Generation;
use rumqttc::Publish;

use crate::machine::Event;

/// After this long without another plan, the newest is handled.
const QUIET: Duration = Duration::from_millis(50);

/// Holds back plans for a moment after a connection was made.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    until: Option<Duration>,
    held: Option<(Generation, Event, Publish)>,
}

/// What to do with a message.
#[derive(Debug)]
pub(super) enum Offered {
    /// Handle it now.
    Handle(Event, Publish),
    /// It is held; the message given back, if any, is outdated and is only acknowledged.
    Held(Option<Publish>),
}

impl CatchUp {
    /// A connection was made; `kept` if the broker has kept the session.
    pub(super) fn connected(&mut self, kept: bool, now: Duration) {
        // A held plan was not acknowledged: the broker delivers it again.
        *self = Self { until: kept.then_some(now + QUIET), held: None };
    }

    /// Takes a message: a plan may be held back, everything else is to be handled at once.
    pub(super) fn offer(&mut self, event: Event, publish: Publish, now: Duration) -> Offered {
        let generation = match &event {
            Event::Plan(offer) => offer.generation,
            _ => return Offered::Handle(event, publish),
        };
        if self.until.is_none() {
            return Offered::Handle(event, publish);
        }
        // As long as plans keep coming, newer ones may follow.
        self.until = Some(now + QUIET);
        match &self.held {
            // Of two plans the newer one is held, in whatever order they come; the other is only acknowledged.
            Some((held, ..)) if *held > generation => Offered::Held(Some(publish)),
            _ => Offered::Held(self.held.replace((generation, event, publish)).map(|(.., outdated)| outdated)),
        }
    }

    /// When `due` is to be called, by the monotonic clock.
    pub(super) fn at(&self) -> Option<Duration> {
        self.until
    }

    /// The plan that was held, once no other has come for a while.
    pub(super) fn due(&mut self, now: Duration) -> Option<(Event, Publish)> {
        self.until.take_if(|until| *until <= now)?;
        self.held.take().map(|(_, event, publish)| (event, publish))
    }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{
        envelope::SigningKey,
        ids::{NodeId, SiteName},
        plan::{PlanOffer, PlanText},
    };
    use rumqttc::QoS;

    use super::*;

    fn plan(generation: u64) -> (Event, Publish) {
        let of = (SiteName::new("s").unwrap(), NodeId::new("n").unwrap(), Generation(generation));
        let text = PlanText::from_json(b"{}".to_vec()).unwrap();
        let offer = PlanOffer::new(&SigningKey::from_seed([1; 32]), 1, of, text, (0, u64::MAX));
        (Event::Plan(Box::new(offer)), Publish::new("plan", QoS::AtLeastOnce, generation.to_string()))
    }

    fn text(publish: &Publish) -> &[u8] {
        &publish.payload
    }

    #[test]
    fn of_missed_plans_only_the_newest_is_handled() {
        let ms = Duration::from_millis;
        let mut catch_up = CatchUp::default();
        catch_up.connected(true, ms(0));
        for (generation, outdated) in [(2, None), (3, Some("2")), (4, Some("3")), (1, Some("1"))] {
            let (event, publish) = plan(generation);
            let Offered::Held(acknowledge) = catch_up.offer(event, publish, ms(10)) else { panic!("held") };
            assert_eq!(acknowledge.as_ref().map(text), outdated.map(str::as_bytes));
        }
        assert!(catch_up.due(ms(59)).is_none());
        let (_, publish) = catch_up.due(ms(60)).expect("no other came for long enough");
        assert_eq!(text(&publish), b"4");
        let (event, publish) = plan(5);
        assert!(matches!(catch_up.offer(event, publish, ms(61)), Offered::Handle(..)), "from then on each at once");
    }

    #[test]
    fn without_a_kept_session_no_plan_is_held() {
        let mut catch_up = CatchUp::default();
        catch_up.connected(false, Duration::ZERO);
        let (event, publish) = plan(1);
        assert!(matches!(catch_up.offer(event, publish, Duration::ZERO), Offered::Handle(..)));
    }
}
