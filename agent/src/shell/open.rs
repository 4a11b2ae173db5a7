//! Opening the agent: ledger, blob store, host and connection.

use std::{collections::VecDeque, fs, io, path::Path, sync::Arc, time::Duration};

use groundplan_protocol::{
    VERSION,
    envelope::seal,
    ids::{LedgerId, NodeId, Nonce, Sequence, SessionId, SiteName},
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
    unit_watch::UnitWatch,
};
use crate::{
    blobs::Blobs,
    clock::Clock,
    commands::Commands,
    config::Config,
    facts,
    freshness::Freshness,
    host::{self, Host, cancel::Canceller},
    ledger::{Journal, Ledger, LedgerError},
    machine::{Event, Machine, Settings, Snapshot},
    transport::{Link, Outlet, Reader},
};

/// How long another agent may still have the ledger open: a killed agent has no lock any more, but a child that it was just starting may
/// hold the lock a moment longer.
const PREDECESSOR: Duration = Duration::from_secs(2);

impl Shell {
    /// Opens everything, and continues where the ledger left off.
    pub async fn open(config: Config, stop_signals: StopSignals) -> Result<Self, ShellError> {
        let clock = Clock::start();
        let mut random = [0; 24];
        SystemRandom::new().fill(&mut random).map_err(|_| ShellError::Random)?;
        let (id, seed) = random.split_at(16);
        let seed = seed.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        // The ledger's lock comes first: whatever follows would disturb an agent that still runs here.
        let (ledger, journal, snapshot) = open_ledger(&config, &clock, id).await?;
        let blob_dir = config.state_dir.join("blobs");
        let blobs = Blobs::open(blob_dir.clone()).map_err(at(&blob_dir))?;
        let host = open_host(&config)?;
        let snapshot = Snapshot { noted: host.take_noted(), ..snapshot };
        let (machine, effects) = Machine::restore(machine_settings(&config), snapshot, clock.now())?;
        let (site, node) = (config.site.clone(), config.node.clone());
        let topic = |topic| Topic::Node(node.clone(), topic).name(&site);
        // The will, which the broker publishes when the connection breaks.
        let offline = presence(&config, machine.ledger(), None, None);
        let link = Link::start(
            &config.broker,
            agent_client(&site, &node, &config.key),
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
            reader: Reader { site, node, trusted: config.planner_keys.clone(), decryption: config.key.decryption() },
            cursor: ReportCursor { next: Sequence(1), to: Sequence(0), announce: false },
            to_fetch: None,
            unsent: None,
            chunk_filter: None,
            jobs: JoinSet::new(),
            canceller: Canceller::new(),
            drift: DriftChecks::new(&config.node, clock.now()),
            units: UnitWatch::new(clock.now()),
            facts: facts::FactsWatch::start(config.facts_dir.clone()).map_err(at(&config.facts_dir))?,
            inbox: VecDeque::new(),
            catch_up: CatchUp::default(),
            stop_at: None,
            down_logged: false,
            subscribed: false,
            session: None,
            unwritten: None,
            freshness: Freshness::open(&config.state_dir, config.silence, clock.now()),
            unsubscribed: false,
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
        shell.host.adopt_found(shell.machine.found());
        shell.host.adopt(&applied).await;
        drop(applied);
        // What `restore` wants written is on the disk before the first tick starts a task.
        shell.carry_out(effects).await?;
        shell.handle(Event::Tick).await?;
        Ok(shell)
    }
}

/// The error of an operation on a path.
fn at(path: &Path) -> impl FnOnce(io::Error) -> ShellError {
    let path = path.to_owned();
    move |source| ShellError::Io { path, source }
}

/// Opens the ledger, or makes one with the id `random`; waits a moment for a predecessor that has not let go of it.
async fn open_ledger(
    config: &Config,
    clock: &Clock,
    random: &[u8],
) -> Result<(Ledger, Journal, Snapshot), LedgerError> {
    let give_up = clock.now().mono + PREDECESSOR;
    loop {
        match Ledger::open(&config.state_dir, || new_ledger_id(random)) {
            Err(LedgerError::InUse { .. }) if clock.now().mono < give_up => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            opened => return opened,
        }
    }
}

fn open_host(config: &Config) -> Result<Arc<Host>, ShellError> {
    fs::create_dir_all(&config.root).map_err(at(&config.root))?;
    let mut settings =
        host::Settings::new(config.root.clone(), config.state_dir.clone(), config.site.clone(), config.node.clone());
    settings.max_found = config.max_found;
    settings.skip_host_kinds = config.skip_host_kinds;
    Ok(Arc::new(Host::new(settings).map_err(at(&config.root))?))
}

fn machine_settings(config: &Config) -> Settings {
    Settings {
        site: config.site.clone(),
        node: config.node.clone(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        encryption_key: config.key.decryption().public(),
        max_parallel: config.max_parallel,
        max_blob: config.max_blob,
        max_blobs: config.max_blobs,
        boot: facts::boot_id(),
    }
}

/// The sealed presence of this node: online on the connection `session`, or offline; and what keeps it from its work.
pub(super) fn presence(
    config: &Config,
    ledger: &LedgerId,
    session: Option<&SessionId>,
    trouble: Option<String>,
) -> Vec<u8> {
    let (site, node): (SiteName, NodeId) = (config.site.clone(), config.node.clone());
    let (online, session) = (session.is_some(), session.cloned());
    let agent = env!("CARGO_PKG_VERSION").to_owned();
    seal(
        &config.key,
        &Presence { version: VERSION, site, node, online, agent, ledger: ledger.clone(), session, trouble },
    )
}

pub(super) fn new_session() -> Result<SessionId, ShellError> {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| ShellError::Random)?;
    Ok(SessionId::new(hex(&random)).expect("8 bytes are 16 hexadecimal digits"))
}

pub(super) fn new_nonce() -> Result<Nonce, ShellError> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).map_err(|_| ShellError::Random)?;
    Ok(Nonce::new(hex(&random)).expect("16 bytes are 32 hexadecimal digits"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn new_ledger_id(random: &[u8]) -> LedgerId {
    LedgerId::new(hex(random)).expect("16 bytes are 32 hexadecimal digits")
}
