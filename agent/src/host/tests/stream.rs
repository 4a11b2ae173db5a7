//! Commands that users run on the node: how the agent runs them and streams their output.

use std::sync::Arc;

use groundplan_protocol::{
    VERSION,
    exec::{Exec, ExecEnd, ExecOutcome, ExecOutput, Order, READY_LIMIT, RunOrder, Stream},
    ids::{ExecId, Nonce, SessionId},
    kinds::Run,
};

use super::{
    super::process::Spool,
    commands::{nap, sleepers},
    *,
};
use crate::{
    commands::{CommandMessage, Commands},
    host::cancel::Canceller,
};

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

/// The outcome and the output of the command, which is read only at its end.
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
async fn streams_exit_code_and_environment() {
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
async fn other_outcomes() {
    let site = Site::new();
    let (outcome, ..) = ran(&site, &order("kill -SEGV $$")).await;
    assert_eq!(outcome, ExecOutcome::Killed { signal: "SIGSEGV".to_owned() });
    let no_user = RunOrder { user: Some("no-such-user".to_owned()), ..order("true") };
    assert!(failed(&ran(&site, &no_user).await.0).contains("there is no user `no-such-user`"));
    let no_program = RunOrder { run: Run::Args(vec!["no-such-program".to_owned()]), ..order("") };
    assert!(failed(&ran(&site, &no_program).await.0).contains("no program `no-such-program` in PATH"));
    let no_dir = RunOrder { cwd: Some("/nowhere".to_owned()), ..order("true") };
    assert!(failed(&ran(&site, &no_dir).await.0).contains("there is no such directory"));
}

#[tokio::test]
async fn output_arrives_while_the_command_runs() {
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
async fn much_output_waits_in_the_pipe_and_is_limited() {
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
async fn timeouts_and_stops_end_the_whole_group() {
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
async fn background_processes_live_on_and_delay_nothing() {
    let site = Site::new();
    let (outcome, out, ..) = ran(&site, &order("yes & sleep 600 & echo $! >&2; echo $! > pid")).await;
    assert!(outcome.is_success());
    assert!(out.starts_with("y\n"));
    let pid: u32 = fs::read_to_string(site.at("pid")).unwrap().trim().parse().unwrap();
    assert!(lives(pid));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// The agent's commands with a host and a clock that tests advance.
struct Bench {
    commands: Commands,
    /// The time since the host was booted.
    boot: Duration,
    /// How many orders came: each would be answered with a nonce of that number.
    orders: u32,
    host: Arc<Host>,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let Site { dir, host, .. } = Site::new();
        let commands = Commands::new("lab".parse().unwrap(), "n0".parse().unwrap());
        Self { commands, boot: Duration::from_secs(1000), orders: 0, host: Arc::new(host), _dir: dir }
    }

    fn order(&mut self, id: u32, order: Order) {
        self.order_on(&session(), id, order);
    }

    fn order_on(&mut self, session: &SessionId, id: u32, order: Order) {
        let (site, node) = ("lab".parse().unwrap(), "n0".parse().unwrap());
        let exec = Exec { version: VERSION, site, node, id: exec_id(id), order };
        self.orders += 1;
        self.commands.take(exec, Some(session), &self.host, self.boot, nonce(self.orders));
    }

    /// An order without its go. Returns the nonce that it is answered with, if it is the first one of that id.
    fn prepare(&mut self, id: u32, line: &str) -> Nonce {
        self.order(id, Order::Run(Box::new(order(line))));
        nonce(self.orders)
    }

    fn run(&mut self, id: u32, line: &str) {
        let nonce = self.prepare(id, line);
        self.order(id, Order::Go { nonce });
    }

    /// The next message, which has to be an answer to an order.
    fn answer(&mut self) -> (ExecId, Nonce) {
        match self.commands.next(Duration::ZERO) {
            Some(CommandMessage::Ready(ready)) => (ready.id, ready.nonce),
            other => panic!("{other:?}"),
        }
    }

    /// The next message, which has to be output.
    fn output(&mut self) -> ExecOutput {
        match self.commands.next(Duration::ZERO) {
            Some(CommandMessage::Output(output)) => output,
            other => panic!("{other:?}"),
        }
    }

    /// Whether the command of an order was begun; the lines of these tests make such a file.
    fn has(&self, file: &str) -> bool {
        self._dir.path().join("root").join(file).exists()
    }

    /// All messages until every command has ended.
    async fn messages(&mut self) -> Vec<ExecOutput> {
        let mut messages = Vec::new();
        loop {
            while let Some(message) = self.commands.next(Duration::MAX / 2) {
                if let CommandMessage::Output(output) = message {
                    messages.push(output);
                }
            }
            if self.commands.is_empty() {
                return messages;
            }
            self.commands.changed().await.unwrap();
        }
    }
}

fn exec_id(id: u32) -> ExecId {
    ExecId::new(format!("{id:08x}")).unwrap()
}

fn nonce(number: u32) -> Nonce {
    Nonce::new(format!("{number:032x}")).unwrap()
}

fn end(messages: &[ExecOutput], id: u32) -> &ExecEnd {
    let mut ends =
        messages.iter().filter(|message| message.id == exec_id(id)).filter_map(|message| message.end.as_ref());
    let end = ends.next().expect("an end");
    assert!(ends.next().is_none(), "one end only");
    end
}

#[tokio::test]
async fn messages_are_numbered_from_the_start_message() {
    let mut bench = Bench::new();
    bench.run(1, "echo hello");
    bench.run(1, "echo again");
    let first = bench.output();
    assert_eq!((first.number, first.pieces.len(), &first.end), (0, 0, &None));
    let messages = bench.messages().await;
    assert_eq!(messages.iter().map(|w| w.number).collect::<Vec<_>>(), (1..=messages.len() as u64).collect::<Vec<_>>());
    let output: String = messages.iter().flat_map(|w| &w.pieces).map(|p| p.text.as_str()).collect();
    assert_eq!((output.as_str(), end(&messages, 1).outcome.is_success()), ("hello\n", true));
    bench.run(1, "echo again");
    assert!(bench.commands.is_empty(), "a repeated order is ignored");
}

#[tokio::test]
async fn refuses_late_stopped_and_too_many_orders() {
    let mut bench = Bench::new();
    bench.order_on(&SessionId::new("ffffffffffffffff").unwrap(), 1, Order::Run(Box::new(order("touch late"))));
    // A command whose stop comes before its order.
    bench.order(2, Order::Stop);
    bench.run(2, "touch stopped");
    for id in 10..20 {
        bench.run(id, "until test -e go; do sleep 0.02; done");
    }
    fs::write(bench._dir.path().join("root/go"), "").unwrap();
    let messages = bench.messages().await;
    assert!(end(&messages, 1).outcome.to_string().contains("earlier connection"));
    assert!(messages.iter().all(|message| message.id != exec_id(2)));
    for id in 10..20 {
        let outcome = end(&messages, id).outcome.to_string();
        assert!(outcome.contains(if id < 18 { "exited with 0" } else { "8 commands run" }), "{id}: {outcome}");
    }
    assert!(["late", "stopped"].iter().all(|file| !bench.has(file)));
}

#[tokio::test]
async fn an_order_runs_with_its_go_and_once() {
    let mut bench = Bench::new();
    let first = bench.prepare(1, "echo once >> ran");
    assert_eq!(bench.answer(), (exec_id(1), first.clone()));
    // The order again is answered with the same nonce; another nonce is no planner's.
    bench.prepare(1, "echo once >> ran");
    assert_eq!(bench.answer(), (exec_id(1), first.clone()));
    bench.order(1, Order::Go { nonce: nonce(99) });
    assert!(bench.commands.is_empty() && bench.commands.running() == 0);
    for _ in 0..3 {
        bench.order(1, Order::Go { nonce: first.clone() });
        bench.prepare(1, "echo once >> ran");
    }
    assert!(end(&bench.messages().await, 1).outcome.is_success());
    bench.order(1, Order::Go { nonce: first.clone() });
    bench.prepare(1, "echo once >> ran");
    assert!(bench.commands.is_empty());
    assert_eq!(fs::read_to_string(bench._dir.path().join("root/ran")).unwrap(), "once\n");
    // An agent that was started again knows neither the command nor its nonce, and reports that.
    let mut next = Bench::new();
    next.order(1, Order::Go { nonce: first });
    assert_eq!(end(&next.messages().await, 1).outcome, ExecOutcome::Unknown);
    next.prepare(1, "touch again");
    assert!(next.commands.is_empty() && !next.has("again"));
}

#[tokio::test]
async fn what_gets_no_go_in_time_never_runs() {
    let mut bench = Bench::new();
    let limit = Duration::from(READY_LIMIT);
    let late = bench.prepare(1, "touch late");
    assert_eq!(bench.commands.expires_in(bench.boot), Some(limit));
    // While the host was suspended, no other clock went on. An order that is repeated gets no more time.
    bench.boot += limit / 2;
    bench.prepare(1, "touch late");
    bench.boot += limit / 2;
    bench.order(1, Order::Go { nonce: late.clone() });
    let messages = bench.messages().await;
    assert!(end(&messages, 1).outcome.to_string().contains("did not confirm within 15s"), "{messages:?}");
    // Without a go as well; and stopped, or on a connection that has ended, before it.
    bench.prepare(2, "touch late");
    bench.boot += limit;
    bench.commands.expire(bench.boot);
    let stopped = bench.prepare(3, "touch late");
    bench.order(3, Order::Stop);
    bench.order(3, Order::Go { nonce: stopped });
    let cut_off = bench.prepare(4, "touch late");
    bench.commands.connected(false);
    bench.commands.connected(true);
    bench.order(4, Order::Go { nonce: cut_off });
    let ending = bench.prepare(5, "touch late");
    bench.commands.end();
    bench.order(5, Order::Go { nonce: ending });
    bench.order(1, Order::Go { nonce: late });
    let messages = bench.messages().await;
    for (id, reason) in [(2, "did not confirm"), (3, "stopped before"), (4, "connection ended"), (5, "shutting down")] {
        let outcome = end(&messages, id).outcome.to_string();
        assert!(outcome.starts_with("refused: ") && outcome.contains(reason), "{outcome}");
    }
    assert!(!bench.has("late") && bench.commands.running() == 0);
}

#[tokio::test]
async fn few_orders_wait_for_their_go() {
    let mut bench = Bench::new();
    (1..40).for_each(|id| drop(bench.prepare(id, "true")));
    let messages = bench.messages().await;
    assert_eq!(messages.len(), 7);
    assert!(end(&messages, 39).outcome.to_string().contains("32 commands wait"));
}

#[tokio::test]
async fn a_stopping_agent_ends_its_commands() {
    let mut bench = Bench::new();
    bench.run(1, &format!("sleep {}", nap(21)));
    bench.run(2, &format!("sleep {}", nap(22)));
    let mut sleeping = std::pin::pin!(until(|| sleepers(&nap(21)) + sleepers(&nap(22)) == 2));
    loop {
        tokio::select! {
            () = &mut sleeping => break,
            change = bench.commands.changed() => change.unwrap(),
        }
    }
    bench.order(2, Order::Stop);
    while sleepers(&nap(22)) > 0 {
        bench.commands.changed().await.unwrap();
    }
    bench.commands.end();
    bench.run(3, "true");
    let messages = bench.messages().await;
    assert!(end(&messages, 1).outcome.to_string().contains("the agent is shutting down"));
    assert!(end(&messages, 3).outcome.to_string().contains("refused: the agent is shutting down"));
    assert_eq!((sleepers(&nap(21)), bench.commands.running()), (0, 0));
}
