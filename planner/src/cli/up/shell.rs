//! The loop of a `groundplan up`: starts broker, planner and agents, forwards the planner's events to the display, and stops everything in
//! reverse order.

use std::{
    future,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use groundplan_broker::Limits;
use groundplan_protocol::{
    broker::BrokerAddress,
    envelope::PublicKey,
    ids::{InstanceId, NodeId, SiteName},
    report::Outcome,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{
    agents::{AgentExit, Agents, sweep},
    layout::{Layout, NodeAccess},
};
use crate::{
    api::{
        Client,
        client::Events,
        event::Event,
        requests::{GetEvents, GetStatus, GetWhy},
        types::{NodeCondition, NodePresence, NodeStatus, RolloutResult, Status},
    },
    config::ServeConfig,
    embedded::{self, NodePasswords, Proof},
    launch::planner,
    terminal::{Failure, progress::Progress},
};

/// How long the planner may take to open its socket.
const START: Duration = Duration::from_secs(20);
/// How long agents may take to stop supervised processes, whose own limit is 10 s by default; what runs longer is killed.
const STOP: Duration = Duration::from_secs(30);

/// The pause before checking again whether the site has converged: the first, which doubles, and the longest.
const CHECK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How often the planner is asked for what is wrong and causes no event, such as a full disk.
const TROUBLES: Duration = Duration::from_secs(2);

/// Everything that the loop needs.
pub(super) struct Shell {
    pub(super) layout: Layout,
    /// The path of the agent's program, which is run once for each node.
    pub(super) agent: PathBuf,
    /// The path of the site's repository.
    pub(super) site: PathBuf,
    pub(super) branch: String,
    /// The broker's port; 0 means any free port.
    pub(super) broker_port: u16,
    /// The passwords of the nodes, made at this start.
    pub(super) passwords: NodePasswords,
    /// Whether the site's only node acts on this machine itself.
    pub(super) real: bool,
}

/// The signals that stop everything: Ctrl-C, SIGTERM, and SIGHUP of a closed terminal.
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

/// The planner, as a task of this process.
struct Planner {
    task: JoinHandle<Result<(), Failure>>,
    stop: oneshot::Sender<()>,
}

impl Planner {
    fn start(config: ServeConfig) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            // A dropped sender stops it too: the loop may have failed.
            let stopped = async { drop(stopped.await) };
            planner(config, stopped).await
        });
        Self { task, stop }
    }

    /// Waits for its end, which is a failure: it was not stopped.
    async fn ended(&mut self) -> Failure {
        match (&mut self.task).await {
            Ok(Ok(())) => Failure::new("the planner stopped by itself"),
            Ok(Err(e)) => e,
            Err(e) => Failure::because("the planner stopped", e),
        }
    }
}

impl Shell {
    /// Runs until a signal, or until the planner ends by itself.
    pub(super) async fn run(self, mut progress: Progress) -> Result<(), Failure> {
        let mut stops = Stops::new()?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, self.broker_port));
        let limits = Limits::within(embedded::descriptors());
        let proof = Proof::Passwords(self.passwords.clone());
        let (broker, embedded) = embedded::start(listen, proof, &self.layout.planner(), limits).await?;
        let port = broker.addresses()[0].port();
        let address = BrokerAddress { host: Ipv4Addr::LOCALHOST.to_string(), port, tls: false };
        let mut config = ServeConfig::new(self.site.to_string_lossy(), address.clone(), self.layout.planner());
        config.branch = Some(self.branch.clone());
        config.embedded = Some(embedded);
        let socket = config.socket();
        let mut planner = Planner::start(config);
        let (sender, mut exits) = mpsc::unbounded_channel();
        let mut agents = Agents::new(self.agent.clone(), sender);

        let result = tokio::select! {
            result = self.follow(&socket, &address, &mut agents, &mut exits, &mut progress) => result,
            failure = planner.ended() => Err(failure),
            () = stops.next() => Ok(()),
        };

        progress.end();
        progress.line("\nstopping; Ctrl-C again stops at once");
        // Agents before the planner and the broker: they report what they stop.
        agents.stop_all();
        tokio::select! {
            () = agents.ended() => {}
            () = stops.next() => {}
            () = sleep(STOP) => {}
        }
        // For the agents that have not stopped in time; does nothing if all have.
        agents.kill_all();
        agents.ended().await;
        let left = sweep(&self.layout.nodes());
        if left > 0 {
            progress.problem(&format!("processes that did not stop and were killed: {left}"));
        }
        if !planner.task.is_finished() {
            // Fails if it has just ended.
            let _ = planner.stop.send(());
            tokio::select! {
                _ = &mut planner.task => {}
                () = stops.next() => planner.task.abort(),
            }
        }
        broker.stop().await;
        progress.line("stopped");
        result
    }

    /// Shows the planner's events, and runs one agent for each declared node.
    async fn follow(
        &self,
        socket: &std::path::Path,
        broker: &BrokerAddress,
        agents: &mut Agents,
        exits: &mut mpsc::UnboundedReceiver<AgentExit>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut events = connect(socket).await?;
        let mut client = Client::connect(socket).await.map_err(query_failed)?;
        let status = client.ask(&GetStatus {}).await.map_err(query_failed)?;
        self.agents(&status, broker, agents, progress).await?;
        progress.begin(&status);
        // Its first event came before this program followed the events.
        if status.rollout.as_ref().is_some_and(|r| matches!(r.result, RolloutResult::Running | RolloutResult::Waiting))
        {
            progress.rollout(&client.rollout(None).await.map_err(query_failed)?);
        }
        // An agent's last state may arrive after the last event, and causes none: the status is polled until the site has converged.
        let mut check = Check::default();
        let mut troubles = tokio::time::interval(TROUBLES);
        loop {
            let event = tokio::select! {
                // Events first: a task's outcome must be shown before the convergence that follows from it.
                biased;
                event = events.next() => event.map_err(query_failed)?,
                () = check.due() => {
                    let status = client.ask(&GetStatus {}).await.map_err(query_failed)?;
                    if check.done(settled(&status, check.is_long())) {
                        progress.settled(&status);
                    }
                    continue;
                }
                _ = troubles.tick() => {
                    progress.troubles(&client.ask(&GetStatus {}).await.map_err(query_failed)?.troubles);
                    continue;
                }
                Some(AgentExit { node, how }) = exits.recv() => {
                    progress.problem(&format!("{node}: its agent {how}; restarting it"));
                    continue;
                }
            };
            // The stream ends with the planner, whose task reports the cause.
            let Some(event) = event else { return future::pending().await };
            match &event {
                Event::RolloutStarted { rollout } => match client.rollout(Some(rollout.generation)).await {
                    Ok(detail) => progress.rollout(&detail),
                    Err(e) => return Err(query_failed(e)),
                },
                _ => progress.event(&event),
            }
            // After it is shown: what follows from the event may print lines of its own.
            match &event {
                Event::Commit { .. } => {
                    let status = client.ask(&GetStatus {}).await.map_err(query_failed)?;
                    self.agents(&status, broker, agents, progress).await?;
                }
                Event::TaskFinished { instance, outcome: Outcome::Failed { .. }, .. } => {
                    show_output(&mut client, instance, progress).await;
                }
                Event::TaskFinished { instance, skipped: true, .. } => {
                    show_output(&mut client, instance, progress).await;
                }
                Event::Idle | Event::RolloutFinished { .. } | Event::Node { .. } => check.soon(),
                _ => {}
            }
        }
    }

    /// Starts agents for new nodes, and stops those of removed nodes.
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
            progress.line(&format!("{node}: removed from the site; its agent was stopped"));
        }
        if self.real && declared.len() > 1 {
            let failure =
                format!("the site declares {} nodes, and this machine can be only one of them", declared.len());
            return Err(Failure::new(failure).hint("declare one node, or leave out --real"));
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
            status.planner.key.parse().map_err(|e| Failure::because("the planner has an invalid public key", e))?;
        let access = NodeAccess { broker, password: &self.passwords.password(node.as_str()) };
        self.layout.prepare_node(node, site, &access, &key, self.real)
    }
}

/// When to check again whether the site has converged: soon after an event, then less and less often.
#[derive(Default)]
struct Check {
    at: Option<Instant>,
    pause: Duration,
}

impl Check {
    fn soon(&mut self) {
        (self.at, self.pause) = (Some(Instant::now()), CHECK.0);
    }

    async fn due(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => future::pending().await,
        }
    }

    /// Whether the checks have taken long already.
    fn is_long(&self) -> bool {
        self.pause >= CHECK.1
    }

    /// Takes the result of a check, schedules the next one if the site has not converged, and returns the result.
    fn done(&mut self, converged: bool) -> bool {
        self.at = (!converged).then(|| Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(CHECK.1);
        converged
    }
}

/// Whether every declared node is online and has applied what the active commit declares, as far as possible. A site without tasks never
/// has a rollout, any other gets one soon: without one, the site counts as converged only after `long`.
fn settled(status: &Status, long: bool) -> bool {
    let done = |n: &NodeStatus| {
        let known = n.presence == NodePresence::Online && n.condition != NodeCondition::Unknown;
        known && n.counts.open() == 0 && n.generation >= n.planned
    };
    let over = status
        .rollout
        .as_ref()
        .map_or(long, |rollout| !matches!(rollout.result, RolloutResult::Running | RolloutResult::Waiting));
    status.commit.is_some() && over && status.nodes.iter().filter(|n| n.declared).all(done)
}

/// Shows the output of a task, if the planner has it.
async fn show_output(client: &mut Client, instance: &InstanceId, progress: &mut Progress) {
    let why = client.ask(&GetWhy { node: instance.node.clone(), task: instance.task.clone() }).await;
    // Only an addition to the failure that is on the screen already: without it the run goes on.
    let output = why.ok().and_then(|why| why.record).and_then(|record| record.output);
    if let Some(output) = output {
        progress.output(&output);
    }
}

fn query_failed(e: crate::api::ClientError) -> Failure {
    Failure::because("cannot query the planner", e)
}

/// Subscribes to the planner's events, as soon as its socket accepts connections.
async fn connect(socket: &std::path::Path) -> Result<Events, Failure> {
    let deadline = Instant::now() + START;
    loop {
        match Client::connect(socket).await {
            Ok(client) => return client.follow(&GetEvents {}).await.map_err(query_failed),
            Err(e) if Instant::now() > deadline => return Err(query_failed(e)),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}
