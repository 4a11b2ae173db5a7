//! Opening the agent: ledger, blob store, host and connection.

use std::{collections::VecDeque, fs, path::PathBuf, sync::Arc, time::Duration};

use groundplan_protocol::{
    VERSION,
    envelope::seal,
    ids::{LedgerId, NodeId, Sequence, SessionId, SiteName},
    presence::Presence,
    topic::{NodeTopic, Topic, agent_client, agent_filters},
};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::task::JoinSet;

use super::{
    catch_up::CatchUp,
    drift_checks::DriftChecks,
    error::ShellError,
    state::{ReportCursor, Shell, Topics},
    stop_signals::StopSignals,
};
use crate::{
    blobs::Blobs,
    clock::Clock,
    commands::Commands,
    config::Config,
    facts,
    host::{self, Host, cancel::Canceller},
    ledger::{Ledger, LedgerError},
    machine::{Event, Machine, Settings},
    transport::{Link, Outlet, Reader},
};

/// How long another agent may still have the ledger open: a killed agent has no lock any more, but a child that it was just starting may
/// hold the lock a moment longer.
const PREDECESSOR: Duration = Duration::from_secs(2);

impl Shell {
    /// Opens everything, and continues where the ledger left off.
    pub async fn open(config: Config, stop_signals: StopSignals) -> Result<Self, ShellError> {
        let clock = Clock::start();
        let at = |path: &PathBuf| {
            let path = path.clone();
            move |source| ShellError::Io { path, source }
        };
        let mut random = [0; 24];
        SystemRandom::new().fill(&mut random).map_err(|_| ShellError::Random)?;
        let (id, seed) = random.split_at(16);
        let seed = seed.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let give_up = clock.now().mono + PREDECESSOR;
        let (ledger, journal, snapshot) = loop {
            match Ledger::open(&config.state_dir, || new_ledger_id(id)) {
                Err(LedgerError::InUse { .. }) if clock.now().mono < give_up => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                opened => break opened?,
            }
        };
        let blob_dir = config.state_dir.join("blobs");
        let blobs = Blobs::open(blob_dir.clone()).map_err(at(&blob_dir))?;
        fs::create_dir_all(&config.root).map_err(at(&config.root))?;
        let (site, node) = (config.site.clone(), config.node.clone());
        let host_settings =
            host::Settings::new(config.root.clone(), config.state_dir.clone(), site.clone(), node.clone());
        let host = Arc::new(Host::new(host_settings).map_err(at(&config.root))?);
        let settings = Settings {
            site: site.clone(),
            node: node.clone(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            max_parallel: config.max_parallel,
            max_blob: config.max_blob,
            max_blobs: config.max_blobs,
            boot: facts::boot_id(),
        };
        let (machine, effects) = Machine::restore(settings, snapshot, clock.now())?;
        let topic = |topic| Topic::Node(node.clone(), topic).name(&site);
        let offline = presence(&config, machine.ledger(), None);
        let link = Link::start(
            &config.broker,
            agent_client(&site, &node),
            config.keep_alive,
            (topic(NodeTopic::Presence), offline),
            seed,
        )?;
        let mut shell = Self {
            outlet: Outlet::new(
                topic(NodeTopic::State),
                topic(NodeTopic::Presence),
                topic(NodeTopic::Drift),
                topic(NodeTopic::Output),
            ),
            topics: Topics {
                report: topic(NodeTopic::Report),
                want: topic(NodeTopic::Want),
                subscribe: agent_filters(&site, &node),
            },
            commands: Commands::new(site.clone(), node.clone()),
            reader: Reader { site, node, trusted: config.planner_keys.clone() },
            cursor: ReportCursor { next: Sequence(1), to: Sequence(0), announce: false },
            plan_ref: None,
            chunk_filter: None,
            jobs: JoinSet::new(),
            canceller: Canceller::new(),
            drift: DriftChecks::new(&config.node, clock.now()),
            facts: facts::FactsWatch::start(config.facts_dir.clone()).map_err(at(&config.facts_dir))?,
            inbox: VecDeque::new(),
            catch_up: CatchUp::default(),
            stop_at: None,
            down_logged: false,
            subscribed: false,
            session: None,
            stopped: false,
            config,
            clock,
            machine,
            ledger,
            journal,
            blobs,
            host,
            link,
            stop_signals,
        };
        // Before the first job starts: it may be about a process that still runs.
        let applied: Vec<_> = shell.machine.applied().map(|(task, spec)| (task.clone(), spec.params.clone())).collect();
        shell.host.adopt(&applied).await;
        drop(applied);
        shell.carry_out(effects).await?;
        shell.handle(Event::Tick).await?;
        Ok(shell)
    }
}

/// The sealed presence of this node: online on the connection `session`, or offline.
pub(super) fn presence(config: &Config, ledger: &LedgerId, session: Option<&SessionId>) -> Vec<u8> {
    let (site, node): (SiteName, NodeId) = (config.site.clone(), config.node.clone());
    let (online, session) = (session.is_some(), session.cloned());
    let agent = env!("CARGO_PKG_VERSION").to_owned();
    seal(&config.key, &Presence { version: VERSION, site, node, online, agent, ledger: ledger.clone(), session })
}

pub(super) fn new_session() -> Result<SessionId, ShellError> {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| ShellError::Random)?;
    Ok(SessionId::new(hex(&random)).expect("8 bytes are 16 hexadecimal digits"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn new_ledger_id(random: &[u8]) -> LedgerId {
    LedgerId::new(hex(random)).expect("16 bytes are 32 hexadecimal digits")
}
