//! The loop of a `groundplan up`: starts the parts in order, hands on what happens, and stops them in the other order.

use crate::api::requests::GetEvents;
use crate::api::requests::GetStatus;
use crate::api::requests::GetWhy;
use std::{
    future,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use groundplan_protocol::{
    envelope::PublicKey,
    ids::{NodeId, SiteName},
    report::Outcome,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{
    agents::{Agents, Died, sweep},
    layout::Layout,
};
use crate::{
    api::{
        Client,
        client::Events,
        event::Event,
        types::{NodePresence, NodeStatus, RolloutResult, Status},
    },
    config::ServeConfig,
    launch::{embedded_broker, planner},
    terminal::{Failure, progress::Progress},
};
use groundplan_protocol::broker::BrokerAddress;

/// How long the planner may take to open its socket.
const START: Duration = Duration::from_secs(20);
/// How long agents may take to stop what they supervise; a process may ask for more than the usual 10 s, and is then killed.
const STOP: Duration = Duration::from_secs(30);

/// How long to wait until the next look whether all is quiet: the first time, and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What to run.
pub(super) struct Shell {
    pub(super) layout: Layout,
    pub(super) agent: PathBuf,
    pub(super) site: PathBuf,
    pub(super) branch: String,
    pub(super) broker_port: u16,
}

/// Ctrl-C, SIGTERM, or a terminal that is closed.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stops {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|e| Failure::because("cannot wait for signals", e));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// A planner in this process.
struct Planner {
    task: JoinHandle<Result<(), Failure>>,
    stop: oneshot::Sender<()>,
}

impl Planner {
    fn start(config: ServeConfig) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            // It stops as well when nobody is left who could tell it to.
            let stopped = async { drop(stopped.await) };
            planner(config, stopped).await
        });
        Self { task, stop }
    }

    /// Its end before anybody asked for it.
    async fn ended(&mut self) -> Failure {
        match (&mut self.task).await {
            Ok(Ok(())) => Failure::new("the planner stopped by itself"),
            Ok(Err(e)) => e,
            Err(e) => Failure::because("the planner stopped", e),
        }
    }
}

impl Shell {
    /// Runs until a signal asks it to stop, or the planner ends.
    pub(super) async fn run(self, mut progress: Progress) -> Result<(), Failure> {
        let mut stops = Stops::new()?;
        let broker = embedded_broker(SocketAddr::from((Ipv4Addr::LOCALHOST, self.broker_port))).await?;
        let port = broker.addresses()[0].port();
        let address = BrokerAddress { host: Ipv4Addr::LOCALHOST.to_string(), port, tls: false };
        let mut config = ServeConfig::new(self.site.to_string_lossy(), address.clone(), self.layout.planner());
        config.branch = Some(self.branch.clone());
        let socket = config.socket();
        let mut planner = Planner::start(config);
        let (died, mut deaths) = mpsc::unbounded_channel();
        let mut agents = Agents::new(self.agent.clone(), died);

        let result = tokio::select! {
            result = self.follow(&socket, &address, &mut agents, &mut deaths, &mut progress) => result,
            failure = planner.ended() => Err(failure),
            () = stops.next() => Ok(()),
        };

        progress.end();
        progress.say("\nstopping; once more to force it");
        agents.stop_all();
        tokio::select! {
            () = agents.ended() => {}
            () = stops.next() => {}
            () = sleep(STOP) => {}
        }
        agents.kill_all();
        agents.ended().await;
        let left = sweep(&self.layout.nodes());
        if left > 0 {
            progress.complain(&format!("killed {left} that would not stop"));
        }
        if !planner.task.is_finished() {
            // If it has just ended, there is nothing to tell it.
            let _ = planner.stop.send(());
            tokio::select! {
                _ = &mut planner.task => {}
                () = stops.next() => planner.task.abort(),
            }
        }
        broker.stop().await;
        progress.say("stopped");
        result
    }

    /// Follows the planner's events and keeps the agents those of the site.
    async fn follow(
        &self,
        socket: &std::path::Path,
        broker: &BrokerAddress,
        agents: &mut Agents,
        deaths: &mut mpsc::UnboundedReceiver<Died>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut events = connect(socket).await?;
        let mut client = Client::connect(socket).await.map_err(asked)?;
        let status = client.ask(&GetStatus {}).await.map_err(asked)?;
        self.agents(&status, broker, agents, progress).await?;
        if status.rollout.as_ref().is_some_and(|r| matches!(r.result, RolloutResult::Running | RolloutResult::Waiting))
        {
            progress.rollout(&client.rollout(None).await.map_err(asked)?);
        } else if let Some(refused) = &status.refused {
            progress.event(&Event::Refused { refused: refused.clone() });
        }
        // An agent's last state may come after the last event: looked for again until all is quiet.
        let mut look = Look::default();
        loop {
            let event = tokio::select! {
                // What has happened is told before what has come of it.
                biased;
                event = events.next() => event.map_err(asked)?,
                () = look.due() => {
                    let status = client.ask(&GetStatus {}).await.map_err(asked)?;
                    if look.seen(settled(&status, look.is_patient())) {
                        progress.settled(&status);
                    }
                    continue;
                }
                Some(Died { node, how }) = deaths.recv() => {
                    progress.complain(&format!("{node}: its agent {how}; it is started again"));
                    continue;
                }
            };
            // The planner's end is told by its task.
            let Some(event) = event else { return future::pending().await };
            match &event {
                Event::RolloutStarted { rollout } => match client.rollout(Some(rollout.generation)).await {
                    Ok(detail) => progress.rollout(&detail),
                    Err(e) => return Err(asked(e)),
                },
                _ => progress.event(&event),
            }
            match &event {
                Event::Commit { .. } => {
                    let status = client.ask(&GetStatus {}).await.map_err(asked)?;
                    self.agents(&status, broker, agents, progress).await?;
                }
                Event::TaskFinished { instance, outcome: Outcome::Failed { .. }, .. } => {
                    let record = client
                        .ask(&GetWhy { node: instance.node.clone(), task: instance.task.clone() })
                        .await
                        .ok()
                        .and_then(|why| why.record);
                    if let Some(output) = record.and_then(|record| record.output) {
                        progress.output(&output);
                    }
                }
                Event::Idle | Event::RolloutFinished { .. } | Event::Node { .. } => look.soon(),
                _ => {}
            }
        }
    }

    /// Starts agents for nodes that are new, and stops those of nodes that are gone.
    async fn agents(
        &self,
        status: &Status,
        broker: &BrokerAddress,
        agents: &mut Agents,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let Some(site) = &status.site else { return Ok(()) };
        let declared: Vec<NodeId> = status.nodes.iter().filter(|n| n.declared).map(|n| n.node.clone()).collect();
        for node in agents.nodes().iter().filter(|node| !declared.contains(node)) {
            agents.stop(node).await;
            progress.say(&format!("{node}: no longer in the site; its agent is stopped"));
        }
        progress.nodes(&declared);
        for node in declared.iter().filter(|node| !agents.has(node)).cloned().collect::<Vec<_>>() {
            let config = self.prepare(&node, site, broker, status)?;
            let log = self.layout.agent_log(&node);
            agents.start(node, config, log);
        }
        Ok(())
    }

    fn prepare(
        &self,
        node: &NodeId,
        site: &SiteName,
        broker: &BrokerAddress,
        status: &Status,
    ) -> Result<PathBuf, Failure> {
        let key: PublicKey =
            status.planner.key.parse().map_err(|e| Failure::because("the planner tells no public key", e))?;
        self.layout.prepare_node(node, site, broker, &key)
    }
}

/// When to look again whether all is quiet: soon, then less and less often.
#[derive(Default)]
struct Look {
    at: Option<Instant>,
    pause: Duration,
}

impl Look {
    fn soon(&mut self) {
        (self.at, self.pause) = (Some(Instant::now()), LOOK.0);
    }

    async fn due(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => future::pending().await,
        }
    }

    /// Whether it has looked for long.
    fn is_patient(&self) -> bool {
        self.pause >= LOOK.1
    }

    /// Passes on whether it is quiet, and arranges for another look if not.
    fn seen(&mut self, quiet: bool) -> bool {
        self.at = (!quiet).then(|| Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LOOK.1);
        quiet
    }
}

/// Whether every declared node is there with all that the commit in force asks for, as far as it can be had. A site that asks
/// for nothing has no rollout; one that has none yet gets it soon.
fn settled(status: &Status, patient: bool) -> bool {
    let done = |n: &NodeStatus| n.presence == NodePresence::Online && n.counts.open() == 0 && n.generation >= n.planned;
    let over = status
        .rollout
        .as_ref()
        .map_or(patient, |rollout| !matches!(rollout.result, RolloutResult::Running | RolloutResult::Waiting));
    status.commit.is_some() && over && status.nodes.iter().filter(|n| n.declared).all(done)
}

fn asked(e: crate::api::ClientError) -> Failure {
    Failure::because("the planner cannot be asked", e)
}

/// The planner's events, as soon as it listens.
async fn connect(socket: &std::path::Path) -> Result<Events, Failure> {
    let deadline = Instant::now() + START;
    loop {
        match Client::connect(socket).await {
            Ok(client) => return client.follow(&GetEvents {}).await.map_err(asked),
            Err(e) if Instant::now() > deadline => return Err(asked(e)),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}
