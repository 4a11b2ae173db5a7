//! Commands that somebody wants run now, as the agent runs and tells them.

use std::sync::Arc;

use groundplan_protocol::{
    VERSION,
    exec::{Exec, ExecEnd, ExecOutcome, ExecOutput, Order, RunOrder, Stream},
    ids::{ExecId, SessionId},
    kinds::Run,
};

use super::{
    super::process::Spool,
    commands::{nap, sleepers},
    *,
};
use crate::{commands::Commands, host::cancel::Canceller};

const LIMIT: u64 = 1 << 20;

fn order(line: &str) -> RunOrder {
    RunOrder {
        session: session(),
        run: Run::Shell(line.to_owned()),
        user: None,
        cwd: None,
        env: BTreeMap::new(),
        timeout: "1m".parse().unwrap(),
        output_limit: LIMIT,
    }
}

fn session() -> SessionId {
    SessionId::new("0123456789abcdef").unwrap()
}

/// How it ended and what it printed, with nobody who takes anything meanwhile.
async fn ran(site: &Site, order: &RunOrder) -> (ExecOutcome, String, String, u64) {
    let spool = Spool::new(order.output_limit, Arc::default());
    spool.set_lossy(true);
    let (outcome, _) = site.host.exec(order, &Cancel::never(), &spool).await;
    let (mut out, mut err) = (String::new(), String::new());
    for piece in spool.take(usize::MAX) {
        match piece.stream {
            Stream::Out => out += &piece.text,
            Stream::Err => err += &piece.text,
        }
    }
    (outcome, out, err, spool.omitted())
}

fn failed(outcome: &ExecOutcome) -> &str {
    match outcome {
        ExecOutcome::Failed { error } => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn streams_code_and_surroundings() {
    let site = Site::new();
    fs::create_dir(site.at("work")).unwrap();
    let env = BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]);
    let line = "echo $GREETING $GROUNDPLAN_NODE; pwd; cat; echo bad >&2; exit 3";
    let order = RunOrder { env, cwd: Some("/work".to_owned()), ..order(line) };
    let (outcome, out, err, omitted) = ran(&site, &order).await;
    assert_eq!((outcome, err.as_str(), omitted), (ExecOutcome::Exited { code: 3 }, "bad\n", 0));
    assert_eq!(out, format!("hello n0\n{}\n", site.at("work").canonicalize().unwrap().display()));
}

#[tokio::test]
async fn other_ends() {
    let site = Site::new();
    let (outcome, ..) = ran(&site, &order("kill -SEGV $$")).await;
    assert_eq!(outcome, ExecOutcome::Killed { signal: "SIGSEGV".to_owned() });
    let no_user = RunOrder { user: Some("nobody-here".to_owned()), ..order("true") };
    assert!(failed(&ran(&site, &no_user).await.0).contains("there is no user `nobody-here`"));
    let no_program = RunOrder { run: Run::Args(vec!["no-such-program".to_owned()]), ..order("") };
    assert!(failed(&ran(&site, &no_program).await.0).contains("no program `no-such-program` in PATH"));
    let no_dir = RunOrder { cwd: Some("/nowhere".to_owned()), ..order("true") };
    assert!(failed(&ran(&site, &no_dir).await.0).contains("there is no such directory"));
}

#[tokio::test]
async fn what_is_printed_comes_while_it_runs() {
    let site = Site::new();
    let spool = Spool::new(LIMIT, Arc::default());
    let order = order("echo first; until test -e go; do sleep 0.02; done; echo last");
    let stop = Cancel::never();
    let watch = async {
        until(|| spool.held() == 6).await;
        assert_eq!(spool.take(100)[0].text, "first\n");
        fs::write(site.at("go"), "").unwrap();
    };
    let ((outcome, _), ()) = tokio::join!(site.host.exec(&order, &stop, &spool), watch);
    assert!(outcome.is_success());
    assert_eq!(spool.take(100)[0].text, "last\n");
}

#[tokio::test]
async fn a_flood_waits_at_its_pipe_and_goes_beyond_no_limit() {
    let site = Site::new();
    let spool = Spool::new(u64::MAX, Arc::default());
    let flood = RunOrder { timeout: "300ms".parse().unwrap(), ..order("yes") };
    let stop = Cancel::never();
    let watch = async {
        until(|| spool.held() >= 128 * 1024).await;
        spool.set_lossy(true);
    };
    let ((outcome, _), ()) = tokio::join!(site.host.exec(&flood, &stop, &spool), watch);
    assert_eq!(outcome, ExecOutcome::TimedOut);
    assert!(spool.held() <= 128 * 1024 && spool.omitted() > 0);
    let limited = RunOrder { output_limit: 1000, ..order("head -c 100000000 /dev/zero | tr '\\0' x") };
    let (outcome, out, _, omitted) = ran(&site, &limited).await;
    assert_eq!((outcome, out.len(), omitted), (ExecOutcome::Exited { code: 0 }, 1000, 99_999_000));
}

#[tokio::test]
async fn time_is_up_or_it_is_stopped() {
    let site = Site::new();
    for (n, line) in [(11, "sleep $NAP & sleep $NAP"), (12, "trap '' TERM; (trap '' TERM; sleep $NAP) & sleep $NAP")] {
        let env = BTreeMap::from([("NAP".to_owned(), nap(n))]);
        let slow = RunOrder { env: env.clone(), timeout: "100ms".parse().unwrap(), ..order(line) };
        assert_eq!(ran(&site, &slow).await.0, ExecOutcome::TimedOut);
        assert_eq!(sleepers(&nap(n)), 0);
        let (canceller, slow) = (Canceller::new(), RunOrder { env, ..order(line) });
        let (stop, spool) = (canceller.listen(), Spool::new(LIMIT, Arc::default()));
        let ((outcome, _), ()) = tokio::join!(site.host.exec(&slow, &stop, &spool), async {
            until(|| sleepers(&nap(n)) == 2).await;
            canceller.cancel();
        });
        assert_eq!((outcome, sleepers(&nap(n))), (ExecOutcome::Stopped, 0));
    }
}

#[tokio::test]
async fn what_it_leaves_running_is_let_live_and_holds_nobody() {
    let site = Site::new();
    let (outcome, out, ..) = ran(&site, &order("yes & sleep 600 & echo $! >&2; echo $! > pid")).await;
    assert!(outcome.is_success());
    assert!(out.starts_with("y\n"));
    let pid: u32 = fs::read_to_string(site.at("pid")).unwrap().trim().parse().unwrap();
    assert!(lives(pid));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// The agent's commands, with a host and a clock that stands.
struct Desk {
    commands: Commands,
    host: Arc<Host>,
    _dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        let Site { dir, host, .. } = Site::new();
        let commands = Commands::new("lab".parse().unwrap(), "n0".parse().unwrap());
        Self { commands, host: Arc::new(host), _dir: dir }
    }

    fn order(&mut self, id: u32, order: Order) {
        let (site, node) = ("lab".parse().unwrap(), "n0".parse().unwrap());
        let exec = Exec { version: VERSION, site, node, id: exec_id(id), order };
        self.commands.take(exec, Some(&session()), &self.host);
    }

    fn run(&mut self, id: u32, line: &str) {
        self.order(id, Order::Run(Box::new(order(line))));
    }

    /// All words until nothing is left.
    async fn words(&mut self) -> Vec<ExecOutput> {
        let mut words = Vec::new();
        loop {
            while let Some(word) = self.commands.next(Duration::MAX / 2) {
                words.push(word);
            }
            if self.commands.is_empty() {
                return words;
            }
            self.commands.changed().await.unwrap();
        }
    }
}

fn exec_id(id: u32) -> ExecId {
    ExecId::new(format!("{id:08x}")).unwrap()
}

fn end(words: &[ExecOutput], id: u32) -> &ExecEnd {
    let mut ends = words.iter().filter(|word| word.id == exec_id(id)).filter_map(|word| word.end.as_ref());
    let end = ends.next().expect("an end");
    assert!(ends.next().is_none(), "one end only");
    end
}

#[tokio::test]
async fn words_are_numbered_from_the_first_that_says_it_began() {
    let mut desk = Desk::new();
    desk.run(1, "echo hello");
    desk.run(1, "echo again");
    let first = desk.commands.next(Duration::ZERO).expect("it has begun");
    assert_eq!((first.number, first.pieces.len(), &first.end), (0, 0, &None));
    let words = desk.words().await;
    assert_eq!(words.iter().map(|w| w.number).collect::<Vec<_>>(), (1..=words.len() as u64).collect::<Vec<_>>());
    let said: String = words.iter().flat_map(|w| &w.pieces).map(|p| p.text.as_str()).collect();
    assert_eq!((said.as_str(), end(&words, 1).outcome.is_success()), ("hello\n", true));
    desk.run(1, "echo again");
    assert!(desk.commands.is_empty(), "an order that is known is nothing new");
}

#[tokio::test]
async fn orders_that_are_refused() {
    let mut desk = Desk::new();
    let (site, node) = ("lab".parse().unwrap(), "n0".parse().unwrap());
    let late = Exec { version: VERSION, site, node, id: exec_id(1), order: Order::Run(Box::new(order("touch late"))) };
    desk.commands.take(late, Some(&SessionId::new("ffffffffffffffff").unwrap()), &desk.host.clone());
    // One that was stopped before it came.
    desk.order(2, Order::Stop);
    desk.run(2, "touch stopped");
    for id in 10..20 {
        desk.run(id, "until test -e go; do sleep 0.02; done");
    }
    fs::write(desk._dir.path().join("root/go"), "").unwrap();
    let words = desk.words().await;
    assert!(end(&words, 1).outcome.to_string().contains("earlier connection"));
    assert!(words.iter().all(|word| word.id != exec_id(2)));
    for id in 10..20 {
        let outcome = end(&words, id).outcome.to_string();
        assert!(outcome.contains(if id < 18 { "exited with 0" } else { "8 commands run" }), "{id}: {outcome}");
    }
    assert!(["late", "stopped"].iter().all(|file| !desk._dir.path().join("root").join(file).exists()));
}

#[tokio::test]
async fn an_agent_that_ends_takes_them_with_it() {
    let mut desk = Desk::new();
    desk.run(1, &format!("sleep {}", nap(21)));
    desk.run(2, &format!("sleep {}", nap(22)));
    let mut sleeping = std::pin::pin!(until(|| sleepers(&nap(21)) + sleepers(&nap(22)) == 2));
    loop {
        tokio::select! {
            () = &mut sleeping => break,
            stirred = desk.commands.changed() => stirred.unwrap(),
        }
    }
    desk.order(2, Order::Stop);
    while sleepers(&nap(22)) > 0 {
        desk.commands.changed().await.unwrap();
    }
    desk.commands.end();
    desk.run(3, "true");
    let words = desk.words().await;
    assert!(end(&words, 1).outcome.to_string().contains("the agent is shutting down"));
    assert!(end(&words, 3).outcome.to_string().contains("refused: the agent is shutting down"));
    assert_eq!((sleepers(&nap(21)), desk.commands.running()), (0, 0));
}
